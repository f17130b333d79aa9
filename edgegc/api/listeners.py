"""Listening sockets: TCP in clear text or TLS, and the admin Unix socket. Opens and closes them, nothing else.

Knows nothing of HTTP. What can't be opened is an :class:`errors.Error` that names the setting to change.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from edgegc import errors

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from pathlib import Path

BACKLOG: Final = 2048
"""A fleet that reconnects at once must not meet refused connections; Hypercorn's default is 100."""
SUN_PATH_BYTES: Final = 107
"""What a Unix socket's path may have on Linux (``sun_path`` is 108 with its NUL)."""


@dataclass(frozen=True)
class Listener:
    """A listening, non-blocking socket. ``kind`` ``admin``: who can connect is the operator."""

    socket: socket.socket
    kind: Literal["tcp", "admin"]
    tls: ssl.SSLContext | None = None
    path: Path | None = None
    """Of the admin socket: unlinked when closed, if it is still the one that was made."""
    inode: int | None = None

    @property
    def url(self) -> str:
        """Where to reach it, for people: ``https://192.0.2.1:8443``, or ``unix:/var/lib/edgegc/admin.sock``."""
        if self.path is not None:
            return f"unix:{self.path}"
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if self.socket.family is socket.AF_INET6 else host
        return f"{'https' if self.tls else 'http'}://{shown}:{port}"

    @property
    def port(self) -> int:
        """The TCP port (0 for the admin socket); useful after listening on port 0."""
        return int(self.socket.getsockname()[1]) if self.kind == "tcp" else 0

    def close(self) -> None:
        """Stop listening, and remove the admin socket's file. Closing twice is harmless."""
        self.socket.close()
        if self.path is not None:
            try:
                if self.path.stat().st_ino == self.inode:
                    self.path.unlink()
            except OSError:
                pass


def open_tcp(
    addresses: Iterable[str], *, tls: ssl.SSLContext | None, insecure_http: bool = False
) -> list[Listener]:
    """Listen on every ``host:port`` (``[::1]:8080`` for IPv6). All or none.

    Clear text is for loopback only, unless ``insecure_http`` says otherwise: tokens would cross the network.

    :raises errors.Invalid: an address that can't be read or used here, or clear text beyond loopback.
    :raises errors.Conflict: the port is taken.
    """
    opened: list[Listener] = []
    try:
        for address in addresses:
            opened.extend(_open_address(address, tls=tls, insecure_http=insecure_http))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def open_admin(path: Path) -> Listener:
    """Listen on the admin socket, mode 0600 from its first moment. The caller holds the data directory's lock:
    a socket that is there is the leftover of a daemon that died, and is replaced.

    :raises errors.Invalid: something that is no socket is in the way, or the path is too long.
    """
    if len(os.fsencode(path)) > SUN_PATH_BYTES:
        raise errors.Invalid(
            f"the path of the admin socket is longer than {SUN_PATH_BYTES} bytes: {path}; choose a shorter data.dir"
        )
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.Invalid(f"{path} is in the way of the admin socket and is not a socket")
        path.unlink()
    except FileNotFoundError:
        pass
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A chmod after the bind would leave a moment in which anybody may connect.
    umask = os.umask(0o177)
    try:
        made.bind(os.fspath(path))
    except OSError as error:
        made.close()
        raise errors.Invalid(f"can't make the admin socket {path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    made.listen(BACKLOG)
    made.setblocking(False)
    return Listener(made, "admin", path=path, inode=path.stat().st_ino)


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port``. :raises errors.Invalid: it is none."""
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise errors.Invalid(f"api.listen: {address!r} is not host:port")
    return host, int(port)


def _open_address(address: str, *, tls: ssl.SSLContext | None, insecure_http: bool) -> list[Listener]:
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise errors.Invalid(f"api.listen: {host!r} can't be resolved: {error}") from error
    targets = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    if tls is None and not insecure_http:
        for _, sockaddr in targets:
            if not ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]).is_loopback:
                raise errors.Invalid(
                    f"api.listen: {address} is not loopback, and without TLS every token would cross the network"
                    " readable: set tls.mode to self-signed or files, or say --insecure-http"
                )
    opened: list[Listener] = []
    missing: OSError | None = None
    for family, sockaddr in targets:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                # What an address means must not depend on a sysctl; 0.0.0.0 and [::] can be given side by side.
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(sockaddr)
            made.listen(BACKLOG)
            made.setblocking(False)
        except OSError as error:
            made.close()
            # A name like localhost has addresses of families that this box may lack: the others do.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(targets) > 1:
                missing = error
                continue
            for listener in opened:
                listener.close()
            raise _explain(address, error) from error
        opened.append(Listener(made, "tcp", tls=tls))
    if not opened and missing is not None:
        raise _explain(address, missing) from missing
    return opened


def _explain(address: str, error: OSError) -> errors.Error:
    if error.errno == errno.EADDRINUSE:
        return errors.Conflict(
            f"api.listen: {address} is taken by another process; stop that one, or listen elsewhere"
        )
    if error.errno == errno.EACCES:
        return errors.Invalid(
            f"api.listen: no permission to listen on {address}; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        )
    return errors.Invalid(f"api.listen: can't listen on {address}: {error.strerror}")
