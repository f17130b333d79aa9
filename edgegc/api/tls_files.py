"""Takes over the operator's TLS files when they change, so that renewing a certificate takes no restart.

Level-triggered: a change in their directories only says *look*, and so does a slow tick, for links and file systems that
tell nothing. Knows no setting and no daemon.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from edgegc import errors
from edgegc.api import tls
from edgegc.watch import open_watcher

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from edgegc.watch import Watcher

LOOK_S: Final = 60.0
"""How long a change that nobody told of may go unnoticed."""

logger = logging.getLogger(__name__)

_State = tuple[tuple[str, int, int, int], ...]


async def follow(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Load certificate and key into the context whenever one of their files has changed and they fit. Never returns.

    Half of a pair is not taken: the context keeps what it has until the other half is there.
    """
    with open_watcher() as watcher:
        seen: _State | None = None
        while True:
            found = _look(watcher, certificate, key)
            if found != seen:
                try:
                    tls.reload(context, tls.from_files(certificate, key))
                except errors.Error as error:
                    logger.warning("the TLS files have changed and are not taken over: %s", error.message)
                else:
                    # The first time for safety only: they may have changed since whoever calls this loaded them.
                    if seen is not None:
                        logger.info("the TLS files have changed and are in force")
            if seen is None:
                task_status.started()
            seen = found
            with trio.move_on_after(LOOK_S):
                await watcher.changed()


def _look(watcher: Watcher, *files: Path) -> _State:
    """Return what tells one state of the files from another, and watch where they are and where their links lead."""
    found = []
    for file in files:
        try:
            status = file.stat()
            watcher.add(file.parent)
            watcher.add(file.resolve().parent)
        except OSError:
            found.append((str(file), 0, 0, 0))
        else:
            found.append((str(file), status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
