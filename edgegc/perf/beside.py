"""Which reference is asked in turns with which case: the same load at the same time, so that their ratio travels.

A goal is a ratio to a reference that is shown as a case of its own. All closed cases of the API that are long enough for it
have one at least to tell the machine's pace: what a comparison of releases stands on.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MIB: Final = 1024 * 1024


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A reference and the case that it stands beside. It gets that case's plan: connections, time, model."""

    reference: Literal["raw_echo", "plain_quart"]
    case: str = ""
    """The reference's own, ``raw_echo[version]``; without one it is not shown by itself."""
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
    *(
        Beside(reference="plain_quart", beside=f"api.{case}")
        for case in (
            "version_304[closed]",
            "bundle_download[100KiB-closed]",
            "bundle_download[5MiB-closed]",
            "bundle_download[10MiB-closed]",
            "node_create[keyed-closed]",
            "node_batch[100-closed]",
            "node_batch[1000-closed]",
            "node_get[closed]",
            "node_list[50-closed]",
            "node_list[500-closed]",
            "node_update[closed]",
            "node_delete[closed]",
            "topology[closed]",
            "enroll[closed]",
            "auth_reject[closed]",
        )
    ),
)


def of(case: str, *, quick: bool) -> tuple[Beside, ...]:
    """Return what stands beside a case. ``quick``: only so much that each reference is seen to work."""
    return tuple(each for each in ALL if each.beside == case and (each.quick or not quick))
