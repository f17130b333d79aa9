"""``mix.*``: mixes of requests that are described in TOML files, the package's own and anybody's.

Knows the kinds of requests that a file may name, and no file's place but the package's. A mix is measured only where it is asked
for by name: what it proves is its author's business.
"""

from __future__ import annotations

import tomllib
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgegc.errors import Invalid
from edgegc.model import message
from edgegc.perf import requests
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import furnish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground

FOLDER: Final = "data/scenarios"
MIB: Final = 1024 * 1024
MTUS: Final = (1400, 1350)
"""A change that changes nothing is none: two rounds, forth and back."""
MOST_CREATED: Final = 20_000
"""Nodes that a closed mix may create: as many in a minute as any server here does."""
SPARE: Final = 1.5
"""Times as many nodes to create as an open mix needs on average: arrivals come by chance."""
WARMUP_S: Final = 2.0
QUICK_WARMUP_S: Final = 0.3
OVERHEAD_S: Final = 5.0
"""What a mix takes besides its load: the server's start and its nodes."""
SERVER_BYTES: Final = 180 * MIB
BYTES_PER_CONNECTION: Final = 64 * 1024
"""Of server and generator together, with TLS."""

Kind = Literal[
    "version",
    "version_304",
    "bundle",
    "topology",
    "report",
    "node_get",
    "node_list",
    "node_update",
    "node_create",
]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of request in a mix."""

    what: Kind
    weight: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """How often, beside the others."""
    page_size: Annotated[int, Meta(ge=1, le=500)] = 50
    """Of a ``node_list``."""


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file."""

    proves: Annotated[str, Meta(min_length=1)]
    ask: Annotated[tuple[Part, ...], Meta(min_length=1)]
    nodes: Annotated[int, Meta(ge=1, le=50_000)] = 1000
    connections: Annotated[int, Meta(ge=1, le=20_000)] = 64
    rate_per_s: Annotated[float, Meta(gt=0)] | None = None
    """None: closed model; else so many arrivals a second, by chance."""
    duration_s: Annotated[float, Meta(ge=1, le=86_400)] = 20.0
    tls: bool = False
    limits: bool = False


def load(path: Path) -> Scenario:
    """Return the scenario that a file describes, ``mix.`` and the file's name. Raises Invalid, naming what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"the mix {path} can't be read: {error}") from None
    return _scenario(path.stem, text)


def built_in() -> tuple[Scenario, ...]:
    """Return the package's own mixes."""
    found = sorted((files("edgegc.perf") / FOLDER).iterdir(), key=lambda each: each.name)
    return tuple(
        _scenario(each.name.removesuffix(".toml"), each.read_text(encoding="utf-8"))
        for each in found
        if each.name.endswith(".toml")
    )


def _scenario(name: str, text: str) -> Scenario:
    try:
        mix = msgspec.convert(tomllib.loads(text), Mix)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Invalid(f"the mix {name} is not understood: {error}") from None
    return Scenario(
        name=f"mix.{name}",
        proves=mix.proves,
        run=partial(_measure, mix),
        quick_s=0,
        full_s=mix.duration_s + WARMUP_S + OVERHEAD_S,
        ram_bytes=SERVER_BYTES + mix.connections * BYTES_PER_CONNECTION,
        asked_for=True,
    )


async def _measure(mix: Mix, bench: Bench) -> None:
    """Measure one mix."""
    async with bench.ground(nodes=mix.nodes, tls=mix.tls, limits=mix.limits) as ground:
        if any(part.what == "topology" for part in mix.ask):
            await furnish.topology(ground)
        warmup_s = bench.seconds(WARMUP_S, QUICK_WARMUP_S)
        seconds = bench.seconds(mix.duration_s)
        known = await furnish.versions(ground.admin, ground.seeded.cluster_id)
        weights = sum(part.weight for part in mix.ask)
        asks = []
        for part in mix.ask:
            if part.what == "node_create":
                expected = (mix.rate_per_s or 0) * (seconds + warmup_s) * part.weight / weights
                count = min(MOST_CREATED, round(SPARE * expected) + 100) if expected else MOST_CREATED
                asks.append(_creations(bench, ground, part, count))
            else:
                asks.append(_repeatable(ground, part, known))
        plan = Plan(
            target=ground.target,
            asks=tuple(asks),
            connections=mix.connections,
            duration_s=seconds,
            warmup_s=warmup_s,
            rate_per_s=mix.rate_per_s,
            seed=bench.random.getrandbits(32),
        )
        parameters: dict[str, str | int | float | bool] = {
            "connections": mix.connections,
            "nodes": mix.nodes,
            "tls": mix.tls,
            "limits": mix.limits,
        }
        if mix.rate_per_s is not None:
            parameters["rate_per_s"] = mix.rate_per_s
        async with bench.measure(
            model="closed" if mix.rate_per_s is None else "open", of=ground.watched, parameters=parameters
        ) as meter:
            meter.take(await bench.load(plan))


def _creations(bench: Bench, ground: Ground, part: Part, count: int) -> Ask:
    nodes = requests.new_nodes(bench.random, count, prefix="mix", keys=False)
    token, cluster_id = ground.seeded.admin_token, ground.seeded.cluster_id
    return Ask(
        name=part.what,
        weight=part.weight,
        requests=tuple(requests.node_create(token, cluster_id, node) for node in nodes),
        once=True,
        expected=(201,),
    )


def _repeatable(ground: Ground, part: Part, known: dict[str, int]) -> Ask:
    seeded = ground.seeded
    admin, nodes = seeded.admin_token, seeded.nodes
    pages = range(1, -(-len(nodes) // part.page_size) + 1)
    make: dict[str, Callable[[], list[bytes]]] = {
        "version": lambda: [requests.version(node.token) for node in nodes],
        "version_304": lambda: [requests.version(node.token, known=known[node.id]) for node in nodes],
        "bundle": lambda: [requests.bundle(node.token) for node in nodes],
        "topology": lambda: [requests.topology(node.token) for node in nodes],
        "report": lambda: [requests.report(node.token, applied=known[node.id]) for node in nodes],
        "node_get": lambda: [requests.node_get(admin, node.id) for node in nodes],
        "node_list": lambda: [
            requests.node_list(admin, seeded.cluster_id, page=page, page_size=part.page_size)
            for page in pages
        ],
        "node_update": lambda: [
            requests.node_update(admin, node.id, message.NodeUpdate(mtu=mtu))
            for mtu in MTUS
            for node in nodes
        ],
    }
    expected = {"version_304": (304, 200), "report": (204,)}
    return Ask(
        name=part.what,
        weight=part.weight,
        requests=tuple(make[part.what]()),
        expected=expected.get(part.what, (200,)),
    )


SCENARIOS: Final = built_in()
