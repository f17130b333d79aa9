"""Bodies about routes and topology: what the nodes of a cluster know of each other."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edgegc.model.message.common import DISTINCT, Network, Request


class Routes(Request, frozen=True, kw_only=True):
    """Routes of one node, as IPv4 CIDRs; in both directions."""

    routes: Annotated[tuple[Network, ...], Meta(max_length=256, extra_json_schema=DISTINCT)]


class NodeRoutes(Struct, frozen=True, kw_only=True):
    """Routes of one node, with its name."""

    node_id: str
    name: str
    routes: tuple[str, ...]


class ClusterRoutes(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/routes/cluster``."""

    routes: tuple[NodeRoutes, ...]


class TopologyLighthouse(Struct, frozen=True, kw_only=True):
    """A lighthouse or relay; ``node_id`` None is the box's own."""

    node_id: str | None
    name: str
    overlay_ip: str
    public_addresses: tuple[str, ...]
    is_relay: bool


class Topology(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/topology``."""

    cluster_id: str
    version: int
    lighthouses: tuple[TopologyLighthouse, ...]
    relays: tuple[TopologyLighthouse, ...]
    routes: tuple[NodeRoutes, ...]
