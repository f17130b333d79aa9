"""Addresses as callers write them: networks, overlay and public addresses, routes. Pure; every error names the field."""

from __future__ import annotations

import functools
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    NetmaskValueError,
    ip_address,
)
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgegc.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgegc.model.manifest import Server

Address = IPv4Address | IPv6Address

MIN_PREFIX, MAX_PREFIX = 8, 30
"""A /30 holds the box's lighthouse and one node; nothing wider than a /8 is anybody's own network."""

LIGHTHOUSE_OFFSET = 1
"""The first host address of a cluster's network is reserved for the box's own lighthouse, even while it is off."""

MAX_PUBLIC_ADDRESSES = 16
MAX_ALLOWED_ROUTES = 64

_NEVER_ROUTED = {
    IPv4Network("0.0.0.0/8"): "is not a network of hosts",
    IPv4Network("127.0.0.0/8"): "is the loopback network",
    IPv4Network("169.254.0.0/16"): "is the link-local network",
    IPv4Network("224.0.0.0/3"): "is multicast or reserved",
}


def network(text: str, *, field: str) -> IPv4Network:
    """Read an IPv4 network in CIDR form without host bits."""
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit():
        raise Invalid(f"{field}: {text!r} is not an IPv4 network in CIDR form, such as 10.42.0.0/16")
    try:
        found = IPv4Network(f"{address}/{length}", strict=False)
    except (AddressValueError, NetmaskValueError):
        raise Invalid(
            f"{field}: {text!r} is not an IPv4 network in CIDR form, such as 10.42.0.0/16"
        ) from None
    if str(found) != text:
        raise Invalid(f"{field}: {text!r} is not in its plain form; did you mean {str(found)!r}?")
    return found


@functools.lru_cache(maxsize=64)
def stored_network(cidr: str) -> IPv4Network:
    """Return a network that was looked at before it was stored; a batch asks for its cluster's a thousand times."""
    return IPv4Network(cidr)


def overlay_network(text: str) -> IPv4Network:
    """Read a cluster's ``network_cidr``."""
    found = network(text, field="network_cidr")
    if not MIN_PREFIX <= found.prefixlen <= MAX_PREFIX:
        raise Invalid(f"network_cidr: the prefix must be from /{MIN_PREFIX} to /{MAX_PREFIX}, not {text!r}")
    _check_routable(found, field="network_cidr")
    return found


def allowed_routes(texts: Sequence[str]) -> tuple[str, ...]:
    """Read a cluster's ``allowed_routes``."""
    if len(texts) > MAX_ALLOWED_ROUTES:
        raise Invalid(f"allowed_routes: at most {MAX_ALLOWED_ROUTES} networks, not {len(texts)}")
    _check_unique(texts, field="allowed_routes")
    return tuple(str(network(text, field="allowed_routes")) for text in texts)


def overlay_address(text: str, overlay: IPv4Network) -> IPv4Address:
    """Read a node's ``overlay_ip``: a bare address, or with the network's own prefix length."""
    bare, slash, length = text.partition("/")
    try:
        address = IPv4Address(bare)
    except AddressValueError:
        raise Invalid(f"overlay_ip: {text!r} is not an IPv4 address") from None
    if slash and length != str(overlay.prefixlen):
        raise Invalid(f"overlay_ip: the prefix length of {text!r} is not that of {overlay}")
    if address not in overlay:
        raise Invalid(f"overlay_ip: {address} is not inside the cluster's network {overlay}")
    if address in (overlay.network_address, overlay.broadcast_address):
        raise Invalid(f"overlay_ip: {address} is not a host address of {overlay}")
    if address == overlay[LIGHTHOUSE_OFFSET]:
        raise Invalid(f"overlay_ip: {address} is reserved for the box's own lighthouse")
    return address


def public_addresses(texts: Sequence[str], overlay: IPv4Network, *, field: str) -> tuple[str, ...]:
    """Read the ``ip:port`` addresses under which a lighthouse is reached from outside of the overlay."""
    if len(texts) > MAX_PUBLIC_ADDRESSES:
        raise Invalid(f"{field}: at most {MAX_PUBLIC_ADDRESSES} addresses, not {len(texts)}")
    found = tuple(_public_address(text, overlay, field=field) for text in texts)
    _check_unique(found, field=field)
    return found


def host_of(public_address: str) -> Address:
    """Return the address of a public address in the form that :func:`public_addresses` returns."""
    return ip_address(public_address.rpartition(":")[0].strip("[]"))


def port_of(public_address: str) -> int:
    """Return the port of a public address."""
    return int(public_address.rpartition(":")[2])


def server_hosts(servers: Iterable[Server]) -> dict[Address, str]:
    """Return the servers' addresses, as far as their URLs name any, each with how to call it in a sentence."""
    hosts: dict[Address, str] = {}
    for server in servers:
        try:
            hosts[ip_address(urlsplit(server.url).hostname or "")] = f"the server {server.url}"
        except ValueError:
            continue
    return hosts


def routes(
    texts: Sequence[str], overlay: IPv4Network, *, outside: dict[Address, str]
) -> tuple[IPv4Network, ...]:
    """Read a node's routes, in order of address.

    ``outside`` are addresses that must stay reachable outside of the overlay, each with how to call it in a sentence: a
    route that contains one would send the tunnel into itself.
    """
    _check_unique(texts, field="routes")
    found = sorted(network(text, field="routes") for text in texts)
    for route in found:
        if route.prefixlen == 0:
            raise Invalid("routes: a default route can't be announced")
        if route.overlaps(overlay):
            raise Invalid(f"routes: {route} overlaps the cluster's own network {overlay}")
        _check_routable(route, field="routes")
        for address, what in outside.items():
            if address in route:
                raise Invalid(f"routes: {route} contains {address}, the public address of {what}")
    return tuple(found)


def _public_address(text: str, overlay: IPv4Network, *, field: str) -> str:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if not colon or not port.isascii() or not port.isdigit():
            raise ValueError
        address = IPv6Address(host[1:-1]) if bracketed else IPv4Address(host)
    except ValueError:
        raise Invalid(f"{field}: {text!r} is not ip:port, such as 203.0.113.9:4242") from None
    if not 1 <= int(port) <= 65535:
        raise Invalid(f"{field}: the port of {text!r} is not from 1 to 65535")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Invalid(f"{field}: {text!r} has a zone, which means nothing on another machine")
    if address.is_unspecified or address.is_multicast:
        raise Invalid(f"{field}: {text!r} is nobody's address")
    if address in overlay:
        raise Invalid(f"{field}: {text!r} is inside the overlay {overlay}, which is reached only through it")
    return f"[{address}]:{int(port)}" if bracketed else f"{address}:{int(port)}"


def _check_routable(found: IPv4Network, *, field: str) -> None:
    for never, why in _NEVER_ROUTED.items():
        if found.overlaps(never):
            raise Invalid(f"{field}: {found} overlaps {never}, which {why}")


def _check_unique(texts: Sequence[str], *, field: str) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise Invalid(f"{field}: {text!r} is there twice")
        seen.add(text)
