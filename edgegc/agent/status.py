"""What ``edgegc agent status`` shows, and how it gets it: from the running agent, else from what lies on disk.

Decides nothing. The running agent answers on a Unix socket in its directory, which needs no control plane.
"""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import trio

from edgegc.agent import settings, state
from edgegc.agent.versions import Versions
from edgegc.errors import Error
from edgegc.model.message import rfc3339
from edgegc.model.node import ReportedState
from edgegc.nebula import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOCKET_NAME: Final = "agent.sock"
RECORD_NAME: Final = "process.json"
STATE_NAME: Final = "state.json"
LOG_NAME: Final = "nebula.log"
ASK_TIMEOUT_S: Final = 5.0
NOT_RUNNING: Final = "the agent is not running"


class NebulaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The nebula process of a cluster; ``state`` as of a lighthouse."""

    pid: int | None
    state: str
    version: str | None


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster as this machine sees it. ``desired_version``: the newest one that it has heard of."""

    cluster_id: str
    name: str
    applied_version: int | None
    desired_version: int | None
    state: ReportedState
    error: str | None
    nebula: NebulaStatus
    last_contact_at: datetime | None
    certificate_not_after: datetime | None


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Every cluster of this machine."""

    clusters: tuple[ClusterStatus, ...]


def certificate_not_after(versions: Versions, number: int | None) -> datetime | None:
    """Return until when the certificate of a version is valid; None where that cannot be told. Blocking."""
    if number is None:
        return None
    try:
        return rfc3339(versions.certificate(number).details.not_after)
    except (Error, OSError):
        return None


def from_files(directory: Path) -> AgentStatus:
    """Return what the files tell where no agent runs. Blocking; raises Error where they can't be read."""
    return AgentStatus(
        clusters=tuple(
            _from_files(directory / cluster.id, cluster) for cluster in settings.load(directory).clusters
        )
    )


def _from_files(directory: Path, cluster: settings.Cluster) -> ClusterStatus:
    known = state.load(directory / STATE_NAME)
    process = record.load(directory / RECORD_NAME)
    alive = process is not None and process.pid is not None and record.names(process, process.pid)
    failure = known.failure.reason if known.failure is not None else None
    return ClusterStatus(
        cluster_id=cluster.id,
        name=cluster.name,
        applied_version=known.applied,
        desired_version=known.highest or None,
        state="failed",
        error=f"{NOT_RUNNING}; {failure}" if failure else NOT_RUNNING,
        nebula=NebulaStatus(
            pid=process.pid if alive and process is not None else None,
            state="running" if alive else "stopped",
            version=None,
        ),
        last_contact_at=None,
        certificate_not_after=certificate_not_after(Versions(directory), known.applied),
    )


class LoggedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log of what a cluster's versions came to."""

    at: datetime
    cluster_id: str
    cluster: str
    version: int
    what: Literal["applied", "failed"]
    reason: str | None


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What was applied when, oldest first."""

    log: tuple[LoggedOutcome, ...]


def log(directory: Path, name_or_id: str | None = None) -> Log:
    """Return the log of one cluster, or of all. Blocking; reads files alone, so no agent need run.

    Raises NotFound or Conflict for a name that does not say which cluster, Invalid where a file is damaged.
    """
    known = settings.load(directory)
    clusters = known.clusters if name_or_id is None else (known.named(name_or_id),)
    lines = [
        LoggedOutcome(
            at=rfc3339(outcome.at),
            cluster_id=cluster.id,
            cluster=cluster.name,
            version=outcome.version,
            what=outcome.what,
            reason=outcome.reason,
        )
        for cluster in clusters
        for outcome in state.load(directory / cluster.id / STATE_NAME).history
    ]
    return Log(log=tuple(sorted(lines, key=lambda line: line.at)))


def ask(directory: Path) -> AgentStatus | None:
    """Return what the running agent of a directory says, or None where none runs. Blocking."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(ASK_TIMEOUT_S)
        try:
            agent.connect(os.fspath(directory / SOCKET_NAME))
            answer = b"".join(iter(lambda: agent.recv(65536), b""))
        except OSError:
            return None
    try:
        return msgspec.json.decode(answer, type=AgentStatus)
    except msgspec.DecodeError:
        return None


async def serve(
    directory: Path,
    look: Callable[[], AgentStatus],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer everybody who may open the socket (0600) with what ``look`` returns, until cancelled."""
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)

    async def answer(stream: trio.SocketStream) -> None:
        # Whoever does not read is left alone: the answer fits into a socket's buffer many times.
        with trio.move_on_after(ASK_TIMEOUT_S):
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(msgspec.json.encode(look()))
        await trio.aclose_forcefully(stream)

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    old_mask = os.umask(0o177)
    try:
        await listening.bind(os.fspath(path))
    finally:
        os.umask(old_mask)
    listening.listen()
    try:
        await trio.serve_listeners(
            answer, [trio.SocketListener(listening)], task_status=_started(task_status)
        )
    finally:
        path.unlink(missing_ok=True)


class _Started:
    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        self._task_status.started()


def _started(task_status: trio.TaskStatus[None]) -> trio.TaskStatus[list[trio.SocketListener]]:
    """Say "started" without handing the listeners on."""
    return _Started(task_status)
