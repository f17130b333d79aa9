"""Tenants and clusters: what is made with one, what may not be, and the lighthouse that a cluster may want."""

from __future__ import annotations

from typing import Any

import pytest

from edgegc.control import clusters, lighthouses, nodes, tenants
from edgegc.control.control import Control, open_control
from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.model import message
from edgegc.model.event import ClusterChanged, RestartRequested, StopRequested
from edgegc.model.manifest import Server
from edgegc.nebula import certificate
from edgegc.settings import Settings
from edgegc.store.database import MEMORY, open_database
from edgegc.store.vault import Vault
from tests.control_plane import MASTER, OPERATOR, Plane, control_plane
from tests.fakes import FakeClock

WITH_LIGHTHOUSE = {"provide_lighthouse": True, "lighthouse_public_addresses": ("203.0.113.9:4242",)}


async def change(plane: Plane, **changes: Any) -> message.ClusterView:
    return await clusters.update(plane.control, OPERATOR, plane.cluster_id, message.ClusterUpdate(**changes))


async def test_a_cluster_is_shown_with_its_authority_and_its_number_of_nodes() -> None:
    async with control_plane() as plane:
        await plane.add_node("a")
        seen = await clusters.get(plane.control, OPERATOR, plane.cluster_id)
        assert (seen.name, seen.network_cidr, seen.mode, seen.nodes) == ("home", "10.42.0.0/16", "managed", 1)
        assert seen.ca is not None
        assert seen.ca.not_after == message.rfc3339(plane.clock.at + 10 * 365 * 86_400)
        assert (await clusters.list_(plane.control, OPERATOR)).clusters == (seen,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network_cidr": "10.42.0.1/16"}, r"^network_cidr: .*did you mean '10\.42\.0\.0/16'"),
        ({"network_cidr": "10.0.0.0/7"}, r"^network_cidr: .*from /8 to /30"),
        ({"network_cidr": "10.0.0.0/31"}, r"^network_cidr: .*from /8 to /30"),
        ({"network_cidr": "fd00::/64"}, r"^network_cidr: .*IPv4"),
        ({"network_cidr": "127.0.0.0/8"}, r"^network_cidr: .*loopback"),
        ({"allowed_routes": ("10.0.0.1/8",)}, r"^allowed_routes: "),
        ({"lighthouse_public_addresses": ("nowhere",)}, r"^lighthouse_public_addresses: "),
    ],
)
async def test_a_setting_that_can_not_be_is_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=sentence):
            await plane.add_cluster("other", **changes)


async def test_names_are_unique_within_a_tenant_and_tenants_within_the_box() -> None:
    async with control_plane() as plane:
        with pytest.raises(Conflict, match=r"^a cluster named 'home' already exists$"):
            await plane.add_cluster("home")
        with pytest.raises(Conflict, match=r"^a tenant named 'acme' already exists$"):
            await tenants.create(plane.control, OPERATOR, message.TenantCreate(name="acme"))
        other = await tenants.create(plane.control, OPERATOR, message.TenantCreate(name="other"))
        await plane.add_cluster("home", tenant_id=other.id)
        with pytest.raises(NotFound, match="tenant_id"):
            await plane.add_cluster("home", tenant_id="nobody")


async def test_a_tenant_is_renamed_and_found() -> None:
    async with control_plane() as plane:
        renamed = await tenants.update(
            plane.control, OPERATOR, plane.tenant_id, message.TenantUpdate(name="new")
        )
        assert await tenants.get(plane.control, OPERATOR, plane.tenant_id) == renamed
        assert (await tenants.list_(plane.control, OPERATOR)).tenants == (renamed,)
        with pytest.raises(NotFound):
            await tenants.get(plane.control, OPERATOR, "nobody")


async def test_a_lighthouse_port_is_taken_once_on_this_box() -> None:
    async with control_plane(cluster=WITH_LIGHTHOUSE) as plane:
        with pytest.raises(Conflict, match=r"^lighthouse_port: the lighthouse of the cluster 'home' has"):
            await plane.add_cluster("other", provide_lighthouse=True)
        other = await plane.add_cluster("other")
        with pytest.raises(Conflict, match=r"^lighthouse_port"):
            await clusters.update(
                plane.control, OPERATOR, other.id, message.ClusterUpdate(provide_lighthouse=True)
            )
        await clusters.update(
            plane.control,
            OPERATOR,
            other.id,
            message.ClusterUpdate(provide_lighthouse=True, lighthouse_port=4243),
        )


