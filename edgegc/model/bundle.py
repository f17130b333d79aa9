"""A bundle that an admin uploaded, as stored: one row of an uploaded cluster's history."""

from __future__ import annotations

import msgspec


class UploadedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``bundles``. ``body_id`` is its content's, which several may share.

    ``digest`` is the lower-case hex SHA-256 of the content, ``size`` its bytes, ``uploaded_at`` when that came (Unix
    seconds). The one with the highest version is active.
    """

    cluster_id: str
    version: int
    body_id: int
    digest: str
    size: int
    uploaded_at: int
