"""Machines that are nodes: a real ``edgegc join`` and a real ``edgegc agent``, with its nebula, in a namespace each.

Knows the agent's command line, the file in which it remembers versions, and that its nebulas are its children. What an agent
that does not come up has to say is the end of its log.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.errors import Error
from edgegc.perf import process, respawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgegc.perf.network import Host
    from edgegc.perf.process import Usage
    from edgegc.perf.server import Server

LOOK_S: Final = 0.005
COMMAND_S: Final = 60.0
"""For a command that takes a third of a second, and some on an emulated device."""
APPLY_S: Final = 120.0
"""From joining to running the first version: a second or two; a node without luck waits for its first lighthouse."""
END_S: Final = 30.0
"""An agent ends its nebulas within 20 s."""
LOG_TAIL_CHARACTERS: Final = 2000


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edgegc key create --show-join -o json`` says: how a machine becomes a node of a cluster."""

    url: str
    key: str
    pin: str | None


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent remembers of a cluster. ``highest``: fetched and verified; ``applied``: proven by nebula."""

    highest: int = 0
    applied: int | None = None


class Agent:
    """The agent's own process, to be sampled without its nebulas."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def pids(self) -> tuple[int, ...]:
        """Return its process alone. Raises :class:`~edgegc.perf.process.Gone`."""
        process.stat(self.pid)
        return (self.pid,)

    def database_bytes(self) -> int:
        """Return 0: it has none."""
        return 0

    def wal_bytes(self) -> int:
        """Return 0: it has none."""
        return 0


class Machine:
    """One machine. ``cpu``: the processor that what runs on it is kept to."""

    def __init__(self, host: Host, server: Server, *, cpu: int | None) -> None:
        self.host = host
        self.directory = server.directory / host.name
        """Of its agent."""
        self._server = server
        self._cpu = cpu
        self._log_path = server.directory / f"{host.name}.log"
        self._agent: trio.Process | None = None

    @property
    def agent(self) -> Agent:
        """The agent that runs. Raises errors.Error where none does."""
        if self._agent is None or self._agent.poll() is not None:
            raise Error(self._epitaph("is not running"))
        return Agent(self._agent.pid)

    def nebulas(self) -> Usage:
        """Return what the agent's nebulas use together."""
        return process.usage(process.tree(self.agent.pid)[1:])

    async def join(self, how: Join) -> None:
        """Make it a node, by the name of its host; an agent that runs picks that up. Raises errors.Error."""
        words = ["join", how.url, "--key", how.key, "--name", self.host.name]
        words += ["--config-dir", str(self.directory)]
        if how.pin is not None:
            words += ["--pin", how.pin]
        nebula = self._server.options.nebula
        if nebula is not None:
            words += ["--nebula", str(nebula.absolute())]
        await _run(
            self.host.enter(self._server.command(*words)), self._environ(), f"{self.host.name} can't join"
        )

    async def start(self) -> None:
        """Start its agent. Raises errors.Error."""
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._agent = await trio.lowlevel.open_process(
                self.host.enter(self._server.command("agent", "--config-dir", str(self.directory))),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ(),
                cwd=self._server.directory,
                start_new_session=True,
            )
        except OSError as error:
            raise Error(f"an agent can't be started: {error}") from error
        finally:
            os.close(log)
        if self._cpu is not None:
            with suppress(ProcessLookupError):
                # It has not even become Python: its threads and its nebulas will inherit this.
                os.sched_setaffinity(self._agent.pid, {self._cpu})

    async def stop(self) -> None:
        """End its agent, and its nebulas with it; kill it where it does not end. Cancelled, it kills at once."""
        agent, self._agent = self._agent, None
        if agent is None:
            return
        try:
            if agent.poll() is None:
                agent.send_signal(signal.SIGINT)
                with trio.move_on_after(END_S):
                    await agent.wait()
        finally:
            with trio.CancelScope(shield=True):
                if agent.poll() is None:
                    agent.kill()
                await agent.wait()

    def versions(self, cluster_id: str) -> Versions:
        """Return what its agent remembers of a cluster; nothing where it has not come to that."""
        try:
            return msgspec.json.decode(
                (self.directory / cluster_id / "state.json").read_bytes(), type=Versions
            )
        except (FileNotFoundError, msgspec.DecodeError):
            return Versions()

    async def until(
        self, cluster_id: str, holds: Callable[[Versions], bool], *, within_s: float = APPLY_S
    ) -> None:
        """Wait until what its agent remembers of a cluster is as wanted; looked at every 5 ms.

        Raises errors.Error, with the end of the agent's log, where it is not in time.
        """
        with trio.move_on_after(within_s):
            while True:
                if holds(self.versions(cluster_id)):
                    return
                if self._agent is not None and self._agent.poll() is not None:
                    raise Error(self._epitaph(f"ended with status {self._agent.returncode}"))
                await trio.sleep(LOOK_S)
        raise Error(self._epitaph(f"has not come to the wanted version within {within_s:.0f} s"))

    async def until_applied(self, cluster_id: str) -> None:
        """Wait until its newest version of a cluster is proven. Raises errors.Error, as :meth:`until` does."""
        await self.until(cluster_id, lambda seen: seen.highest > 0 and seen.applied == seen.highest)

    def _environ(self) -> dict[str, str]:
        # Without the server's settings: this is another machine.
        return respawn.environ() if self._server.options.command is None else respawn.foreign_environ()

    def _epitaph(self, what: str) -> str:
        try:
            tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:]
        except OSError:
            tail = ""
        return f"the agent of {self.host.name} {what}; its log ends:\n{tail}"


async def how_to_join(server: Server, cluster_id: str) -> Join:
    """Have the server make an enrolment key for many machines, and return how they join. Raises errors.Error."""
    words = ["key", "create", "--show-join", "--uses", "unlimited", "--cluster", cluster_id, "-o", "json"]
    argv = server.command(*words, "--data-dir", str(server.data_dir))
    printed = await _run(argv, server.environ(), "no machine can join")
    return msgspec.json.decode(printed, type=Join)


async def _run(argv: Sequence[str], environ: dict[str, str], else_: str) -> bytes:
    """Run a command to its end and return what it printed. Raises errors.Error, beginning with ``else_``."""
    with trio.move_on_after(COMMAND_S):
        try:
            done = await trio.run_process(
                list(argv),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise Error(f"{else_}: {error}") from error
        if done.returncode == 0:
            printed: bytes = done.stdout
            return printed
        raise Error(f"{else_}: {done.stderr.decode(errors='replace').strip()}")
    raise Error(f"{else_}: the command does not end within {COMMAND_S:.0f} s")
