"""Requests of nodes, as fast as they are answered, put to a server that somebody else has started: for comparison with other tools.

Knows no scenario and no server of its own. ``perf/compare-tools`` asks for it and reads what it finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.connection import parse_target
from edgegc.errors import Invalid
from edgegc.perf import cpus, requests
from edgegc.perf.generator import client
from edgegc.perf.plan import Ask, Plan, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgegc.perf.plan import Load

What = Literal["version", "topology"]

CONNECT_S: Final = 0.5
REQUESTS: Final[Mapping[What, Callable[[str], bytes]]] = {
    "version": requests.version,
    "topology": requests.topology,
}
"""By a node's token."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them. ``errors`` counts whatever was not answered as it should be, connections included."""

    per_s: float
    errors: int
    reconnects: int
    cpu: int
    """The processor that the generator was on."""
    cpu_share: float
    """Of it, what the generator used."""


def plan(
    url: str,
    tokens: Sequence[str],
    *,
    what: What,
    connections: int,
    duration_s: float,
    warmup_s: float,
    closing: bool,
    cpu: int,
) -> Plan:
    """Return the load that ``api.version[hot-closed]`` has, put to ``url``, or the same for ``what`` else there is.

    Raises Invalid for what is no such address.

    ``closing``: with a connection for each request, as clients have it whose connections are not kept.
    """
    parsed = parse_target(url)
    if parsed.scheme == "unix" or parsed.prefix or not tokens:
        raise Invalid("needs http://HOST:PORT or https://HOST:PORT, and a token at least")
    asked = tuple(map(REQUESTS[what], tokens))
    if closing:
        asked = tuple(each.removesuffix(b"\r\n\r\n") + b"\r\nConnection: close\r\n\r\n" for each in asked)
    return Plan(
        target=Target(host=parsed.host, port=parsed.port, tls=parsed.scheme == "https"),
        asks=(Ask(name=what, requests=asked),),
        connections=connections,
        duration_s=duration_s,
        warmup_s=warmup_s,
        connect_within_s=CONNECT_S,
        cpu=cpu,
    )


async def ask(
    url: str,
    tokens: Sequence[str],
    *,
    what: What,
    connections: int,
    duration_s: float,
    warmup_s: float,
    closing: bool,
) -> Found:
    """Ask, from the processor that scenarios ask from. Raises Unavailable where nobody answers; cancelling ends it."""
    cpu = cpus.cpus().generator
    wanted = plan(
        url,
        tokens,
        what=what,
        connections=connections,
        duration_s=duration_s,
        warmup_s=warmup_s,
        closing=closing,
        cpu=cpu,
    )
    return found(await client.run(wanted), cpu=cpu)


def found(load: Load, *, cpu: int) -> Found:
    """Return what became of a load, in the few numbers that other tools have, too."""
    duration_s = load.duration_s or 1.0
    return Found(
        per_s=sum(ask.requests for ask in load.asks) / duration_s,
        errors=sum(sum(ask.errors.values()) for ask in load.asks) + sum(load.errors.values()),
        reconnects=load.reconnects,
        cpu=cpu,
        cpu_share=load.cpu_s / duration_s,
    )
