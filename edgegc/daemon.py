"""The daemon: opens everything, owns the root nursery, ends in order. The only wiring of the server side.

Knows who needs whom, and nothing of what they do.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import signal
import socket
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from edgegc import errors, heaps, logs, sampler, systemd
from edgegc.api import listeners as listening
from edgegc.api import tls, tls_files
from edgegc.api.access import AccessLog
from edgegc.api.app import create_app
from edgegc.api.lane import Lane
from edgegc.api.server import Server as HttpServer
from edgegc.clock import SystemClock
from edgegc.control import fleet, housekeeping
from edgegc.control.control import Control, open_control
from edgegc.lighthouse.supervisor import Supervisor
from edgegc.model.manifest import Server
from edgegc.store.database import StoreCrashed, open_database
from edgegc.store.gate import refuse_half_restored
from edgegc.store.vault import open_vault

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from edgegc.api.listeners import Listener
    from edgegc.settings import Settings

logger = logging.getLogger(__name__)

DATABASE: Final = "edgegc.db"
ADMIN_SOCKET: Final = "admin.sock"
DATA_DIR_MODE: Final = 0o711
"""Others may pass through, to the lighthouses' directories, but not look around. Everything secret is 0600 besides."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 300.0
"""Optional tasks that crash start again after 1 s, then ever later, up to 5 minutes."""
STEADY_S: Final = 60.0
"""Who ran for so long begins at the first delay again."""
STOP_LIGHTHOUSES_S: Final = 15.0
"""How long all lighthouses together may take to end, TERM and then KILL, where they are to end with us."""


class Crashed(errors.Error):
    """An essential task crashed: the daemon has ended, and the log says why. The service manager starts it again."""


