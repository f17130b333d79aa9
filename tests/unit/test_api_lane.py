"""The lane on its own: what it answers and counts, what it leaves alone, and the polls that it holds."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.api import lane as lane_module
from edgegc.api.access import AccessLog
from edgegc.api.lane import Held, Lane
from edgegc.api.limits import RateLimits
from edgegc.api.version_check import PATH
from edgegc.control import nodes
from edgegc.settings import Api, Limits
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgegc.model.message import NodeView

SOURCE = "192.0.2.7"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, answer: object) -> Reply:
        assert isinstance(answer, bytes)
        head, body = answer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, reason = first.split(" ")
        assert (version, reason) == ("HTTP/1.1", "")
        return cls(int(status), dict(line.split(": ", 1) for line in lines), body)


@dataclass
class Stand:
    """A lane over a control plane, and a node of it whose token has been used."""

    plane: Plane
    node: NodeView
    lane: Lane
    limits: RateLimits
    log: AccessLog = field(default_factory=AccessLog)

    def head(self, query: str = "", *lines: str, token: object = None) -> bytes:
        token = token or self.node.node_token
        fields = ("Host: box", f"Authorization: Bearer {token}", *lines)
        return "\r\n".join((f"GET {PATH}{query} HTTP/1.1", *fields, "", "")).encode()

    def reply(self, query: str = "", *lines: str) -> Reply:
        taken = self.lane.take(self.head(query, *lines), source=SOURCE)
        assert taken is not None
        return Reply.of(taken.answer)

    def held(self, query: str = "", *lines: str) -> Held:
        taken = self.lane.take(self.head(query, *lines), source=SOURCE)
        assert taken is not None
        assert isinstance(taken.answer, Held)
        return taken.answer

    @property
    def counted(self) -> dict[int, int]:
        """How many requests were counted, by status."""
        assert all((method, route) == ("GET", PATH) for method, route, _ in self.log.tallies)
        return {status: tally.count for (_, _, status), tally in self.log.tallies.items()}

    @property
    def untouched(self) -> bool:
        """Whether nothing was counted or noted of the node."""
        presence = self.plane.control.fleet.presence(self.node.id)
        return (
            not self.log.tallies and presence.last_seen_at is None and not any(self.limits.refused.values())
        )


@asynccontextmanager
async def stand(*, used: bool = True, **settings: Any) -> AsyncIterator[Stand]:
    async with control_plane(**settings) as plane:
        node = await plane.add_node("pi-7")
        if used:
            await plane.caller(node.node_token)
            plane.control.fleet.forget(node.id)
        control = plane.control
        limits, log = RateLimits(control.settings.limits), AccessLog()
        head_bytes = control.settings.limits.head_bytes
        yield Stand(plane, node, Lane(control, limits=limits, log=log, head_bytes=head_bytes), limits, log)


class Wake:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


async def test_a_version_check_is_answered_and_counted_and_the_node_is_seen() -> None:
    async with stand() as here:
        version = here.node.version
        reply = here.reply("", "X-Request-ID: mine")
        assert (reply.status, json.loads(reply.body)) == (200, {"version": version})
        assert list(reply.headers) == [
            "etag",
            "cache-control",
            "content-type",
            "content-length",
            "x-request-id",
            "date",
        ]
        assert reply.headers["etag"] == f'"{version}"'
        assert reply.headers["x-request-id"] == "mine"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert here.counted == {200: 1}
        assert here.plane.control.fleet.presence(here.node.id).last_seen_at == here.plane.clock.at
        assert len(here.reply().headers["x-request-id"]) == 16


async def test_what_the_node_has_is_304_and_current_wins() -> None:
    async with stand() as here:
        version = here.node.version
        known = f'If-None-Match: "{version}"'
        reply = here.reply("", known)
        assert (reply.status, reply.body) == (304, b"")
        assert list(reply.headers) == ["etag", "cache-control", "x-request-id", "date"]
        assert here.reply(f"?current={version}", known).status == 304
        assert here.reply(f"?current={version + 1}", known).status == 200
        assert here.counted == {304: 2, 200: 1}


async def test_reports_ride_along_every_time() -> None:
    async with stand() as here:
        fleet, version = here.plane.control.fleet, here.node.version
        for state in ("ok", "failed"):
            for _ in range(2):
                here.reply("", f"Edgegc-Applied: {version}", f"Edgegc-State: {state}", "Edgegc-Nebula: 1.9.3")
            presence = fleet.presence(here.node.id)
            assert (presence.applied_version, presence.reported_state) == (version, state)
            assert presence.nebula_version == "1.9.3"
        here.reply("", "Edgegc-Applied: x")
        assert fleet.malformed_reports == 1


async def test_what_is_pipelined_behind_a_check_is_not_touched() -> None:
    async with stand() as here:
        head = here.head()
        for received in (head + b"GET /other", bytearray(head + head)):
            before = bytes(received)
            taken = here.lane.take(received, source=SOURCE)
            assert taken is not None
            assert taken.consumed == len(head)
            assert received == before


async def test_a_head_in_pieces_is_left_alone_until_it_is_whole() -> None:
    async with stand() as here:
        head = here.head()
        assert not any(here.lane.take(head[:end], source=SOURCE) for end in range(len(head)))
        assert here.untouched
        assert here.lane.take(head, source=SOURCE) is not None


async def test_a_head_past_the_limit_is_left_alone() -> None:
    async with stand(limits=Limits(head_bytes=250)) as here:
        fits = here.head("", "Accept: " + "x" * (250 - len(here.head("", "Accept: "))))
        assert len(fits) == 250
        assert here.lane.take(fits.replace(b"xx", b"xxx", 1), source=SOURCE) is None
        assert here.untouched
        assert here.lane.take(fits, source=SOURCE) is not None


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("action", [nodes.delete, nodes.rotate_token])
async def test_a_token_that_is_no_longer_good_is_left_to_the_route(
    known: bool, action: Callable[..., Any]
) -> None:
    async with stand() as here:
        if known:
            here.reply()
        await action(here.plane.control, OPERATOR, here.node.id)
        here.plane.control.fleet.forget(here.node.id)
        here.log.tallies.clear()
        assert here.lane.take(here.head(), source=SOURCE) is None
        assert here.untouched


async def test_a_token_that_never_was_good_is_left_to_the_route() -> None:
    async with stand() as here:
        token = str(here.node.node_token)
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        nobody = "egn_" + "0" * 32 + token[36:]
        for bad in (wrong, nobody, wrong):
            assert here.lane.take(here.head(token=bad), source=SOURCE) is None
        assert here.untouched


async def test_the_first_use_of_a_token_is_left_to_the_route_which_writes_it() -> None:
    async with stand(used=False) as here:
        assert here.lane.take(here.head(), source=SOURCE) is None
        assert here.untouched
        await here.plane.caller(here.node.node_token)
        assert here.reply().status == 200


async def test_past_its_limit_a_node_is_left_to_the_route_which_counts_the_refusal() -> None:
    async with stand(limits=Limits(node_burst=2)) as here:
        assert [here.lane.take(here.head(), source=SOURCE) is None for _ in range(4)] == [False] * 2 + [
            True
        ] * 2
        assert here.counted == {200: 2}
        assert here.limits.refused["node"] == 0
        caller = await here.plane.caller(here.node.node_token)
        with pytest.raises(Exception, match="too many requests"):
            here.limits.request(caller, trio.current_time())
        assert here.limits.refused["node"] == 1


async def test_no_token_stays_in_memory() -> None:
    async with stand() as here:
        here.reply()
        here.reply("?current=1")
        kept = repr(vars(here.lane)["_understood"])
        assert here.node.id in kept
        assert str(here.node.node_token).rpartition("_")[2] not in kept


async def test_what_is_remembered_is_bounded_and_only_of_those_whose_token_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "UNDERSTOOD", 3)
    async with stand() as here:
        kept = vars(here.lane)["_understood"]
        here.lane.take(here.head(token=str(here.node.node_token).replace("egn_", "egn_0")), source=SOURCE)
        here.lane.take(here.head(token="egn_" + "0" * 32 + "_" + "A" * 43), source=SOURCE)
        here.reply("", "X-Request-ID: another-each-time")
        assert not kept
        for current in range(10):
            assert here.reply(f"?current={current}").status == 200
            assert here.reply(f"?current={current}").status == 200
            assert len(kept) <= 3


async def test_behind_a_trusted_proxy_only_direct_requests_are_taken() -> None:
    async with stand(api=Api(trusted_proxies=("192.0.2.0/24",))) as here:
        assert here.lane.take(here.head("", "X-Forwarded-For: 203.0.113.9"), source=SOURCE) is None
        assert here.untouched
        assert here.reply().status == 200


async def test_http_1_0_is_told_that_its_connection_is_kept() -> None:
    async with stand() as here:
        head = here.head("", "Connection: Keep-Alive").replace(b"HTTP/1.1", b"HTTP/1.0")
        taken = here.lane.take(head, source=SOURCE)
        assert taken is not None
        assert Reply.of(taken.answer).headers["connection"] == "keep-alive"


async def test_while_the_server_stops_every_answer_closes_its_connection_and_nothing_is_held() -> None:
    async with stand() as here:
        here.lane.stopping = True
        assert here.reply().headers["connection"] == "close"
        assert here.reply(f"?wait=60&current={here.node.version}").headers["connection"] == "close"


async def test_how_long_a_check_takes_is_measured_unless_it_may_wait() -> None:
    async with stand() as here:
        here.reply()
        here.reply("?wait=60&current=99")
        tally = here.log.tallies["GET", PATH, 200]
        assert (tally.count, sum(tally.buckets)) == (2, 1)


# Held


async def test_a_check_is_held_until_its_version_moves() -> None:
    async with stand() as here:
        wake = Wake()
        began = trio.current_time()
        held = here.held(f"?wait=60&current={here.node.version}", "X-Request-ID: mine")
        held.park(wake)
        assert began + 59 <= held.deadline <= trio.current_time() + 60
        assert here.plane.control.polls.held == 1
        assert here.plane.control.fleet.presence(here.node.id).held == 1
        assert (wake.calls, here.counted) == (0, {})
        changed = await here.plane.patch(here.node.id, mtu=1400)
        assert wake.calls == 1
        reply = Reply.of(held.answer())
        assert (reply.status, json.loads(reply.body)) == (200, {"version": changed.version})
        assert reply.headers["x-request-id"] == "mine"
        held.leave()
        assert here.counted == {200: 1}
        assert here.plane.control.polls.held == 0
        assert here.plane.control.fleet.presence(here.node.id).held == 0
        await here.plane.patch(here.node.id, mtu=1300)
        assert wake.calls == 1


async def test_long_waits_of_one_second_end_together_and_a_short_one_to_the_moment() -> None:
    async with stand() as here:
        began = trio.current_time()
        some = [here.held(f"?wait={wait}&current={here.node.version}").deadline for wait in (10, 60, 110)]
        short = here.held(f"?wait=9.5&current={here.node.version}").deadline
        assert [due % 1.0 for due in some] == [0.0, 0.0, 0.0]
        assert 9 <= some[0] - began <= 11
        assert began + 9.5 <= short <= trio.current_time() + 9.5


async def test_at_its_deadline_a_check_is_answered_as_nothing_changed() -> None:
    async with stand() as here:
        known = f'If-None-Match: "{here.node.version}"'
        for query, lines, status in (
            (f"?wait=60&current={here.node.version}", (), 200),
            (f"?wait=60&current={here.node.version}", (known,), 304),
            ("?wait=60", (known,), 304),
        ):
            held = here.held(query, *lines)
            held.park(Wake())
            assert Reply.of(held.answer()).status == status


async def test_what_moved_before_it_was_parked_wakes_at_once() -> None:
    async with stand() as here:
        held = here.held(f"?wait=60&current={here.node.version}")
        changed = await here.plane.patch(here.node.id, mtu=1400)
        wake = Wake()
        held.park(wake)
        assert wake.calls == 1
        assert json.loads(Reply.of(held.answer()).body) == {"version": changed.version}
        assert here.plane.control.polls.held == 0


async def test_who_leaves_is_counted_and_no_longer_held() -> None:
    async with stand() as here:
        wake = Wake()
        held = here.held(f"?wait=60&current={here.node.version}")
        held.park(wake)
        held.leave()
        held.leave()
        assert here.counted == {499: 1}
        assert here.plane.control.polls.held == 0
        assert here.plane.control.fleet.presence(here.node.id).held == 0
        await here.plane.patch(here.node.id, mtu=1400)
        assert wake.calls == 0


@pytest.mark.parametrize("action", [nodes.delete, nodes.rotate_token])
async def test_who_loses_its_token_while_it_waits_is_answered_401_and_that_is_noted(
    action: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with stand() as here:
        wake = Wake()
        held = here.held(f"?wait=60&current={here.node.version}", "X-Request-ID: mine")
        held.park(wake)
        await action(here.plane.control, OPERATOR, here.node.id)
        assert wake.calls == 1
        reply = Reply.of(held.answer())
        assert (reply.status, json.loads(reply.body)["code"]) == (401, "unauthorized")
        assert json.loads(reply.body)["request_id"] == "mine"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert here.counted == {401: 1}
        assert "authentication failed: node token" in caplog.text
        assert str(here.node.node_token) not in caplog.text
        await here.plane.control.failures.flush()


async def test_where_no_more_can_be_held_the_answer_is_an_interval() -> None:
    async with stand(limits=Limits(held_polls=1)) as here:
        query = f"?wait=60&current={here.node.version}"
        held, late = here.held(query), here.held(query)
        held.park(Wake())
        assert int(here.reply(query).headers["edgegc-interval"]) > 0
        wake = Wake()
        late.park(wake)
        assert wake.calls == 1
        assert int(Reply.of(late.answer()).headers["edgegc-interval"]) > 0
        held.leave()


async def test_shutdown_wakes_every_check_and_its_answer_closes_the_connection() -> None:
    async with stand() as here:
        wake = Wake()
        held = here.held(f"?wait=60&current={here.node.version}")
        held.park(wake)
        here.lane.stopping = True
        here.plane.control.polls.release_all()
        assert wake.calls == 1
        reply = Reply.of(held.answer())
        assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_many_that_wake_at_once_are_told_to_spread_out() -> None:
    async with stand() as here:
        control = here.plane.control
        others = [await here.plane.add_node(f"n{number}") for number in range(120)]
        for other in others:
            await here.plane.caller(other.node_token)
        wakes = []
        waiting = []
        for other in others:
            query = f"?wait=60&current={control.roll.effective(other.id)}"
            taken = here.lane.take(here.head(query, token=other.node_token), source=SOURCE)
            assert taken is not None
            assert isinstance(taken.answer, Held)
            wakes.append(Wake())
            waiting.append(taken.answer)
            taken.answer.park(wakes[-1])
        await nodes.set_relay(control, OPERATOR, here.node.id)
        assert [wake.calls for wake in wakes] == [1] * 120
        replies = [Reply.of(held.answer()) for held in waiting]
        assert {reply.headers["edgegc-spread"] for reply in replies} == {"2"}
        assert len({reply.body for reply in replies}) == 1
