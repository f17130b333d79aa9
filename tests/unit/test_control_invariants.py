"""Invariants under any sequence of writes over the real store: VERSION_MONOTONIC, ADDRESS_UNIQUE, KEY_USES.

SCOPE and BLOCKLIST_COMPLETE are in ``test_control_scope.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegc.control import certificates, clusters, enrolment, fleet, housekeeping, node_batches, nodes
from edgegc.errors import Conflict, Error, Unauthorized
from edgegc.model import message
from edgegc.model.manifest import Server
from edgegc.store import clusters as cluster_rows
from edgegc.store.database import MEMORY, open_database
from tests.control_plane import OPERATOR, Plane, new_public_key, open_plane

if TYPE_CHECKING:
    import sqlite3

    from edgegc.store.database import Database

SMALL = "10.42.0.0/29"
"""Five addresses for nodes: they run out, and every one is wanted again."""

NAMES = st.sampled_from("abcdef")
ADDRESSES = st.integers(2, 6).map(lambda last: f"10.42.0.{last}")
SPANS_S = st.sampled_from([1, 300, 601, 40_000, 70_000])
STEPS = st.sampled_from(
    [
        *["create"] * 4,
        "create at",
        "batch",
        *["delete"] * 2,
        *["move"] * 4,
        "groups",
        "certify",
        "lighthouse",
        *["report"] * 2,
        "cluster",
        *["time"] * 3,
        "restart",
    ]
)


class Certificate(NamedTuple):
    """A certificate as it was issued."""

    node_id: str
    overlay_ip: int
    not_after: int


class Seen(NamedTuple):
    """What the invariants speak of, at one time."""

    certificates: dict[str, Certificate]
    blocklist: frozenset[str]
    addresses: dict[str, int]
    version: int
    wide_version: int


def _look(connection: sqlite3.Connection, cluster_id: str) -> Seen:
    versions = cluster_rows.versions(connection, cluster_id)
    assert versions is not None
    return Seen(
        certificates={
            row[0]: Certificate(*row[1:])
            for row in connection.execute(
                "SELECT fingerprint, node_id, overlay_ip, not_after FROM certificates WHERE node_id IS NOT NULL"
            )
        },
        blocklist=frozenset(
            fingerprint for (fingerprint,) in connection.execute("SELECT fingerprint FROM blocklist")
        ),
        addresses=dict(connection.execute("SELECT id, overlay_ip FROM nodes").fetchall()),
        version=versions[0],
        wide_version=versions[1],
    )


class Machine:
    """A control plane with one small cluster, what was issued in it so far, and the versions that were shown."""

    def __init__(self, database: Database, plane: Plane) -> None:
        self.database = database
        self.plane = plane
        self.nodes: list[str] = []
        self.issued: dict[str, Certificate] = {}
        self.shown: dict[str, int] = {}
        self.version = 0
        self.restarts = 0

    async def step(self, data: st.DataObject, step: str) -> None:
        plane, control = self.plane, self.plane.control
        match step:
            case "create":
                await plane.add_node(data.draw(NAMES), groups=("a",))
            case "create at":
                await plane.add_node(data.draw(NAMES), overlay_ip=data.draw(ADDRESSES))
            case "batch":
                names = data.draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
                items = tuple(message.NodeCreate(name=name, public_key=new_public_key()) for name in names)
                await node_batches.create(control, OPERATOR, plane.cluster_id, message.NodeBatch(nodes=items))
            case "cluster":
                lifetime_s = data.draw(st.sampled_from([86_400, 100_000]))
                change = message.ClusterUpdate(
                    certificate_lifetime_s=lifetime_s, provide_relay=data.draw(st.booleans())
                )
                await clusters.update(control, OPERATOR, plane.cluster_id, change)
            case "time":
                plane.clock.at += data.draw(SPANS_S)
                await housekeeping.renew_certificates(control)
                await housekeeping.blocklist_replaced(control)
                await housekeeping.trim(control)
            case "restart":
                self.restarts += data.draw(st.integers(0, 1))
                await self._restart()
            case _ if self.nodes:
                await self._change(data, step, data.draw(st.sampled_from(self.nodes)))

    async def _change(self, data: st.DataObject, step: str, node_id: str) -> None:
        plane, control = self.plane, self.plane.control
        match step:
            case "delete":
                await nodes.delete(control, OPERATOR, node_id)
            case "move":
                await plane.patch(node_id, overlay_ip=data.draw(ADDRESSES))
            case "groups":
                await plane.patch(node_id, groups=data.draw(st.sampled_from([(), ("a",), ("a", "b")])))
            case "certify":
                token = (await nodes.rotate_token(control, OPERATOR, node_id)).node_token
                request = message.CertificateRequest(public_key=new_public_key())
                await certificates.issue(control, await plane.caller(token), request)
            case "lighthouse":
                addresses = ("203.0.113.9:4242",)
                await nodes.set_lighthouse(
                    control, OPERATOR, node_id, message.LighthouseSet(public_addresses=addresses)
                )
            case "report":
                effective = str(control.roll.effective(node_id))
                fleet.ride_along(control, node_id, applied=effective, state="ok", nebula=None)
                await housekeeping.blocklist_replaced(control)
            case _:
                pytest.fail(step)

    async def _restart(self) -> None:
        """Start anew on the same store, sometimes with other servers, which concerns every node."""
        cluster_id = self.plane.cluster_id
        servers = (Server(url=f"https://box-{self.restarts}", pin=None),)
        self.plane = await open_plane(self.database, clock=self.plane.clock, servers=servers)
        self.plane.cluster_id = cluster_id

    async def check(self) -> None:
        seen = await self.database.read(lambda connection: _look(connection, self.plane.cluster_id))
        self.nodes = [id_ for id_ in self.nodes if id_ in seen.addresses]
        self.nodes += [id_ for id_ in seen.addresses if id_ not in self.nodes]
        self.issued |= seen.certificates
        self._check_versions(seen)
        self._check_addresses(seen)

    def _check_versions(self, seen: Seen) -> None:
        """VERSION_MONOTONIC: no version that was ever shown is followed by a lower one, whatever happens."""
        assert seen.version >= self.version
        assert seen.wide_version <= seen.version
        self.version = seen.version
        for node_id in seen.addresses:
            effective = self.plane.control.roll.effective(node_id)
            assert self.shown.get(node_id, 0) <= effective <= seen.version
            self.shown[node_id] = effective

    def _check_addresses(self, seen: Seen) -> None:
        """ADDRESS_UNIQUE: nobody has an address for which somebody else's certificate is still good."""
        holders: dict[int, set[str]] = {}
        for node_id, overlay_ip in seen.addresses.items():
            holders.setdefault(overlay_ip, set()).add(node_id)
        for fingerprint, certificate in self.issued.items():
            if certificate.not_after >= self.plane.clock.at and fingerprint not in seen.blocklist:
                holders.setdefault(certificate.overlay_ip, set()).add(certificate.node_id)
        shared = {overlay_ip: ids for overlay_ip, ids in holders.items() if len(ids) > 1}
        assert shared == {}, "two nodes can speak for one address"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