async def test_a_lighthouse_port_that_another_program_has_is_a_conflict() -> None:
    async with open_database(MEMORY, executor="inline") as database:
        control = await open_control(
            database,
            clock=FakeClock(),
            settings=Settings(),
            vault=Vault(MASTER),
            servers=(),
            udp_port_in_use=lambda port: port == 5000,
        )
        plane = Plane(control, FakeClock())
        with pytest.raises(Conflict, match=r"another program on this box has the UDP port 5000"):
            await plane.add_cluster(provide_lighthouse=True, lighthouse_port=5000)
        plane.cluster_id = (await plane.add_cluster(lighthouse_port=5000)).id
        with pytest.raises(Conflict, match="another program"):
            await change(plane, provide_lighthouse=True)


async def test_a_database_is_not_used_with_the_master_key_of_another_one() -> None:
    async with open_database(MEMORY, executor="inline") as database:

        async def start(master: bytes, *servers: Server) -> Control:
            return await open_control(
                database, clock=FakeClock(), settings=Settings(), vault=Vault(master), servers=servers
            )

        plane = Plane(await start(MASTER), FakeClock())
        cluster = await plane.add_cluster()
        with pytest.raises(Conflict, match=r"^master\.key is not the one that belongs to edgegc\.db"):
            await start(bytes(32), Server(url="https://elsewhere", pin=None))
        control = await start(MASTER)
        assert (await clusters.get(control, OPERATOR, cluster.id)).version == cluster.version


async def test_a_wanted_lighthouse_has_a_key_a_certificate_and_the_reserved_address() -> None:
    async with control_plane(cluster=WITH_LIGHTHOUSE) as plane:
        (spec,) = await lighthouses.desired(plane.control)
        authorities = certificate.parse_bundle_pem(spec.ca_pem)
        host = certificate.parse_pem(spec.certificate_pem)
        certificate.verify(host, authorities=authorities, at=plane.clock.at)
        assert host.fingerprint == spec.fingerprint
        assert (spec.overlay_ip, spec.port, spec.cluster_name) == ("10.42.0.1", 4242, "home")


async def test_a_lighthouse_is_wanted_from_the_patch_on_and_not_after_the_next() -> None:
    async with control_plane() as plane:
        assert await lighthouses.desired(plane.control) == []
        await change(plane, **WITH_LIGHTHOUSE)
        (spec,) = await lighthouses.desired(plane.control)
        await change(plane, provide_lighthouse=False)
        assert await lighthouses.desired(plane.control) == []
        await change(plane, provide_lighthouse=True)
        (again,) = await lighthouses.desired(plane.control)
        assert again.fingerprint == spec.fingerprint
        assert again.version > spec.version


async def test_a_specification_is_kept_until_something_of_it_changes() -> None:
    async with control_plane(cluster=WITH_LIGHTHOUSE) as plane:
        (first,) = await lighthouses.desired(plane.control)
        node = await plane.add_node("a")
        (second,) = await lighthouses.desired(plane.control)
        assert second is first
        await change(plane, lighthouse_port=4300)
        (moved,) = await lighthouses.desired(plane.control)
        assert (moved.port, moved.version > first.version) == (4300, True)
        await nodes.delete(plane.control, OPERATOR, node.id)
        (listing,) = await lighthouses.desired(plane.control)
        assert listing.version > moved.version
        assert listing.config != moved.config


async def test_the_bus_tells_of_clusters_and_wishes_but_not_of_nodes() -> None:
    async with control_plane(cluster=WITH_LIGHTHOUSE) as plane:
        with plane.control.bus.subscribe() as subscription:
            await plane.add_node("a")
            await change(plane, lighthouse_port=4300)
            await change(plane, lighthouse_port=4301)
            await lighthouses.restart(plane.control, OPERATOR, plane.cluster_id)
            await lighthouses.stop(plane.control, OPERATOR, plane.cluster_id)
            events = await subscription.wait()
    assert [type(event) for event in events] == [ClusterChanged, RestartRequested, StopRequested]


async def test_a_cluster_without_a_lighthouse_has_none_to_restart() -> None:
    async with control_plane() as plane:
        with pytest.raises(NotFound, match="no lighthouse on this box"):
            await lighthouses.restart(plane.control, OPERATOR, plane.cluster_id)
