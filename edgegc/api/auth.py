"""Who is asking: the bearer token or the admin socket, and from where. What a caller may do is control's business."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from edgegc import errors
from edgegc.control import callers, credentials

if TYPE_CHECKING:
    from edgegc.api.asked import Asked
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[!-~]{1,255}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def trusted(addresses: tuple[str, ...]) -> tuple[Network, ...]:
    """Read ``api.trusted_proxies``. :raises errors.Invalid: naming what is no address or network."""
    networks: list[Network] = []
    for address in addresses:
        try:
            networks.append(ipaddress.ip_network(address, strict=False))
        except ValueError as error:
            raise errors.Invalid(f"api.trusted_proxies: {address!r} is no address and no network") from error
    return tuple(networks)


def idempotency_key(asked: Asked) -> str | None:
    """Return the request's ``Idempotency-Key``, or None. :raises errors.Invalid: it is given twice, or is none."""
    given = asked.headers(IDEMPOTENCY_KEY.lower())
    if not given:
        return None
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        raise errors.Invalid(f"{IDEMPOTENCY_KEY}: must be given once, with 1 to 255 visible ASCII characters")
    return given[0]


def source_of(asked: Asked, proxies: tuple[Network, ...]) -> str:
    """Return the client's address, or ``socket``. ``X-Forwarded-For`` counts only as far as trusted proxies wrote it."""
    client = asked.scope["client"]
    if client is None:
        return "socket"
    source = str(client[0])
    if not proxies:
        return source
    forwarded = ",".join(asked.headers("x-forwarded-for")).split(",")
    for hop in reversed([hop.strip() for hop in forwarded if hop.strip()]):
        if not _is_in(source, proxies):
            break
        try:
            source = str(ipaddress.ip_address(hop))
        except ValueError:
            break
    return source


async def caller_of(asked: Asked, control: Control, proxies: tuple[Network, ...]) -> Caller:
    """Authenticate a request. A token wins over the socket, so that over the socket one can also ask as somebody else.

    :raises errors.Unauthorized: with the reason, which is for the log only.
    """
    source = source_of(asked, proxies)
    asked.state["source"] = source
    given = asked.headers("authorization")
    if not given and asked.is_admin_socket:
        return callers.socket_caller(asked.request_id)
    if not given:
        raise errors.Unauthorized("no Authorization header", presented=False)
    if len(given) > 1:
        raise errors.Unauthorized("several Authorization headers")
    scheme, _, token = given[0].strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise errors.Unauthorized("the Authorization header is not of the form 'Bearer <token>'")
    return await credentials.authenticate(control, token, source=source, request_id=asked.request_id)


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
