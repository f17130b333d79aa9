"""The server under measurement: a real ``edgegc serve`` in a process of its own, in a data directory of its own.

Knows its command line, its files and that it answers HTTP; not what is asked of it. What a server that does not start, or
ends, has to say is the end of its log.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.client import Client
from edgegc.errors import Unavailable
from edgegc.perf import cages, filesystem, leftovers, process, respawn
from edgegc.perf.plan import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.cages import Cage

HOST: Final = "127.0.0.1"
START_S: Final = 180.0
"""A first run from the ``.pyz`` on an emulated device unpacks for some 10 s; after three minutes nothing comes any more."""
PROBE_EVERY_S: Final = 0.005
"""How often a starting server is tried: what is told of a start is right to this."""
PROBE_S: Final = 10.0
"""A server that accepts and then says nothing is tried again after this."""
END_S: Final = 30.0
"""How long a server may take to end: it drains for 5 s, ends lighthouses, and closes the database on a slow disk."""
LOG_TAIL_LINES: Final = 20
LOG_TAIL_BYTES: Final = 65_536
FIRST_PORT: Final = 10_000
"""Below are other people's services."""
EPHEMERAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORT_TRIES: Final = 200
LIVE: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started."""

    command: tuple[str, ...] | None = None
    """Another release's file, say; None: this very program."""
    arguments: tuple[str, ...] = ()
    """More words for ``edgegc serve``."""
    tls: bool = False
    limits: bool = False
    """Whether it limits how often one may ask. Off, for all that asks here comes from one address."""
    environ: dict[str, str] = {}
    """Settings as ``EDGEGC_SECTION_NAME``, and whatever else it is to find."""
    nebula: Path | None = None
    inside: tuple[str, ...] = ()
    """Words before its command line that become it, as those of :meth:`edgegc.perf.network.Host.enter`. It is asked over its
    admin socket then: its address may be out of our reach."""
    data_dir: Path | None = None
    """One that there is already and that stays; None: a fresh one that goes with the server."""
    directory: Path | None = None
    """In which the fresh one is made: see :func:`edgegc.perf.filesystem.workplace`."""


