"""What is in the database that ``db.*`` asks from the start: two clusters, with nodes and routes in one, bundles in the other."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.model.cluster import Authority, Cluster
from edgegc.model.policy import ANY_TO_ANY
from edgegc.model.tenant import Tenant
from edgegc.perf.store import NETWORK, bundle_insert, create
from edgegc.perf.store_rig import DUTIES, LIFETIME_S
from edgegc.store import authorities, clusters, routes, tenants

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from edgegc.model.cluster import Mode
    from edgegc.perf.store_rig import Rig

FIRST_OFFSET: Final = 2
"""The first address is the box's lighthouse's."""
SEALED_KEY_BYTES: Final = 93
"""A private key of 64 bytes in its box."""
ROUTES: Final = 100
"""Subnets behind nodes, one each, in a cluster that has so many."""
SEEDED_AT_ONCE: Final = 500
"""Nodes per transaction while the database is filled."""


async def fill(rig: Rig, *, node_count: int, bundle_count: int, bundle_bytes: int) -> None:
    """Make the clusters and what is in them."""
    await rig.database.write(partial(_make_clusters, rig))
    for begin in range(0, node_count, SEEDED_AT_ONCE):
        new = [rig.new_node() for _ in range(min(SEEDED_AT_ONCE, node_count - begin))]
        made = await rig.database.write(partial(create, rig, new=new))
        rig.nodes += [node.id for node in made]
    behind = rig.nodes[DUTIES : DUTIES + ROUTES]
    await rig.database.write(lambda connection: _make_routes(rig, connection, behind))
    for _ in range(bundle_count):
        await bundle_insert(rig, bundle_bytes)()
    await rig.database.checkpoint()
    await rig.database.optimize()


def _make_clusters(rig: Rig, connection: sqlite3.Connection) -> None:
    now = int(time.time())
    tenant_id = rig.new_id()
    tenants.insert(connection, Tenant(id=tenant_id, name="laboratory", created_at=now))
    kinds: tuple[tuple[str, str, Mode], ...] = (
        (rig.managed, "managed", "managed"),
        (rig.uploaded, "uploaded", "uploaded"),
    )
    for port, (cluster_id, name, mode) in enumerate(kinds, 4242):
        cluster = Cluster(
            id=cluster_id,
            tenant_id=tenant_id,
            name=name,
            network_cidr=str(NETWORK),
            mode=mode,
            provide_lighthouse=False,
            provide_relay=False,
            lighthouse_port=port,
            lighthouse_public_addresses=(),
            allowed_routes=(),
            certificate_lifetime_s=LIFETIME_S,
            supersede_grace_s=86_400,
            policy=ANY_TO_ANY,
            version=1,
            wide_version=1,
            lighthouse_version=0,
            node_count=0,
            created_at=now,
            updated_at=now,
        )
        clusters.insert(connection, cluster, address_cursor=FIRST_OFFSET - 1)
    authorities.insert_authority(
        connection,
        Authority(
            id=rig.authority,
            cluster_id=rig.managed,
            fingerprint=rig.random.randbytes(32).hex(),
            certificate_pem=rig.new_node().certificate.pem,
            phase="active",
            not_after=now + 10 * LIFETIME_S,
            created_at=now,
        ),
        private_key=rig.random.randbytes(SEALED_KEY_BYTES),
    )
    # The number that the authority's certificate took.
    rig.numbers = itertools.count(1)


def _make_routes(rig: Rig, connection: sqlite3.Connection, behind: Sequence[str]) -> None:
    for number, node_id in enumerate(behind):
        routes.replace(connection, rig.managed, node_id, [f"192.168.{number}.0/24"])
