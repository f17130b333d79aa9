from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edgegc.control import bundles, policies, policy_rules, polls
from edgegc.control.held_polls import SPREAD_FROM
from edgegc.errors import Conflict, Forbidden, Invalid, NotFound
from edgegc.model import message
from edgegc.model.policy import ANY_TO_ANY
from edgegc.nebula import bundle, certificate
from tests.control_plane import OPERATOR, control_plane
from tests.fuzz import THOUSANDS

if TYPE_CHECKING:
    from tests.control_plane import Plane

ANYBODY = {"port": "any", "proto": "any", "host": "any"}
SSH = {"port": 22, "proto": "tcp", "groups": ["ops"]}


def policy(*inbound: dict[str, Any], outbound: tuple[dict[str, Any], ...] = (ANYBODY,)) -> message.Policy:
    return msgspec.convert({"inbound": inbound, "outbound": outbound}, message.Policy)


async def put(plane: Plane, wanted: message.Policy) -> message.PolicyChange:
    return await policies.put(plane.control, OPERATOR, plane.cluster_id, wanted)


async def signed_name(plane: Plane, node: message.NodeView) -> str:
    token = await plane.control.database.read(
        lambda connection: connection.execute(
            "SELECT pem FROM certificates WHERE node_id = ? AND state = 'current'", (node.id,)
        ).fetchone()
    )
    return certificate.parse_pem(token[0]).details.name


async def test_a_new_cluster_allows_any_to_any() -> None:
    async with control_plane() as plane:
        shown = await policies.get(plane.control, OPERATOR, plane.cluster_id)
        assert shown == policy(ANYBODY)
        assert policy_rules.read(shown) == ANY_TO_ANY


async def test_what_is_put_is_what_is_shown_with_ports_as_text() -> None:
    async with control_plane() as plane:
        kept = await put(plane, policy(SSH, {"port": "80-90", "proto": "udp", "cidr": "10.42.9.0/24"}))
        shown = await policies.get(plane.control, OPERATOR, plane.cluster_id)
        assert (kept.inbound, kept.outbound) == (shown.inbound, shown.outbound)
        assert msgspec.json.decode(msgspec.json.encode(kept.inbound)) == [
            {"port": "22", "proto": "tcp", "groups": ["ops"]},
            {"port": "80-90", "proto": "udp", "cidr": "10.42.9.0/24"},
        ]


async def test_only_nodes_that_a_changed_rule_concerns_get_a_new_version() -> None:
    async with control_plane() as plane:
        web = await plane.add_node("web", groups=("web",))
        db = await plane.add_node("db", groups=("db",))
        keyless = await plane.add_node("keyless", groups=("web",), keyed=False)
        before = plane.effective(web.id, db.id, keyless.id)
        wanted = policy(ANYBODY, {"port": 80, "proto": "tcp", "host": "any", "on_groups": ["web", "www"]})
        previewed = await policies.preview(plane.control, OPERATOR, plane.cluster_id, wanted)
        assert previewed.nodes == (message.PolicyNode(id=web.id, name="web"),)
        assert plane.effective(web.id, db.id, keyless.id) == before
        assert await put(plane, wanted) == previewed
        after = plane.effective(web.id, db.id, keyless.id)
        assert after[0] > before[0]
        assert after[1:] == before[1:]


async def test_the_same_policy_again_changes_and_records_nothing() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        await put(plane, policy(SSH))
        before = plane.effective(node.id)
        rows = await plane.control.database.read(lambda c: c.execute("SELECT count(*) FROM audit").fetchone())
        assert (await put(plane, policy(SSH))).nodes == ()
        assert plane.effective(node.id) == before
        again = await plane.control.database.read(
            lambda c: c.execute("SELECT count(*) FROM audit").fetchone()
        )
        assert again == rows


