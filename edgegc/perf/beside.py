"""Which reference is measured beside which case: the same load in the same run, so that a goal is a ratio that travels."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MIB: Final = 1024 * 1024


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A reference and the case that it stands beside. It gets that case's plan: connections, duration, model."""

    reference: Literal["raw_echo", "plain_quart"]
    case: str
    """The reference's own: ``raw_echo[version]``."""
    beside: str
    quick: bool = False
    """Also in the quick suite."""
    body_bytes: int = 0
    """What the reference answers; 0: as much as a version check."""


ALL: Final = (
    Beside(reference="raw_echo", case="version", beside="api.version[hot-closed]", quick=True),
    Beside(reference="plain_quart", case="version", beside="api.version[hot-closed]", quick=True),
    Beside(reference="plain_quart", case="1MiB", beside="api.bundle_download[1MiB-closed]", body_bytes=MIB),
    Beside(reference="plain_quart", case="node", beside="api.node_create[closed]"),
)


def of(case: str, *, quick: bool) -> tuple[Beside, ...]:
    """Return what stands beside a case. ``quick``: only so much that each reference is seen to work."""
    return tuple(each for each in ALL if each.beside == case and (each.quick or not quick))
