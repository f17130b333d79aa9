"""One lighthouse of a measured box, seen from outside: its files, nebula's log, its UDP port, and what the API says.

Changes nothing by itself. A change is followed through what it leaves behind, each moment as soon as it can be seen; files are
looked at every two milliseconds, and that is how exact the moments are.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from edgegc.errors import Error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from edgegc.model.lighthouse import LighthouseStatus
    from edgegc.perf.server import Server

READY: Final = "Nebula interface is active"
RELOADED: Final = "Caught HUP, reloading config"
"""What nebula writes, all versions alike, when it has started, and when it was told to read its configuration again."""
LOOK_S: Final = 0.002
ASK_S: Final = 0.02
"""The API is asked more rarely: each question costs the box a millisecond, and a small one four."""
PROBE_S: Final = 0.05
"""An answer over loopback takes a fraction of a millisecond."""
CHANGE_S: Final = 60.0
"""A change takes a second, on an emulated device some more; after this it does not come."""
TEST: Final = 0x11
RECEIVE_ERROR: Final = 0x12
"""Nebula's packet types, with its version in the upper half: a test of a tunnel that does not exist, and the answer."""
RESERVED: Final = 1
_TUNNEL: Final = struct.Struct("!BBHIQ")


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """When what became of a change was first seen, in seconds since it was begun."""

    answered_s: float
    """The API had answered, or the file was in its place."""
    noticed_s: float | None
    """The first thing that the box did about it on disk: a twin of the configuration, for nebula to test."""
    rendered_s: float | None
    """The new configuration was in its place; None where it did not change."""
    said_s: float
    """nebula had written the line that was waited for."""
    running_s: float
    """The API showed the wanted version as the running one."""


class _Traces(NamedTuple):
    """What there is on disk. ``config``: inode and time, for a file that is replaced keeps neither."""

    around: int
    config: tuple[int, int] | None
    log_bytes: int


