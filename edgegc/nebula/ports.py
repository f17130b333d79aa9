"""Where a nebula listens: whether that is free, and who has it. Checked by us because nebula may not notice.

With ``routines`` > 1 nebula sets SO_REUSEPORT, and a second process then silently shares the port of the first.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from edgegc.nebula.executable import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY_HOST = ("", "0.0.0.0", "::", "[::]")
"""Ways to say in ``listen.host`` that every address is meant."""


def listen_host(config: Mapping[str, object]) -> str:
    """Return ``listen.host`` of a configuration; empty without one."""
    listen = config.get("listen")
    host = listen.get("host") if isinstance(listen, dict) else None
    return host if isinstance(host, str) else ""


def reachable(host: str) -> str:
    """Return an address under which we reach a nebula that listens on ``host``."""
    return "127.0.0.1" if host in ANY_HOST else host.strip("[]")


def bound_by(pid: int) -> int | None:
    """Return the UDP port of a process, if it has exactly one that we may know of. Blocking, briefly."""
    # Costs 1 MiB and 20 ms to import, and is needed by hardly anybody.
    import psutil

    try:
        bound = {each.laddr.port for each in psutil.Process(pid).net_connections(kind="udp") if each.laddr}
    except (psutil.Error, OSError):
        return None
    return bound.pop() if len(bound) == 1 else None


def check_free(host: str, port: int) -> None:
    """Return if nothing is bound to UDP ``port`` on ``host`` (as in ``listen.host``); 0 is always free.

    Raises :class:`ApplyFailed` that names the process, if we may know it. Blocking, for less than a millisecond.
    """
    if port == 0:
        return
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours:
        try:
            ours.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ApplyFailed(
                    f"UDP port {port} is in use by {_holder(port)}: end that process, or choose another port"
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise ApplyFailed(f"{host} is not an address of this machine: correct listen.host") from None
            if error.errno == errno.EACCES:
                raise ApplyFailed(f"UDP port {port} needs root: choose a port above 1023") from None
            raise ApplyFailed(f"UDP port {port} on {host!r} can't be used: {error.strerror}") from None


def _holder(port: int) -> str:
    import psutil  # a megabyte that an agent does not need otherwise

    try:
        pids = {
            connection.pid
            for connection in psutil.net_connections(kind="udp")
            if connection.laddr and connection.laddr.port == port and connection.pid is not None
        }
        named = [f"{psutil.Process(pid).name()} (pid {pid})" for pid in sorted(pids)]
    except (psutil.Error, OSError):
        named = []
    return ", ".join(named) or "another process"