async def test_a_policy_that_begins_to_name_hosts_signs_renamed_nodes_again_and_blocklists_the_old_name() -> (
    None
):
    async with control_plane() as plane:
        renamed = await plane.add_node("old")
        other = await plane.add_node("other", groups=("web",))
        await plane.patch(renamed.id, name="new")
        assert await signed_name(plane, renamed) == "old"
        on_web = policy(ANYBODY, {"port": 80, "proto": "tcp", "host": "new", "on_groups": ["web"]})
        previewed = await policies.preview(plane.control, OPERATOR, plane.cluster_id, on_web)
        assert [node.name for node in previewed.nodes] == ["other"]
        assert [node.name for node in previewed.signed_again] == ["new"]
        before = plane.effective(renamed.id, other.id)
        await put(plane, on_web)
        assert await signed_name(plane, renamed) == "new"
        after = plane.effective(renamed.id, other.id)
        assert after[0] > before[0]
        assert after[1] > before[1]
        (due,) = await plane.control.database.read(
            lambda c: c.execute("SELECT count(*) FROM certificates WHERE blocklist_at IS NOT NULL").fetchone()
        )
        assert due == 1


async def test_a_rename_under_a_policy_that_names_hosts_is_signed_at_once() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("old")
        await put(plane, policy({"port": 22, "proto": "tcp", "host": "somebody"}))
        before = plane.effective(node.id)
        await plane.patch(node.id, name="new")
        assert plane.effective(node.id) > before
        assert await signed_name(plane, node) == "new"


async def test_the_rules_are_in_the_bundle_of_those_they_are_for() -> None:
    async with control_plane() as plane:
        made = {name: await plane.add_node(name, groups=(name,)) for name in ("web", "db")}
        await put(plane, policy({"port": 80, "proto": "tcp", "host": "any", "on_groups": ["web"]}))
        for name, node in made.items():
            signed = await bundles.node_bundle(plane.control, await plane.caller(node.node_token))
            config = bundle.read(signed.body).files["config.yml"].decode()
            assert ("port: '80'" in config or 'port: "80"' in config) == (name == "web"), config


async def test_many_whom_a_policy_concerns_are_told_to_spread_their_downloads() -> None:
    async with control_plane() as plane:
        made = [await plane.add_node(f"n{number}") for number in range(SPREAD_FROM + 1)]
        answers = []

        async def hold(node: message.NodeView) -> None:
            effective = plane.control.roll.effective(node.id)
            answers.append(await polls.wait(plane.control, node.id, current=effective, wait_s=60))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for node in made:
                    nursery.start_soon(hold, node)
                await trio.testing.wait_all_tasks_blocked()
                await put(plane, policy())
        assert all(answer.spread_s for answer in answers)


async def test_a_member_may_not_see_the_policy_and_a_reader_not_change_it() -> None:
    async with control_plane() as plane:
        member = await plane.caller((await plane.add_node("m")).node_token)
        admin = await plane.caller((await plane.add_node("a", role="admin")).node_token)
        other = (await plane.add_cluster("other", network_cidr="10.43.0.0/16")).id
        with pytest.raises(Forbidden):
            await policies.get(plane.control, member, None)
        assert await policies.get(plane.control, admin, None) == policy(ANYBODY)
        await policies.put(plane.control, admin, None, policy(SSH))
        for call in (policies.put, policies.preview):
            with pytest.raises(NotFound):
                await call(plane.control, admin, other, policy(SSH))
            with pytest.raises(Forbidden):
                await call(plane.control, member, None, policy(SSH))