class Lighthouse:
    """The lighthouse of one cluster. ``open_socket`` makes sockets where its UDP port is, in a namespace perhaps."""

    def __init__(
        self,
        server: Server,
        cluster_id: str,
        *,
        open_socket: Callable[[int, int], socket.socket] = socket.socket,
    ) -> None:
        self.cluster_id = cluster_id
        self._server = server
        self._open_socket = open_socket
        self._around = server.data_dir / "lighthouses"
        self.directory = self._around / cluster_id

    @property
    def overrides(self) -> Path:
        """The directory of the operator's own settings for it."""
        return self.directory / "overrides"

    async def status(self) -> LighthouseStatus | None:
        """Return what the API says of it; None where it knows none."""
        listed = (await self._server.admin.lighthouses()).lighthouses
        return next((each for each in listed if each.cluster_id == self.cluster_id), None)

    async def until_running(self, *, within_s: float = CHANGE_S) -> LighthouseStatus:
        """Wait until the API shows that it runs the version that it should run.

        Raises errors.Error, with what the box says of it, where it does not in time.
        """
        status = None
        with trio.move_on_after(within_s):
            while True:
                status = await self.status()
                if status is not None and _runs(status):
                    return status
                await trio.sleep(ASK_S)
        why = "there is none" if status is None else status.last_error or f"it is {status.state}"
        raise Error(f"the lighthouse does not run as wanted after {within_s:.0f} s: {why}")

    async def until_gone(self) -> None:
        """Wait until the API knows of it no more. Raises errors.Error where it stays."""
        with trio.move_on_after(CHANGE_S):
            while True:
                if await self.status() is None:
                    return
                await trio.sleep(ASK_S)
        raise Error(f"the lighthouse does not end within {CHANGE_S:.0f} s")

    async def until_calm(self, calm_s: float) -> float:
        """Wait until it has run as wanted for so many seconds; return when it came to that, of Trio's clock.

        Raises errors.Error where it does not come to rest in time.
        """
        before: tuple[object, ...] = ()
        since = trio.current_time()
        with trio.move_on_after(CHANGE_S):
            while True:
                status = await self.until_running()
                now = (status.pid, status.version_running)
                if now != before:
                    before, since = now, trio.current_time()
                elif trio.current_time() - since >= calm_s:
                    return since
                await trio.sleep(ASK_S)
        raise Error(f"the lighthouse does not come to rest within {CHANGE_S:.0f} s")

    async def follow(self, change: Callable[[], Awaitable[None]], *, line: str) -> Moments:
        """Make a change and follow it until it runs; ``line`` is what nebula writes then.

        Raises errors.Error where something of it does not come, and what ``change`` raises.
        """
        before = self._look()
        began = trio.current_time()
        seen = _Seen()
        answered_s = 0.0
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, before, line, began, seen)
            try:
                await change()
                answered_s = trio.current_time() - began
                with trio.fail_after(CHANGE_S):
                    await seen.said.wait()
            except trio.TooSlowError:
                status = await self.status()
                said = status.last_error if status is not None else None
                failure = Error(
                    f"nebula did not write {line!r} within {CHANGE_S:.0f} s of a change: {said or 'no reason is known'}"
                )
            except Exception as raised:
                # Raised below, so that it leaves as what it is and not as a member of the nursery's group.
                failure = raised
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self.until_running()
        return Moments(
            answered_s=answered_s,
            noticed_s=seen.noticed_s,
            rendered_s=seen.rendered_s,
            said_s=seen.said_s,
            running_s=trio.current_time() - began,
        )

    async def crash(self) -> tuple[float, float]:
        """Kill it, and wait until it is back: return after how many seconds its port answered, and the API said so.

        Raises errors.Error where it does not come back.
        """
        status = await self.until_running()
        if status.pid is None:
            raise Error("the lighthouse runs, and the API does not know its process")
        before = self.log_bytes()
        began = trio.current_time()
        os.kill(status.pid, signal.SIGKILL)
        with trio.move_on_after(CHANGE_S):
            # Not the port alone: what was killed may answer once more while it ends.
            while True:
                if self.count(READY, since=before) and await self.answers(status.port):
                    break
                await trio.sleep(LOOK_S)
            answered_s = trio.current_time() - began
            while True:
                if (await self.until_running()).pid != status.pid:
                    return answered_s, trio.current_time() - began
                await trio.sleep(ASK_S)
        raise Error(f"the lighthouse did not come back within {CHANGE_S:.0f} s after it was killed")

    async def answers(self, port: int) -> bool:
        """Return whether a live nebula answers on a UDP port: a stopped process still holds it, and says nothing."""
        index = secrets.randbits(32)
        opened = self._open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        with trio.socket.from_stdlib_socket(opened) as udp, trio.move_on_after(PROBE_S):
            try:
                await udp.connect(("127.0.0.1", port))
                await udp.send(_TUNNEL.pack(TEST, 0, 0, index, RESERVED))
                answer = await udp.recv(_TUNNEL.size)
            except ConnectionRefusedError:
                return False
            return len(answer) == _TUNNEL.size and _TUNNEL.unpack(answer)[::3] == (RECEIVE_ERROR, index)
        return False

    def log_bytes(self) -> int:
        """Return how long nebula's log is."""
        return self._look().log_bytes

    def count(self, line: str, *, since: int) -> int:
        """Return how often nebula has written a line since its log was ``since`` bytes long."""
        try:
            with (self.directory / "nebula.log").open("rb") as log:
                # It starts anew where it has become too long.
                log.seek(since if os.fstat(log.fileno()).st_size >= since else 0)
                return log.read().count(line.encode())
        except FileNotFoundError:
            return 0

    async def _watch(self, before: _Traces, line: str, began: float, seen: _Seen) -> None:
        while True:
            now = self._look()
            at_s = trio.current_time() - began
            if seen.noticed_s is None and now.around != before.around:
                seen.noticed_s = at_s
            if seen.rendered_s is None and now.config is not None and now.config != before.config:
                seen.rendered_s = at_s
            if now.log_bytes != before.log_bytes and self.count(line, since=before.log_bytes):
                seen.said_s = at_s
                seen.said.set()
                return
            await trio.sleep(LOOK_S)

    def _look(self) -> _Traces:
        config = _stat(self.directory / "config.yml")
        around = _stat(self._around)
        log = _stat(self.directory / "nebula.log")
        return _Traces(
            around=around.st_mtime_ns if around else 0,
            config=(config.st_ino, config.st_mtime_ns) if config else None,
            log_bytes=log.st_size if log else 0,
        )


class _Seen:
    """What of a change was seen so far."""

    def __init__(self) -> None:
        self.noticed_s: float | None = None
        self.rendered_s: float | None = None
        self.said_s = 0.0
        self.said = trio.Event()


def _runs(status: LighthouseStatus) -> bool:
    # While it reloads, or where that failed, nobody knows what it runs, and the version is none.
    return status.state == "running" and status.version_running == status.version_desired


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
