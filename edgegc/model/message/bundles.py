"""Bodies about uploaded bundles: the history of an uploaded cluster."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class BundleView(Struct, frozen=True, kw_only=True):
    """An uploaded bundle. ``digest``: SHA-256 of the archive in lower-case hex; ``active``: what nodes get now."""

    version: int
    digest: str
    size: int
    uploaded_at: datetime
    active: bool


class BundleList(Struct, frozen=True, kw_only=True):
    """The bundles that are kept, the newest first."""

    bundles: tuple[BundleView, ...]
    next_cursor: str | None = None
