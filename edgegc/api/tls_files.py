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

LOOK_S: Final = 60.0
"""How long a change that nobody told of may go unnoticed."""

logger = logging.getLogger(__name__)

_State = tuple[tuple[int, int, int], ...]


async def follow(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Load both files into the context whenever one has changed and they fit each other. Never returns.

    Half of a pair is not taken: the context keeps what it has until the other half is there.
    """
    # Where the files are, and where their links lead: either may be what is replaced.
    directories = {path.parent for file in (certificate, key) for path in (file, file.resolve())}
    with open_watcher(*directories) as watcher:
        loaded = _state(certificate, key)
        task_status.started()
        while True:
            with trio.move_on_after(LOOK_S):
                await watcher.changed()
            found = _state(certificate, key)
            if found == loaded:
                continue
            loaded = found
            try:
                tls.reload(context, tls.from_files(certificate, key))
            except errors.Error as error:
                logger.warning("the TLS files have changed and are not taken over: %s", error.message)
            else:
                logger.info("the TLS files have changed and are in force")


def _state(*files: Path) -> _State:
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