async def test_versions_never_fall_and_no_address_is_given_while_somebody_can_speak_for_it(
    data: st.DataObject,
) -> None:
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (await plane.add_cluster(network_cidr=SMALL, certificate_lifetime_s=86_400)).id
        machine = Machine(database, plane)
        for step in data.draw(st.lists(STEPS, min_size=10, max_size=40)):
            refused: Any = None
            try:
                await machine.step(data, step)
            except Error as error:
                refused = error
            assert refused is None or refused.code in ("conflict", "invalid_request"), refused
            await machine.check()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    uses=st.integers(1, 4),
    tries=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["enroll", "delete", "use", "late"])),
        max_size=20,
    ),
)
async def test_a_key_makes_exactly_as_many_nodes_as_it_has_uses(
    uses: int, tries: list[tuple[str, str]]
) -> None:
    """KEY_USES: a use is counted with every node that is made and with nothing else; deleting gives none back."""
    public_keys = {name: new_public_key() for name in "abcdef"}
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (await plane.add_cluster()).id
        holder = await plane.key(uses=uses, expires_in_s=1_000_000)
        made: dict[str, str] = {}
        present: dict[str, message.Enrolled] = {}
        for name, what in tries:
            if what == "delete" and name in present:
                await nodes.delete(plane.control, OPERATOR, present.pop(name).node_id)
            elif what == "use" and name in present:
                await plane.caller(present[name].node_token)
            elif what == "late":
                plane.clock.at += 4000
            elif what == "enroll":
                request = message.Enroll(name=name, public_key=public_keys[name])
                try:
                    enrolled = await enrolment.enroll(plane.control, holder, request)
                except Unauthorized:
                    assert len(made) == uses
                    continue
                except Conflict:
                    assert name in present
                    continue
                present[name] = enrolled
                made[enrolled.node_id] = name
                assert len(made) <= uses
        (key,) = (await enrolment.list_keys(plane.control, OPERATOR, plane.cluster_id)).enrollment_keys
        assert key.used == len(made)