class Server:
    """A server that was started. Made by :func:`serving` alone."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        directory: Path,
        data_dir: Path,
        port: int,
        cage: Cage | None,
        cpu: int | None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.options = options
        self.warnings = warnings
        """What must be said beside whatever is measured here, a sentence each."""
        self.directory = directory
        """Of the run: the log lies in it, and the data directory unless it was given."""
        self.data_dir = data_dir
        self.target = Target(host=HOST, port=port, tls=options.tls)
        self.admin = Client(f"unix://{data_dir / 'admin.sock'}")
        """Asks as the operator, over the admin socket."""
        self.cage = cage
        self.cpu = cpu
        self.log_path = directory / "server.log"
        self.started_s = 0.0
        """From the beginning of the last start until the first answer."""
        self.starts = 0
        self._process: trio.Process | None = None

    @property
    def pid(self) -> int:
        """The process, or the last one there was."""
        if self._process is None:
            raise Unavailable("the server was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """Where it answers, for people and clients."""
        return f"{'https' if self.target.tls else 'http'}://{self.target.host}:{self.target.port}"

    def pids(self) -> tuple[int, ...]:
        """Return the server's process and all below it. Raises :class:`~edgegc.perf.process.Gone`."""
        return process.tree(self.pid)

    def database_bytes(self) -> int:
        """Return the size of the database, without its log."""
        return _size(self.data_dir / "edgegc.db")

    def wal_bytes(self) -> int:
        """Return the size of the database's write-ahead log."""
        return _size(self.data_dir / "edgegc.db-wal")

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the end of what it has written to its log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, _size(self.log_path) - LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def start(self) -> float:
        """Start it and wait for its first answer; return the seconds from one to the other.

        Raises Unavailable, with the end of its log, where it ends before it answers. Cancelled, it leaves the process to
        :meth:`stop`.
        """
        began = trio.current_time()
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await trio.lowlevel.open_process(
                self._argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ(),
                cwd=self.directory,
                # Ctrl-C is for the suite, which then ends its server.
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the server can't be started: {error}") from error
        finally:
            os.close(log)
        if self.cpu is not None:
            with suppress(ProcessLookupError):
                # It has not even become Python: whatever thread it will have inherits this.
                os.sched_setaffinity(self._process.pid, {self.cpu})
        self.starts += 1
        with trio.move_on_after(START_S):
            while not await self._answers():
                if not self.alive:
                    raise Unavailable(self.epitaph("before it answered"))
                await trio.sleep(PROBE_EVERY_S)
            self.started_s = trio.current_time() - began
            return self.started_s
        raise Unavailable(
            f"the server does not answer within {START_S:.0f} s; its log ends:\n{self.log_tail()}"
        )

    async def stop(self, *, number: signal.Signals = signal.SIGINT) -> None:
        """Ask it to end, and kill it where it does not; nothing happens where it has ended. Its lighthouses end with it.

        Cancelled, it kills at once.
        """
        self._forget_connections()
        if self._process is None:
            return
        try:
            if self.alive:
                self._process.send_signal(number)
                with trio.move_on_after(END_S):
                    await self._process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if self.alive:
                    self._process.kill()
                await self._process.wait()
                if number == signal.SIGINT:
                    # A killed server leaves its nebulas running, for the next one to adopt.
                    leftovers.end_nebulas(self.data_dir)

    async def wait(self) -> None:
        """Wait until its process ends, if it runs."""
        if self._process is not None:
            await self._process.wait()

    async def restart(self) -> float:
        """End it as an upgrade does, its lighthouses running on, and start it again at the same address.

        Returns and raises as :meth:`start`.
        """
        await self.stop(number=signal.SIGTERM)
        return await self.start()

    async def crash(self) -> None:
        """Kill its process, as the kernel would when memory runs out."""
        self._forget_connections()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def ending(self, when: str = "") -> str:
        """Return how a server has ended, and why where that is known; ``when`` is added. Nothing of its log is in it."""
        status = self._process.poll() if self._process is not None else None
        how = f"with status {status}"
        if status is not None and status < 0:
            how = f"by {signal.Signals(-status).name}"
        if self.cage is not None and self.cage.oom_kills():
            how = f"because it passed the memory limit of {self.cage.device}"
        return f"the server ended {how}{' ' if when else ''}{when}"

    def epitaph(self, when: str = "") -> str:
        """Return the same with the end of its log, for whoever sits in front of it: a log is nothing for a report."""
        return f"{self.ending(when)}; its log ends:\n{self.log_tail()}"

    def _forget_connections(self) -> None:
        # They would be found closed by the first who asks after a restart.
        self.admin.close()
        self.admin = Client(f"unix://{self.data_dir / 'admin.sock'}")

    def command(self, *words: str) -> list[str]:
        """Return the command line of ``edgegc WORDS`` of the release that this server is."""
        return [*(self.options.command or respawn.measured()), *words]

    def environ(self) -> dict[str, str]:
        """Return the environment that it has, with its settings, which other commands of its release need, too."""
        settings = {
            "EDGEGC_LIMITS_ENABLED": "true" if self.options.limits else "false",
            "EDGEGC_TLS_MODE": "self-signed" if self.options.tls else "off",
            "EDGEGC_LOG_FORMAT": "json",
        }
        if os.geteuid() == 0 and filesystem.closed_at(self.data_dir.parent):
            # The account that lighthouses would have can't get to their files.
            settings["EDGEGC_LIGHTHOUSE_USER"] = "root"
        if self.options.nebula is not None:
            settings["EDGEGC_NEBULA_PATH"] = str(self.options.nebula.absolute())
        surroundings = respawn.environ if self.options.command is None else respawn.foreign_environ
        return surroundings(**{**settings, **self.options.environ})

    def _argv(self) -> list[str]:
        words = ["serve", "--data-dir", str(self.data_dir), "--listen", f"{HOST}:{self.target.port}"]
        argv = [*self.options.inside, *self.command(*words), *self.options.arguments]
        return argv if self.cage is None else self.cage.wrap(argv)

    async def _answers(self) -> bool:
        """Return whether it answers HTTP, whatever it says."""
        with trio.move_on_after(PROBE_S), suppress(OSError, trio.BrokenResourceError):
            async with await self._connect() as stream:
                await stream.send_all(LIVE)
                return (await stream.receive_some(16)).startswith(b"HTTP/1.")
        return False

    async def _connect(self) -> trio.abc.Stream:
        if self.options.inside:
            return await trio.open_unix_socket(self.data_dir / "admin.sock")
        raw = await trio.open_tcp_stream(self.target.host, self.target.port)
        if self.target.tls:
            return trio.SSLStream(raw, _unchecked(), https_compatible=True)
        return raw


@asynccontextmanager
async def serving(
    options: ServerOptions, *, cage: Cage | None = None, cpu: int | None = None
) -> AsyncIterator[Server]:
    """Start a server and have it for as long as the context lasts; nothing of it is left afterwards, also when cancelled.

    ``cage``: the control groups that it runs in. ``cpu``: the only processor that it may use. Raises Unavailable, with
    the end of its log, where it does not start. What a killed suite left in the same place is removed first.
    """
    workplace = filesystem.workplace(options.directory)
    warnings = [*leftovers.sweep(workplace), *cages.sweep()]
    with filesystem.temporary(workplace) as directory:
        if warning := filesystem.warning(options.data_dir or directory):
            warnings.append(warning)
        server = Server(
            options,
            directory=directory,
            data_dir=options.data_dir.absolute() if options.data_dir else directory / "data",
            port=free_port(),
            cage=cage,
            cpu=cpu,
            warnings=tuple(warnings),
        )
        try:
            await server.start()
            yield server
        finally:
            # Not for ever, and not cut short: it is ours to end.
            with trio.CancelScope(shield=True):
                await server.stop()


def free_port() -> int:
    """Return a TCP port that nobody listens on and that no connection gets as its own end.

    Below the range that the kernel takes those from: else a server that is started again may find its port in use by one
    of the ten thousand connections that were made to it. Raises Unavailable.
    """
    try:
        lowest = int(EPHEMERAL_PORTS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        lowest = 32_768
    ports = range(FIRST_PORT, lowest) if lowest > FIRST_PORT + PORT_TRIES else range(1024, 65_536)
    for _ in range(PORT_TRIES):
        port = random.choice(ports)
        with ExitStack() as stack:
            attempt = stack.enter_context(socket.socket())
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                attempt.bind((HOST, port))
                return port
    raise Unavailable(f"no free TCP port on {HOST} after {PORT_TRIES} tries")


def _unchecked() -> ssl.SSLContext:
    # The server is our own, and its key is a minute old.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