async def run(
    settings: Settings,
    *,
    ready: Callable[[], None] | None = None,
    reload: Callable[[], Settings] | None = None,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the daemon until a signal ends it. Returns when everything is put away.

    SIGTERM leaves the lighthouses running, to be adopted by the next start; SIGINT, or ``lighthouse.on_exit = "stop"``,
    ends them too; a second signal means at once. SIGHUP calls ``reload`` and takes over what can change while
    running: the log's level and format, and the TLS certificate.

    :param ready: called once, when the API answers. ``task_status`` says the same to ``nursery.start``, with the
        URLs that are listened on.
    :param reload: reads the settings again; without it SIGHUP only re-reads the TLS files.
    :raises errors.Error: the start failed: the port is taken, the data directory is in use, the settings don't fit.
        Nothing is left running. Also :class:`Crashed`, when an essential task crashed later.

    Cancelling is like a second SIGTERM.
    """
    _raise_file_limit()
    heaps.share()
    umask = os.umask(0o077)
    try:
        await _run(settings, ready=ready, reload=reload, task_status=task_status)
    finally:
        os.umask(umask)


async def _run(
    settings: Settings,
    *,
    ready: Callable[[], None] | None,
    reload: Callable[[], Settings] | None,
    task_status: trio.TaskStatus[tuple[str, ...]],
) -> None:
    data = settings.data.dir
    _make_data_directory(data)
    # What SQLite writes while it compacts must not land in memory, which ``/tmp`` may be.
    os.environ["SQLITE_TMPDIR"] = str(data.absolute())
    refuse_half_restored(data)
    vault = open_vault(data)
    # Outermost, so that a signal has its meaning from the first moment to the last: in a migration, in the close.
    async with _listening_to_signals() as signals:
        try:
            async with open_database(data / DATABASE, queue_size=settings.limits.write_queue) as database:
                with ExitStack() as stack:
                    door = _open_door(settings, stack)
                    control = await open_control(
                        database, clock=SystemClock(), settings=settings, vault=vault, servers=door.servers
                    )
                    daemon = _Daemon(settings, control, door, signals, reload=reload)
                    await daemon.run(ready=ready, task_status=task_status)
        except StoreCrashed as error:
            raise Crashed("edgegc ended because its store crashed; the log says why") from error


class _Signals:
    """What signals ask for: to end, with the lighthouses or without them, at once; to read the settings again."""

    def __init__(self, now: trio.CancelScope) -> None:
        self.stop = trio.Event()
        self.interrupted = False
        self.hung_up: Callable[[], None] = lambda: None
        """Called on SIGHUP."""
        self._now = now

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                name = signal.Signals(number).name
                if number == signal.SIGHUP:
                    self.hung_up()
                elif self.stop.is_set():
                    logger.warning("%s again: ending at once", name)
                    self._now.cancel()
                else:
                    logger.info("%s: ending; a second one ends at once", name)
                    self.interrupted = number == signal.SIGINT
                    self.stop.set()


@asynccontextmanager
async def _listening_to_signals() -> AsyncIterator[_Signals]:
    try:
        async with trio.open_nursery() as nursery:
            signals = _Signals(nursery.cancel_scope)
            await nursery.start(signals.run)
            yield signals
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Only the body fails; that it ran beside a task is nobody's business.
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


class _Door:
    """What the outside reaches us by: the listeners, the TLS context they share, the addresses that agents are told."""

    def __init__(
        self, listeners: list[Listener], context: ssl.SSLContext | None, servers: tuple[Server, ...]
    ) -> None:
        self.listeners = listeners
        self.context = context
        self.servers = servers


class _Daemon:
    def __init__(
        self,
        settings: Settings,
        control: Control,
        door: _Door,
        signals: _Signals,
        *,
        reload: Callable[[], Settings] | None,
    ) -> None:
        self._settings = settings
        self._control = control
        self._door = door
        self._reload = reload
        self._signals = signals
        self._crash: str | None = None
        self._supervisor = Supervisor(control)
        self._tls = settings.tls
        """As it is in force: SIGHUP may bring other files."""
        self._following = trio.CancelScope()
        """In which those files are followed."""

    async def run(
        self, *, ready: Callable[[], None] | None, task_status: trio.TaskStatus[tuple[str, ...]]
    ) -> None:
        control = self._control
        log = AccessLog()
        app = create_app(control, log=log)
        head_bytes = self._settings.limits.head_bytes
        lane = Lane(control, limits=app.limits, log=log, head_bytes=head_bytes)
        server = HttpServer(app, self._settings, log=log, release=control.polls.release_all, lane=lane)
        shutdown, served = trio.Event(), trio.Event()

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            # Quart would make an application context for each request.
            async with app.app_context():
                await server.run(self._door.listeners, shutdown=shutdown, task_status=task_status)
            served.set()

        try:
            async with trio.open_nursery() as root:
                self._signals.hung_up = self._take_over_settings
                await root.start(self._restarting, "fleet", partial(fleet.run, control))
                await root.start(self._essential, "lighthouses", self._supervisor.run)
                await root.start(self._restarting, "housekeeping", partial(housekeeping.run, control))
                await root.start(self._restarting, "sampler", partial(sampler.run, control))
                await root.start(self._essential, "api", serve)
                if self._tls.mode == "files":
                    await root.start(self._restarting, "tls", self._follow_tls)
                root.start_soon(heaps.run)
                root.start_soon(systemd.watchdog)
                urls = tuple(listener.url for listener in self._door.listeners)
                logger.info("edgegc is up: %s", ", ".join(urls))
                systemd.notify("READY=1")
                task_status.started(urls)
                if ready is not None:
                    ready()
                await self._signals.stop.wait()
                systemd.notify("STOPPING=1")
                shutdown.set()
                await served.wait()
                if self._ends_lighthouses:
                    await self._end_lighthouses()
                root.cancel_scope.cancel()
        except BaseExceptionGroup:
            if self._crash is None:
                raise
            # The one line is in the log already, with its traceback.
            raise Crashed(
                f"edgegc ended because its task {self._crash!r} crashed; the log says why"
            ) from None
        logger.info(
            "edgegc has ended; lighthouses were %s", "ended" if self._ends_lighthouses else "left running"
        )

    async def _follow_tls(self) -> None:
        """Follow the TLS files that are in force, and from a SIGHUP on those that it brings."""
        while True:
            context, certificate, key = self._door.context, self._tls.certificate, self._tls.key
            if context is None or certificate is None or key is None:
                raise AssertionError("files were loaded that have no path")
            with trio.CancelScope() as self._following:
                await tls_files.follow(context, certificate, key)

    async def _end_lighthouses(self) -> None:
        with trio.move_on_after(STOP_LIGHTHOUSES_S) as ending:
            await self._supervisor.stop_all()
        if ending.cancelled_caught:
            logger.error("not all lighthouses ended within %.0f s", STOP_LIGHTHOUSES_S)

    @property
    def _ends_lighthouses(self) -> bool:
        return self._signals.interrupted or self._settings.lighthouse.on_exit == "stop"

    async def _essential(
        self, name: str, task: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run a task without which nothing makes sense: its crash ends the daemon, with one line in the log."""
        try:
            await task(task_status=task_status)
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not _is_cancellation(error) and self._crash is None:
                self._crash = name
                logger.critical("the task %r crashed, so edgegc ends", name, exc_info=error)
            raise

    async def _restarting(
        self, name: str, task: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run a task that the rest can do without: its crash shows on ``/health/ready``, and it starts again."""
        # The daemon must not wait for it, nor may a second start say `started` a second time.
        task_status.started()
        delay_s = FIRST_RETRY_S
        while True:
            began = trio.current_time()
            try:
                self._control.health.set(name)
                await task()
                reason = "it ended"
            except Exception as error:  # An exception group with a Cancelled in it is none.
                reason = str(error) or type(error).__name__
                logger.exception("the task %r crashed", name)
            if trio.current_time() - began >= STEADY_S:
                delay_s = FIRST_RETRY_S
            self._control.health.set(
                name,
                f"{name} crashed and starts again in {delay_s:.0f} s: {reason}; the log has the traceback",
            )
            await trio.sleep(delay_s)
            delay_s = min(delay_s * 2, LAST_RETRY_S)

    def _take_over_settings(self) -> None:
        """Take over what can change while running, and name what can't. Settings that don't fit change nothing."""
        # Compared with those of the start: that is what still runs.
        try:
            new = self._reload() if self._reload is not None else self._settings
            # Not where another mode was in force: agents are told its pin, or to speak without TLS.
            if self._door.context is not None and new.tls.mode == self._tls.mode == "files":
                tls.reload(self._door.context, tls.from_files(new.tls.certificate, new.tls.key))
                self._tls = new.tls
                self._following.cancel()
        except errors.Error as error:
            logger.error("SIGHUP: the settings were not taken over: %s", error.message)
            return
        logs.configure(level=new.log.level, format=new.log.format)
        later = [
            section
            for section in new.__struct_fields__
            if section != "log" and getattr(new, section) != getattr(self._settings, section)
        ]
        if "tls" in later and new.tls.mode == self._settings.tls.mode == "files":
            later.remove("tls")
        logger.info("SIGHUP: log settings and TLS files were read again")
        if later:
            logger.warning("SIGHUP: changes of these sections need a restart: %s", ", ".join(later))


def _open_door(settings: Settings, stack: ExitStack) -> _Door:
    """Open the listeners, which ``stack`` closes. The data directory is locked: its admin socket is ours."""
    identity = _identity(settings)
    context = tls.context(identity) if identity is not None else None
    opened = listening.open_tcp(settings.api.listen, tls=context, insecure_http=settings.api.insecure_http)
    for listener in opened:
        stack.callback(listener.close)
    admin = listening.open_admin(settings.data.dir / ADMIN_SOCKET)
    stack.callback(admin.close)
    pin = identity.pin if identity is not None and settings.tls.mode == "self-signed" else None
    urls = settings.api.public_urls or tuple(url for listener in opened if (url := _reachable(listener)))
    servers = tuple(Server(url=url, pin=pin if url.startswith("https:") else None) for url in urls)
    return _Door([*opened, admin], context, servers)


def _identity(settings: Settings) -> tls.Identity | None:
    match settings.tls.mode:
        case "off":
            return None
        case "files":
            return tls.from_files(settings.tls.certificate, settings.tls.key)
        case "self-signed":
            hosts = [listening.split_address(address)[0] for address in settings.api.listen]
            hosts += [host for url in settings.api.public_urls if (host := urlsplit(url).hostname)]
            names = tuple(dict.fromkeys(host for host in hosts if not _is_wildcard(host)))
            return tls.self_signed(settings.data.dir / "tls", names=names, now=SystemClock().now())


def _reachable(listener: Listener) -> str | None:
    """Return the URL to tell agents where no public one is set: for a wildcard the address this box routes from."""
    host = str(listener.socket.getsockname()[0])
    if not _is_wildcard(host):
        return listener.url
    source = _route_source(listener.socket.family)
    if source is None:
        return None
    shown = f"[{source}]" if ":" in source else source
    return f"{'https' if listener.tls else 'http'}://{shown}:{listener.port}"


def _route_source(family: int) -> str | None:
    """Return the source address of the default route. Nothing is sent: connecting a UDP socket only picks a route."""
    outside = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _make_data_directory(path: Path) -> None:
    try:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(DATA_DIR_MODE)
    except OSError as error:
        raise errors.Invalid(f"data.dir: {path} can't be made: {error.strerror}") from error
    if not path.is_dir():
        raise errors.Invalid(f"data.dir: {path} is not a directory")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise errors.Invalid(f"data.dir: no permission to write in {path}")


def _raise_file_limit() -> None:
    """Allow as many file descriptors as the system lets us: each client is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
