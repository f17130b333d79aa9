"""Rotation of authority and signer: three steps, in turn, none of which cuts off a node that follows."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegc.control import bundles, clusters, enrolment, fleet, lighthouses, nodes, rotation
from edgegc.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from edgegc.model import message
from edgegc.model.lighthouse import LighthouseStatus
from edgegc.nebula import bundle
from edgegc.nebula.certificate import parse_bundle_pem, parse_pem, verify
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    from edgegc.model.credential import Caller
    from edgegc.nebula.certificate import NebulaCertificate


class Machine:
    """What an agent does, in memory: verifies with the signers it knows, applies, reports."""

    def __init__(self, plane: Plane, caller: Caller, name: str, signers: tuple[str, ...]) -> None:
        self.plane = plane
        self.caller = caller
        self.name = name
        self.signers = signers
        self.certificate: NebulaCertificate | None = None
        self.authorities: list[NebulaCertificate] = []
        self.version = 0

    @property
    def node_id(self) -> str:
        assert self.caller.node_id is not None
        return self.caller.node_id

    async def follow(self) -> None:
        """Download, verify and apply the newest version, and say so. Invalid where it is by no signer known here."""
        signed = await bundles.node_bundle(self.plane.control, self.caller)
        bundle.verify(
            signed.body,
            base64.b64decode(signed.signature),
            signers=bundle.parse_signers(self.signers),
            cluster_id=self.plane.cluster_id,
            node_id=self.node_id,
            version=signed.version,
        )
        unpacked = bundle.read(signed.body)
        self.signers = unpacked.manifest.signers
        self.certificate = parse_pem(unpacked.files[bundle.CERTIFICATE].decode())
        self.authorities = parse_bundle_pem(unpacked.files[bundle.AUTHORITIES].decode())
        self.version = signed.version
        control = self.plane.control
        fleet.ride_along(control, self.node_id, applied=str(signed.version), state="ok", nebula=None)
        await control.fleet.flush(last_seen=False)

    def accepts(self, other: Machine) -> bool:
        """Whether this machine takes the certificate that the other one shows; True while either runs nothing."""
        if self.certificate is None or other.certificate is None:
            return True
        try:
            verify(other.certificate, authorities=self.authorities, at=self.plane.clock.at)
        except Invalid:
            return False
        return True


async def joined(plane: Plane, name: str) -> Machine:
    enrolled = await enrolment.enroll(
        plane.control, await plane.key(), message.Enroll(name=name, public_key=new_public_key())
    )
    return Machine(plane, await plane.caller(enrolled.node_token), name, enrolled.signers)


async def take(plane: Plane, step: message.RotationStep, *, force: bool = False) -> message.CaRotation:
    wanted = message.CaRotationStep(step=step, force=force)
    return await rotation.take(plane.control, OPERATOR, plane.cluster_id, wanted)


async def status(plane: Plane) -> message.CaRotation:
    return await rotation.status(plane.control, OPERATOR, plane.cluster_id)


async def phase_shown(plane: Plane) -> str:
    view = await clusters.get(plane.control, OPERATOR, plane.cluster_id)
    (listed,) = (await clusters.list_(plane.control, OPERATOR)).clusters
    assert view.ca is not None
    assert listed.ca == view.ca
    return view.ca.phase


async def test_a_rotation_goes_through_its_three_phases() -> None:
    async with control_plane() as plane:
        one = await joined(plane, "one")
        await one.follow()
        before = await status(plane)
        assert (before.phase, before.new_fingerprint, before.ready) == ("none", None, True)
        assert before.waiting_for == ()

        prepared = await take(plane, "prepare")
        assert prepared.phase == await phase_shown(plane) == "prepared"
        assert prepared.old_fingerprint == before.old_fingerprint != prepared.new_fingerprint
        assert [each.name for each in prepared.waiting_for] == ["one"]
        assert not prepared.ready
        await one.follow()
        assert len(one.authorities) == len(one.signers) == 2
        assert (await status(plane)).ready

        issued = await take(plane, "issue")
        assert issued.phase == await phase_shown(plane) == "issued"
        assert (issued.old_fingerprint, issued.new_fingerprint) == (
            prepared.old_fingerprint,
            prepared.new_fingerprint,
        )
        await one.follow()
        assert one.certificate is not None
        assert one.certificate.details.issuer.hex() == issued.new_fingerprint

        retired = await take(plane, "retire")
        assert retired.phase == await phase_shown(plane) == "none"
        assert retired.old_fingerprint == issued.new_fingerprint
        assert [each.name for each in retired.waiting_for] == ["one"]
        await one.follow()
        assert [each.fingerprint for each in one.authorities] == [issued.new_fingerprint]
        assert len(one.signers) == 1
        assert (await status(plane)).waiting_for == ()

        rows = await plane.control.database.read(
            lambda connection: connection.execute(
                "SELECT action, actor FROM audit WHERE action LIKE 'ca.%' ORDER BY id"
            ).fetchall()
        )
        assert rows == [(f"ca.{step}", "operator:socket") for step in ("prepare", "issue", "retire")]


@pytest.mark.parametrize("steps", [("issue",), ("retire",), ("prepare", "prepare"), ("prepare", "retire")])
async def test_a_step_out_of_turn_is_refused_even_by_force(steps: tuple[message.RotationStep, ...]) -> None:
    async with control_plane() as plane:
        for step in steps[:-1]:
            await take(plane, step)
        with pytest.raises(Conflict, match="the next step is"):
            await take(plane, steps[-1], force=True)


async def test_a_step_waits_for_every_node_and_names_who_is_missing() -> None:
    async with control_plane() as plane:
        machines = [await joined(plane, f"n{number:02}") for number in range(13)]
        await plane.add_node("has no key", keyed=False)
        for machine in machines:
            await machine.follow()
        await take(plane, "prepare")
        await machines[0].follow()
        before = await status(plane)
        with pytest.raises(Conflict, match=r"waiting for n01, .*n10 and 2 more") as refused:
            await take(plane, "issue")
        assert "n00" not in refused.value.message
        assert await status(plane) == before
        for machine in machines[1:]:
            await machine.follow()
        assert (await take(plane, "issue")).phase == "issued"
        with pytest.raises(Conflict, match="not every node has applied 'issue' yet"):
            await take(plane, "retire")


async def test_the_box_s_own_lighthouse_is_waited_for_and_signed_again() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        (before,) = await lighthouses.desired(plane.control)

        def runs(version: int) -> None:
            plane.control.lighthouses.publish(
                LighthouseStatus(
                    cluster_id=plane.cluster_id,
                    name="home",
                    state="running",
                    pid=1,
                    overlay_ip="10.42.0.1",
                    port=4242,
                    version_running=version,
                    version_desired=version,
                    restarts=0,
                    uptime_s=None,
                    rss_bytes=None,
                    cpu_percent=None,
                    fds=None,
                    last_error=None,
                    log_tail=(),
                )
            )

        runs(before.version)
        waiting = (await take(plane, "prepare")).waiting_for
        assert waiting == (message.RotationWaiting(id=None, name="edgegc-lighthouse"),)
        with pytest.raises(Conflict, match="edgegc-lighthouse"):
            await take(plane, "issue")
        (prepared,) = await lighthouses.desired(plane.control)
        assert len(parse_bundle_pem(prepared.ca_pem)) == 2
        assert prepared.fingerprint == before.fingerprint
        runs(prepared.version)
        issued = await take(plane, "issue")
        (again,) = await lighthouses.desired(plane.control)
        assert parse_pem(again.certificate_pem).details.issuer.hex() == issued.new_fingerprint
        assert again.key_pem == before.key_pem


async def test_a_node_that_was_away_for_two_steps_still_follows() -> None:
    async with control_plane() as plane:
        away, there = await joined(plane, "away"), await joined(plane, "there")
        await away.follow()
        await there.follow()
        await take(plane, "prepare")
        await there.follow()
        await take(plane, "issue", force=True)
        await there.follow()
        # It knows the old signer only, and gets that one's signature.
        await away.follow()
        assert len(away.signers) == 2
        late = await joined(plane, "late")
        await late.follow()
        assert (await take(plane, "retire")).phase == "none"
        for machine in (away, there, late):
            await machine.follow()
            assert len(machine.signers) == 1


async def test_a_node_that_is_left_behind_refuses_what_it_can_not_verify_and_says_what_to_do() -> None:
    async with control_plane() as plane:
        away = await joined(plane, "away")
        await away.follow()
        await take(plane, "prepare")
        await take(plane, "issue", force=True)
        retired = await take(plane, "retire", force=True)
        assert [each.name for each in retired.waiting_for] == ["away"]
        with pytest.raises(Invalid, match="delete its node and join again"):
            await away.follow()
        forced = await plane.control.database.read(
            lambda connection: connection.execute(
                "SELECT action FROM audit WHERE action LIKE 'ca.%' ORDER BY id"
            ).fetchall()
        )
        assert forced == [("ca.prepare",), ("ca.issue.forced",), ("ca.retire.forced",)]


async def test_a_revoked_certificate_stays_blocklisted_through_a_rotation() -> None:
    async with control_plane() as plane:
        stays, goes = await joined(plane, "stays"), await joined(plane, "goes")
        await stays.follow()
        await goes.follow()
        assert goes.certificate is not None
        await nodes.delete(plane.control, OPERATOR, goes.node_id)
        for step in ("prepare", "issue", "retire"):
            await take(plane, step, force=True)
            listed = await plane.control.database.read(
                lambda connection: {row[0] for row in connection.execute("SELECT fingerprint FROM blocklist")}
            )
            assert goes.certificate.fingerprint in listed


async def test_only_the_operator_rotates_and_only_what_there_is() -> None:
    async with control_plane() as plane:
        machine = await joined(plane, "one")
        wanted = message.CaRotationStep(step="prepare")
        with pytest.raises(Forbidden):
            await rotation.take(plane.control, machine.caller, plane.cluster_id, wanted)
        with pytest.raises(Forbidden):
            await rotation.status(plane.control, machine.caller, plane.cluster_id)
        with pytest.raises(NotFound):
            await rotation.take(plane.control, OPERATOR, "nowhere", wanted)


async def test_no_authority_is_made_by_a_clock_that_is_wrong() -> None:
    async with control_plane() as plane:
        plane.clock.at -= 86_400
        with pytest.raises(Unavailable):
            await take(plane, "prepare")
        plane.clock.at += 86_400
        assert (await status(plane)).phase == "none"


async def test_old_private_keys_are_gone_after_the_last_step() -> None:
    async with control_plane() as plane:
        await joined(plane, "one")
        for step in ("prepare", "issue", "retire"):
            await take(plane, step, force=True)

        for table in ("authorities", "signers"):
            rows = await plane.control.database.read(
                lambda connection, table=table: connection.execute(  # type: ignore[misc]
                    f"SELECT phase FROM {table}"
                ).fetchall()
            )
            assert rows == [("active",)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_no_sequence_of_steps_parts_nodes_that_follow_in_their_own_time(data: st.DataObject) -> None:
    """Unforced, whoever runs whatever version, each accepts every other's certificate, and each next bundle's signature."""
    async with control_plane() as plane:
        machines = [await joined(plane, name) for name in ("one", "two", "three")]
        follow: dict[str, message.RotationStep] = {
            "none": "prepare",
            "prepared": "issue",
            "issued": "retire",
        }
        done = 0
        for action in data.draw(
            st.lists(
                st.sampled_from(["step", "step", "follow", "follow", "follow", "join", "change"]), max_size=40
            )
        ):
            match action:
                case "step":
                    now = await status(plane)
                    if now.ready:
                        await take(plane, follow[now.phase])
                        done += 1
                    else:
                        with pytest.raises(Conflict, match="not every node has applied"):
                            await take(plane, follow[now.phase])
                case "follow":
                    await data.draw(st.sampled_from(machines)).follow()
                case "join" if len(machines) < 6:
                    machines.append(await joined(plane, f"late{len(machines)}"))
                case "change":
                    groups = data.draw(st.sampled_from([(), ("web",), ("web", "db")]))
                    await plane.patch(data.draw(st.sampled_from(machines)).node_id, groups=groups)
                case _:
                    pass
            for one in machines:
                assert all(one.accepts(other) for other in machines), f"after {done} steps, at {action}"
        for machine in machines:
            await machine.follow()
        assert (await status(plane)).waiting_for == ()
