"""Who is affected by what: the table of version rules, row by row, through the use cases and the real store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.control import (
    certificates,
    clusters,
    enrolment,
    fleet,
    housekeeping,
    nodes,
    tokens,
    topology,
)
from edgegc.control.control import open_control
from edgegc.model import message
from edgegc.model.manifest import Server
from edgegc.model.policy import ANY_TO_ANY, Policy, Rule
from edgegc.nebula import bundle
from edgegc.settings import Settings
from edgegc.store.database import MEMORY, open_database
from edgegc.store.vault import Vault
from tests.control_plane import MASTER, OPERATOR, control_plane, new_public_key, open_plane
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.control_plane import Plane


class Watch:
    """Says which of three nodes got a new version: ``""`` is nobody, ``"abc"`` everybody."""

    def __init__(self, plane: Plane, **node_ids: str) -> None:
        self.plane = plane
        self.a, self.b, self.c = node_ids["a"], node_ids["b"], node_ids["c"]
        self._before = self._versions()

    def moved(self) -> str:
        before, self._before = self._before, self._versions()
        return "".join(name for name, old, new in zip("abc", before, self._before, strict=True) if new != old)

    def _versions(self) -> list[int]:
        return self.plane.effective(self.a, self.b, self.c)


@asynccontextmanager
async def watched() -> AsyncIterator[Watch]:
    async with control_plane() as plane:
        made = {name: (await plane.add_node(name, groups=("web",))).id for name in "abc"}
        yield Watch(plane, **made)


async def test_a_thousand_new_nodes_concern_only_themselves() -> None:
    async with watched() as watch:
        new = await watch.plane.add_node("d")
        keyless = await watch.plane.add_node("e", keyed=False)
        assert watch.moved() == ""
        assert new.version > 0
        assert keyless.version == 0


async def test_the_first_certificate_concerns_its_node() -> None:
    async with watched() as watch:
        keyless = await watch.plane.add_node("e", keyed=False)
        caller = await watch.plane.caller(keyless.node_token)
        issued = await certificates.issue(
            watch.plane.control, caller, message.CertificateRequest(public_key=new_public_key())
        )
        assert watch.moved() == ""
        assert watch.plane.effective(keyless.id) == [issued.version]


@pytest.mark.parametrize(
    "changes",
    [
        {"mtu": 1400},
        {"listen_port": 4242},
        {"groups": ("web", "db")},
        {"groups": ()},
        {"overlay_ip": "10.42.9.9"},
    ],
    ids=str,
)
async def test_a_nodes_own_settings_concern_only_the_node(changes: dict[str, object]) -> None:
    async with watched() as watch:
        await watch.plane.patch(watch.a, **changes)
        assert watch.moved() == "a"
        await watch.plane.patch(watch.a, **changes)
        assert watch.moved() == ""


@pytest.mark.parametrize("changes", [{"role": "admin"}, {"name": "renamed"}, {"name": "a"}, {}], ids=str)
async def test_what_no_bundle_shows_concerns_nobody(changes: dict[str, object]) -> None:
    async with watched() as watch:
        await watch.plane.patch(watch.a, **changes)
        assert watch.moved() == ""


async def test_a_rename_signs_again_where_the_policy_names_hosts() -> None:
    async with watched() as watch:
        rule = Rule(port="22", proto="tcp", host="b")
        policy = Policy(inbound=(rule,), outbound=ANY_TO_ANY.outbound)
        text = msgspec.json.encode(policy).decode()
        await watch.plane.control.database.write(
            lambda connection: connection.execute("UPDATE clusters SET policy = ?", (text,)).rowcount
        )
        before = await watch.plane.node(watch.a)
        after = await watch.plane.patch(watch.a, name="renamed")
        assert watch.moved() == "a"
        assert after.certificate != before.certificate


async def test_the_address_of_a_lighthouse_a_relay_or_a_router_concerns_everybody() -> None:
    async with watched() as watch:
        control = watch.plane.control
        await nodes.set_lighthouse(
            control, OPERATOR, watch.a, message.LighthouseSet(public_addresses=("203.0.113.9:4242",))
        )
        await nodes.set_relay(control, OPERATOR, watch.b)
        await nodes.set_routes(control, OPERATOR, watch.c, message.Routes(routes=("172.16.0.0/24",)))
        watch.moved()
        for last, node_id in enumerate((watch.a, watch.b, watch.c)):
            await watch.plane.patch(node_id, overlay_ip=f"10.42.9.{last}")
            assert watch.moved() == "abc"


async def test_a_lighthouse_set_moved_and_unset_concerns_everybody() -> None:
    async with watched() as watch:
        control = watch.plane.control
        for address in ("203.0.113.9:4242", "203.0.113.10:4242", "203.0.113.10:4243"):
            wanted = message.LighthouseSet(public_addresses=(address,))
            await nodes.set_lighthouse(control, OPERATOR, watch.a, wanted)
            assert watch.moved() == "abc"
            await nodes.set_lighthouse(control, OPERATOR, watch.a, wanted)
            assert watch.moved() == ""
        await nodes.unset_lighthouse(control, OPERATOR, watch.a)
        assert watch.moved() == "abc"
        await nodes.unset_lighthouse(control, OPERATOR, watch.a)
        assert watch.moved() == ""


async def test_a_relay_set_and_unset_concerns_everybody() -> None:
    async with watched() as watch:
        for change in (nodes.set_relay, nodes.unset_relay):
            await change(watch.plane.control, OPERATOR, watch.a)
            assert watch.moved() == "abc"
            await change(watch.plane.control, OPERATOR, watch.a)
            assert watch.moved() == ""


async def test_routes_concern_everybody_and_their_order_nobody() -> None:
    async with watched() as watch:
        control = watch.plane.control
        await nodes.set_routes(
            control, OPERATOR, watch.a, message.Routes(routes=("172.16.0.0/24", "172.16.9.0/24"))
        )
        assert watch.moved() == "abc"
        await nodes.set_routes(
            control, OPERATOR, watch.a, message.Routes(routes=("172.16.9.0/24", "172.16.0.0/24"))
        )
        assert watch.moved() == ""
        before = (await watch.plane.node(watch.a)).certificate
        await nodes.set_routes(control, OPERATOR, watch.a, message.Routes(routes=()))
        assert watch.moved() == "abc"
        assert (await watch.plane.node(watch.a)).certificate != before


async def test_a_deleted_node_concerns_everybody_unless_it_never_had_a_certificate() -> None:
    async with watched() as watch:
        keyless = await watch.plane.add_node("e", keyed=False)
        await nodes.delete(watch.plane.control, OPERATOR, keyless.id)
        assert watch.moved() == ""
        keyed = await watch.plane.add_node("f")
        await nodes.delete(watch.plane.control, OPERATOR, keyed.id)
        assert watch.moved() == "abc"


async def test_a_token_a_key_and_an_api_token_concern_nobody() -> None:
    async with watched() as watch:
        control = watch.plane.control
        await nodes.rotate_token(control, OPERATOR, watch.a)
        await watch.plane.key()
        await tokens.create(control, OPERATOR, message.ApiTokenCreate(scopes=("operator",)))
        assert watch.moved() == ""


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"provide_lighthouse": True}, "abc"),
        ({"provide_lighthouse": False}, ""),
        ({"name": "elsewhere"}, ""),
        ({"allowed_routes": ()}, ""),
        ({"certificate_lifetime_s": 86_400}, ""),
        ({"supersede_grace_s": 0}, ""),
    ],
    ids=str,
)
async def test_cluster_settings_concern_everybody_whose_bundle_shows_them(
    changes: dict[str, object], moved: str
) -> None:
    async with watched() as watch:
        await clusters.update(
            watch.plane.control, OPERATOR, watch.plane.cluster_id, message.ClusterUpdate(**changes)
        )
        assert watch.moved() == moved


async def test_the_public_addresses_of_the_boxs_lighthouse_concern_everybody() -> None:
    async with watched() as watch:
        control, cluster_id = watch.plane.control, watch.plane.cluster_id
        await clusters.update(control, OPERATOR, cluster_id, message.ClusterUpdate(provide_lighthouse=True))
        watch.moved()
        for changes in (
            {"lighthouse_public_addresses": ("203.0.113.9:4242",)},
            {"provide_relay": False},
        ):
            await clusters.update(control, OPERATOR, cluster_id, message.ClusterUpdate(**changes))
            assert watch.moved() == "abc"
            await clusters.update(control, OPERATOR, cluster_id, message.ClusterUpdate(**changes))
            assert watch.moved() == ""


async def test_a_renewal_concerns_only_its_node_and_blocklists_nothing() -> None:
    async with watched() as watch:
        before = (await watch.plane.node(watch.a)).certificate
        watch.plane.clock.at += 15_552_000 * 3 // 4
        await housekeeping.renew_certificates(watch.plane.control)
        # All three are due; each has a version of its own.
        assert watch.moved() == "abc"
        assert len(set(watch.plane.effective(watch.a, watch.b, watch.c))) == 3
        assert (await watch.plane.node(watch.a)).certificate != before
        watch.plane.clock.at += 86_400
        await housekeeping.blocklist_replaced(watch.plane.control)
        assert watch.moved() == ""


async def test_what_a_certificate_lost_is_blocklisted_for_everybody_once_the_node_runs_the_new_one() -> None:
    async with watched() as watch:
        control = watch.plane.control
        await watch.plane.patch(watch.a, groups=())
        assert watch.moved() == "a"
        await housekeeping.blocklist_replaced(control)
        assert watch.moved() == ""
        fleet.ride_along(
            control,
            watch.a,
            applied=str(control.roll.effective(watch.a)),
            state="ok",
            nebula=None,
        )
        await housekeeping.blocklist_replaced(control)
        assert watch.moved() == "abc"
        await housekeeping.blocklist_replaced(control)
        assert watch.moved() == ""


async def test_what_a_certificate_lost_is_blocklisted_for_everybody_after_the_grace() -> None:
    async with watched() as watch:
        await watch.plane.patch(watch.a, overlay_ip="10.42.9.9")
        assert watch.moved() == "a"
        watch.plane.clock.at += 599
        await housekeeping.blocklist_replaced(watch.plane.control)
        assert watch.moved() == ""
        watch.plane.clock.at += 1
        await housekeeping.blocklist_replaced(watch.plane.control)
        assert watch.moved() == "abc"


async def test_what_a_certificate_gained_is_never_blocklisted() -> None:
    async with watched() as watch:
        await watch.plane.patch(watch.a, groups=("web", "db"))
        watch.moved()
        watch.plane.clock.at += 86_400
        await housekeeping.blocklist_replaced(watch.plane.control)
        assert watch.moved() == ""


async def test_a_predecessor_that_was_left_to_expire_is_blocklisted_with_its_successor() -> None:
    async with watched() as watch:
        control = watch.plane.control
        first = (await watch.plane.node(watch.a)).certificate
        second = (await watch.plane.patch(watch.a, groups=("web", "db"))).certificate
        await watch.plane.patch(watch.a, groups=())
        watch.plane.clock.at += 600
        await housekeeping.blocklist_replaced(control)
        listed = await control.database.read(
            lambda connection: {row[0] for row in connection.execute("SELECT fingerprint FROM blocklist")}
        )
    assert first is not None
    assert second is not None
    assert listed == {first.fingerprint, second.fingerprint}


async def test_expired_fingerprints_leave_with_the_next_wide_bump_and_not_by_themselves() -> None:
    async with watched() as watch:
        control = watch.plane.control

        async def listed() -> int:
            return await control.database.read(
                lambda connection: connection.execute("SELECT COUNT(*) FROM blocklist").fetchone()[0]
            )

        gone = await watch.plane.add_node("gone")
        await nodes.delete(control, OPERATOR, gone.id)
        assert await listed() == 1
        watch.plane.clock.at += 15_552_001
        watch.moved()
        await housekeeping.blocklist_replaced(control)
        await housekeeping.trim(control)
        assert watch.moved() == ""
        assert await listed() == 1
        await nodes.set_relay(control, OPERATOR, watch.a)
        assert await listed() == 0


async def test_own_routes_concern_everybody_too() -> None:
    async with watched() as watch:
        token = (await nodes.rotate_token(watch.plane.control, OPERATOR, watch.a)).node_token
        caller = await watch.plane.caller(token)
        await topology.set_own_routes(watch.plane.control, caller, message.Routes(routes=("192.168.7.0/24",)))
        assert watch.moved() == "abc"


async def test_an_enrolment_concerns_only_the_new_node_and_its_repetition_nobody() -> None:
    async with watched() as watch:
        holder = await watch.plane.key()
        request = message.Enroll(name="new", public_key=new_public_key())
        enrolled = await enrolment.enroll(watch.plane.control, holder, request)
        again = await enrolment.enroll(watch.plane.control, holder, request)
        assert watch.moved() == ""
        assert enrolled.version == again.version > 0


async def test_another_servers_list_concerns_everybody_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (await plane.add_cluster()).id
        node = await plane.add_node("a")
        servers = (Server(url="https://192.0.2.7:8443", pin="ab" * 32),)

        async def restart(servers: tuple[Server, ...]) -> int:
            control = await open_control(
                database,
                clock=FakeClock(),
                settings=Settings(),
                vault=Vault(MASTER),
                servers=servers,
                udp_port_in_use=lambda port: False,
            )
            return control.roll.effective(node.id)

        assert await restart(()) == node.version
        moved = await restart(servers)
        assert moved > node.version
        assert await restart(servers) == moved
        monkeypatch.setattr(bundle, "RENDERING", "another")
        assert await restart(servers) > moved