async def test_an_uploaded_cluster_has_no_policy() -> None:
    async with control_plane(cluster={"mode": "uploaded"}) as plane:
        with pytest.raises(Conflict, match=r"^firewall policy: "):
            await policies.get(plane.control, OPERATOR, plane.cluster_id)
        for call in (policies.put, policies.preview):
            with pytest.raises(Conflict, match=r"^firewall policy: "):
                await call(plane.control, OPERATOR, plane.cluster_id, policy(SSH))


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (SSH | {"port": "http"}, "inbound[1].port: 'http' is no port"),
        (SSH | {"port": "0"}, "inbound[1].port: '0' is no port"),
        (SSH | {"port": "022"}, "inbound[1].port: '022' is no port"),
        (SSH | {"port": "65536"}, "inbound[1].port: '65536' is no port"),
        (SSH | {"port": "80-"}, "inbound[1].port: '80-' is no port"),
        (SSH | {"port": "80-90-95"}, "inbound[1].port: '80-90-95' is no port"),
        (SSH | {"port": "٣"}, "inbound[1].port: '٣' is no port"),
        (SSH | {"port": "90-80"}, "inbound[1].port: the range '90-80' ends before it begins"),
        (SSH | {"port": "1-65535"}, "inbound[1].port: the range '1-65535' has more than 4096 ports"),
        (SSH | {"proto": "icmp"}, 'inbound[1].port: must be "any" with proto "icmp"'),
        ({"port": 1, "proto": "tcp"}, "inbound[1]: exactly one of groups, host and cidr"),
        (SSH | {"host": "any"}, "inbound[1]: exactly one of groups, host and cidr"),
        (SSH | {"groups": []}, "inbound[1].groups: must name at least one group"),
        (SSH | {"groups": ["a", "any"]}, 'inbound[1].groups[1]: "any" means everybody'),
        (SSH | {"groups": ["a", "a"]}, "inbound[1].groups[1]: 'a' is there twice"),
        (SSH | {"on_groups": []}, "inbound[1].on_groups: must name at least one group"),
        ({"port": 1, "proto": "tcp", "host": "a b"}, "inbound[1].host: 'a b' can be no node's name"),
        (
            {"port": 1, "proto": "tcp", "cidr": "10.0.0.1/8"},
            "inbound[1].cidr: '10.0.0.1/8' is not in its plain form; did you mean '10.0.0.0/8'?",
        ),
        ({"port": 1, "proto": "tcp", "cidr": "::/0"}, "inbound[1].cidr: '::/0' is not an IPv4 network"),
        ({"port": 1, "proto": "tcp", "cidr": "10.0.0.1"}, "inbound[1].cidr: '10.0.0.1' is not an IPv4 net"),
    ],
)
def test_a_rule_that_can_t_be_is_refused_by_its_place_and_field(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        policy_rules.read(policy(ANYBODY, rule))
    assert refused.value.message.startswith(sentence)


TEXTS = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[0-9]{1,6}(-[0-9]{1,6})?", fullmatch=True),
    st.sampled_from(["any", "fragment", "10.0.0.0/8", "0.0.0.0/0", "pi-7", "web"]),
)
RULES = st.fixed_dictionaries(
    {
        "port": st.one_of(TEXTS, st.integers(1, 65_535)),
        "proto": st.sampled_from(["any", "tcp", "udp", "icmp"]),
    },
    optional={
        "groups": st.lists(st.sampled_from(["web", "db", "any", "1e3"]), max_size=3),
        "host": st.text(min_size=1, max_size=63) | st.sampled_from(["any", "pi-7"]),
        "cidr": TEXTS.filter(lambda text: 1 <= len(text) <= 18),
        "on_groups": st.lists(st.sampled_from(["web", "db", "any"]), max_size=3),
    },
)


@THOUSANDS
@given(rules=st.lists(RULES, max_size=4))
def test_whatever_is_given_is_taken_or_refused_by_its_place(rules: list[dict[str, Any]]) -> None:
    try:
        asked = msgspec.convert({"inbound": [], "outbound": rules}, message.Policy)
    except msgspec.ValidationError:
        return
    refusal = None
    try:
        read = policy_rules.read(asked)
    except Invalid as error:
        refusal = error.message
    if refusal is not None:
        assert re.match(r"outbound\[[0-9]\](\.[a-z_]+(\[[0-9]\])?)?: ", refusal)
        return
    assert policy_rules.read(policy_rules.show(read)) == read
    for rule in read.outbound:
        assert (bool(rule.groups), rule.host is not None, rule.cidr is not None).count(True) == 1
