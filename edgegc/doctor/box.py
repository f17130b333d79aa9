"""A box's own questions: who runs lighthouses, whether its ports are free, its TLS, its backups."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import stat
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import trio
from cryptography import x509

from edgegc import errors
from edgegc.api import tls
from edgegc.api.listeners import split_address
from edgegc.doctor import machine
from edgegc.doctor.finding import Finding, fail, guarded, of_error, ok, warn
from edgegc.lighthouse import account
from edgegc.lighthouse.orphans import recorded
from edgegc.nebula.ports import check_free
from edgegc.store import backup_file, backups
from edgegc.store.gate import LOCK_FILE, RESTORING_FILE, open_unused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgegc.settings import Settings

NEEDED: Final = {
    "CAP_SETUID": "to become the lighthouses' user",
    "CAP_SETGID": "to become the lighthouses' user",
    "CAP_CHOWN": "to hand that user its files",
    "CAP_KILL": "to signal its processes",
}
CERTIFICATE_WARN_DAYS: Final = 30
BACKUP_WARN_DAYS: Final = 7
DAY_S: Final = 86_400
SPARE_FILES: Final = 256
"""Open files beside clients: database, logs, lighthouses."""


async def examine(settings: Settings, *, now: float) -> list[Finding]:
    """Return the findings for the box with these settings, in the order in which things are needed."""
    data = settings.data.dir.absolute()
    somewhere = next(each for each in (data, *data.parents) if each.is_dir())
    daemon = await trio.to_thread.run_sync(_daemon_pid, data)
    budgets = settings.budgets
    nebula = await machine.nebula(settings.nebula.path)
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("daemon", lambda: _daemon(data, daemon)),
        ("tun", lambda: machine.tun(needed=False)),
        (
            "capabilities",
            lambda: machine.capabilities(NEEDED, without="lighthouses run as the same user as edgegc"),
        ),
        ("lighthouse user", lambda: _user(settings, somewhere)),
        ("API port", lambda: _api_ports(settings, daemon)),
        ("lighthouse port", lambda: _lighthouse_ports(data, daemon)),
        ("clock", lambda: machine.clock(now)),
        ("disk", lambda: machine.disk(somewhere, least_bytes=budgets.disk_free_bytes)),
        ("fsync", lambda: machine.fsync(somewhere)),
        ("open files", lambda: machine.open_files(settings.limits.connections + SPARE_FILES)),
        (
            "memory",
            lambda: machine.memory(budgets.daemon_rss_bytes + budgets.lighthouse_rss_bytes, pid=daemon),
        ),
        ("TLS", lambda: _tls(settings, data, now)),
        ("backups", lambda: _backups(data, now)),
    )

    def run() -> list[Finding]:
        return [guarded(name, check) for name, check in checks]

    return [nebula, *await trio.to_thread.run_sync(run)]


def _daemon_pid(data: Path) -> int | None:
    """Return the process that holds the data directory, None where none does or nobody may know."""
    try:
        with (data / LOCK_FILE).open("rb") as file:
            try:
                # Shared, and for no time at all: a daemon that starts just now is not kept from it by a mere look.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read(20).decode("ascii", "replace").strip()
                return int(text) if text.isdecimal() else None
    except FileNotFoundError:
        pass
    return None


def _daemon(data: Path, pid: int | None) -> Finding:
    if (data / RESTORING_FILE).exists():
        return fail("daemon", f"a restore into {data} was interrupted", "run the same 'edgegc restore' again")
    if pid is not None:
        return ok("daemon", f"serves {data} (pid {pid})")
    if not (data / backup_file.DATABASE).exists():
        return ok("daemon", f"{data} is empty: 'edgegc quickstart' makes a control plane there")
    return warn("daemon", f"nothing serves {data}", "systemctl start edgegc, or edgegc serve")


def _user(settings: Settings, data: Path) -> Finding:
    chosen = account.choose(settings.lighthouse.user)
    closed = account.first_closed(data, chosen.user)
    if closed is not None:
        return fail("lighthouse user", f"{chosen.user} may not pass through {closed}", f"chmod o+x {closed}")
    if chosen.warning is not None:
        detail, _, remedy = chosen.warning.partition(": ")
        return warn("lighthouse user", detail, remedy)
    return ok("lighthouse user", chosen.user or "the same as edgegc")


def _api_ports(settings: Settings, daemon: int | None) -> Finding:
    shown = ", ".join(settings.api.listen)
    if daemon is not None:
        return ok("API port", f"{shown}: served")
    for address in settings.api.listen:
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                return fail(
                    "API port",
                    f"{address} can't be listened on: {error.strerror}",
                    f"ss -ltnp 'sport = :{port}' says who has it; or change api.listen",
                )
    return ok("API port", f"{shown}: free")


def _lighthouse_ports(data: Path, daemon: int | None) -> Finding:
    if daemon is not None:
        return ok("lighthouse port", "the daemon has them; 'edgegc lighthouse list' says how they are")
    ports = _wanted_ports(data)
    shown = ", ".join(map(str, ports)) or "none wanted"
    if recorded(data):
        return ok(
            "lighthouse port", f"UDP {shown}: lighthouses were left running, the next start adopts them"
        )
    for port in ports:
        try:
            check_free("0.0.0.0", port)
        except errors.Error as error:
            return of_error("lighthouse port", error)
    return ok("lighthouse port", f"UDP {shown}{': free' if ports else ''}")


def _wanted_ports(data: Path) -> list[int]:
    database = data / backup_file.DATABASE
    if not database.exists():
        return []
    try:
        with closing(open_unused(database)) as connection:
            rows = connection.execute(
                "SELECT lighthouse_port FROM clusters WHERE provide_lighthouse = 1 ORDER BY 1"
            )
            return [port for (port,) in rows]
    except sqlite3.Error as error:
        raise errors.Error(f"{database} can't be read ({error}): edgegc verify") from error


def _tls(settings: Settings, data: Path, now: float) -> Finding:
    match settings.tls.mode:
        case "off":
            if settings.api.insecure_http:
                return warn("TLS", "off, with api.insecure_http", "set tls.mode to 'self-signed'")
            return ok("TLS", "off: only this machine can ask")
        case "self-signed":
            certificate, key = data / backup_file.TLS_CERTIFICATE, data / backup_file.TLS_KEY
            if not certificate.exists():
                return ok("TLS", "self-signed: made by the first start")
        case "files":
            identity = tls.from_files(settings.tls.certificate, settings.tls.key)
            certificate, key = identity.certificate, identity.key
            tls.context(identity)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    days = int((found.not_valid_after_utc.timestamp() - now) // DAY_S)
    detail = f"{certificate}: good for {days} days"
    if days < 0 and settings.tls.mode == "files":
        return fail("TLS", f"{certificate} has expired", "renew it, then: systemctl reload edgegc")
    if days < CERTIFICATE_WARN_DAYS and settings.tls.mode == "files":
        return warn("TLS", detail, "renew it, then: systemctl reload edgegc")
    if stat.S_IMODE(key.stat().st_mode) & 0o007:
        return warn("TLS", f"everybody may read {key}", f"chmod 600 {key}")
    return ok("TLS", detail)


def _backups(data: Path, now: float) -> Finding:
    if not (data / backup_file.DATABASE).exists():
        return ok("backups", "nothing to back up yet")
    found = backups.all_(data / backups.DIRECTORY)
    remedy = "edgegc backup FILE, on another disk, now and then: 'edgegc backup --help'"
    if not found:
        return warn("backups", "there is none", remedy)
    days = int((now - found[0].created_at) // DAY_S)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found[0].created_at))
    if days >= BACKUP_WARN_DAYS:
        return warn("backups", f"the newest is {days} days old ({made})", remedy)
    return ok("backups", f"the newest is from {made}")


def readable(data: Path) -> bool:
    """Whether this user may look into a data directory at all."""
    return not data.exists() or os.access(data, os.R_OK | os.W_OK | os.X_OK)
