"""The lane and the route that it stands for, asked the same over real connections: nobody can tell them apart."""

from __future__ import annotations

import re
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from edgegc.api import tls, vigil
from edgegc.api.access import AccessLog
from edgegc.api.app import create_app
from edgegc.api.lane import Lane
from edgegc.api.listeners import open_tcp
from edgegc.api.server import Server
from edgegc.api.version_check import PATH
from edgegc.control import nodes
from edgegc.control.presence import Presence
from edgegc.settings import Limits
from tests.control_plane import OPERATOR, Plane, control_plane
from tests.fuzz import mutated
from tests.raw_http import LIMIT_S, RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from edgegc.api.application import Application
    from edgegc.model.message import NodeView

SILENCE_S = vigil.LONG_S / 2
"""Where nothing has happened for so long, client and server wait for each other: no poll here is held for so long."""
NOTED = sorted({*Presence.__slots__} - {"heard_at", "changes"})
"""What is known of a node, but for how often and when it was noted."""
LAST = b"GET /health/live HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"
"""Ends a conversation."""


@dataclass
class Said:
    """What a server answered. ``reset``: it closed with something unread, so that some of it may be lost."""

    answers: bytes = b""
    reset: bool = False

    async def listen(self, client: RawClient, ended: trio.CancelScope) -> None:
        try:
            while received := await client.stream.receive_some():
                self.answers += received
        except trio.BrokenResourceError:
            self.reset = True
        ended.cancel()

    @property
    def comparable(self) -> bytes:
        """The answers without what differs from one to the next."""
        answers = re.sub(rb"\r\ndate: [^\r]+", rb"\r\ndate: now", self.answers)
        return re.sub(rb'(x-request-id: |"request_id":")[0-9a-f]{16}', rb"\1any", answers)


@dataclass
class Side:
    """A server, with the lane or without it, and what it has counted."""

    port: int
    app: Application
    log: AccessLog
    lane: Lane | None
    taken: int = 0
    """How many requests the lane took."""

    async def converse(
        self, pieces: Sequence[bytes], *, context: ssl.SSLContext | None = None, patient: bool = False
    ) -> Said:
        """Send all pieces, then, when nobody moves any more, :data:`LAST`; return all that comes back.

        ``patient``: :data:`LAST` is among the pieces, and its answer is waited for.
        """
        client = await RawClient.tcp(self.port, tls=context)
        said = Said()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(said.listen, client, nursery.cancel_scope)
            try:
                for piece in pieces:
                    await client.send(piece)
                    await trio.lowlevel.checkpoint()
                if patient:
                    await trio.sleep_forever()
                await wait_all_tasks_blocked(SILENCE_S)
                await client.send(LAST)
            except trio.BrokenResourceError:
                said.reset = True
            await wait_all_tasks_blocked(SILENCE_S)
            nursery.cancel_scope.cancel()
        await client.aclose()
        with trio.fail_after(LIMIT_S):
            while self.log.connections_open:
                await trio.sleep(0.001)
        return said


@dataclass
class Sides:
    """Two servers over one control plane: all that differs between them is the lane."""

    plane: Plane
    node: NodeView
    with_lane: Side
    without: Side

    def filled(self, heads: bytes) -> bytes:
        """Return heads with the node's token and its version in their places."""
        heads = heads.replace(TOKEN, str(self.node.node_token).encode())
        return heads.replace(VERSION, b"%d" % self.plane.effective(self.node.id)[0])

    async def ask(self, pieces: Sequence[bytes], **more: Any) -> bytes:
        """Have both asked the same, compare what they did and answered, and return the answers."""
        said, effects = [], []
        for side in (self.with_lane, self.without):
            fleet = self.plane.control.fleet
            fleet.forget(self.node.id)
            malformed, before = fleet.malformed_reports, counted(side.log)
            said.append(await side.converse(pieces, **more))
            after = counted(side.log)
            presence = fleet.presence(self.node.id)
            effects.append(
                {
                    "counted": {key: now - before.get(key, 0) for key, now in after.items()},
                    "malformed": fleet.malformed_reports - malformed,
                    "refused": side.app.limits.refused,
                    "node": {name: getattr(presence, name) for name in NOTED},
                    "held": self.plane.control.polls.held,
                }
            )
        assert effects[0] == effects[1]
        answers = [each.comparable for each in said]
        if any(each.reset for each in said):
            # What had not been read yet went with the connection.
            answers = [each[: min(map(len, answers))] for each in answers]
        assert answers[0] == answers[1]
        return answers[0]


def counted(log: AccessLog) -> dict[tuple[object, ...], int]:
    """Return how many requests were counted of each kind, and how many of them were timed."""
    return {
        (*kind, what): number
        for kind, tally in log.tallies.items()
        for what, number in (("count", tally.count), ("timed", sum(tally.buckets)))
        if number
    }


@asynccontextmanager
async def sides(
    *, limits: Limits | None = None, used: bool = True, context: ssl.SSLContext | None = None
) -> AsyncIterator[Sides]:
    async with (
        control_plane(limits=limits or Limits(enabled=False)) as plane,
        trio.open_nursery() as nursery,
    ):
        node = await plane.add_node("pi-7")
        if used:
            await plane.caller(node.node_token)
        found = []
        for has_lane in (True, False):
            log = AccessLog()
            app = create_app(plane.control, log=log)
            lane = Lane(plane.control, limits=app.limits, log=log, head_bytes=16_384) if has_lane else None
            (listener,) = open_tcp(["127.0.0.1:0"], tls=context)
            release = plane.control.polls.release_all
            server = Server(app, plane.control.settings, log=log, release=release, lane=lane)
            side = Side(listener.port, app, log, lane)
            if lane is not None:
                count_taken(side, lane)
            await nursery.start(partial(server.run, [listener], shutdown=trio.Event()))
            found.append(side)
        try:
            yield Sides(plane, node, *found)
        finally:
            await RawClient.close_all()
            nursery.cancel_scope.cancel()


def count_taken(side: Side, lane: Lane) -> None:
    take = lane.take

    def counting(received: bytes | bytearray, *, source: str) -> Any:
        taken = take(received, source=source)
        side.taken += taken is not None
        return taken

    lane.take = counting  # type: ignore[method-assign]


# What is asked. The token and the version of the node take the place of these:
TOKEN = b"egn_" + b"0" * 32 + b"_" + b"A" * 43
VERSION = b"@"


def head(query: bytes = b"", *lines: bytes, minor: int = 1) -> bytes:
    fields = (b"Host: box", b"Authorization: Bearer " + TOKEN, *lines)
    return b"\r\n".join((b"GET %b%b HTTP/1.%d" % (PATH.encode(), query, minor), *fields, b"", b""))


def either(text: bytes) -> st.SearchStrategy[bytes]:
    """One of some lines, ``|`` between them."""
    return st.sampled_from(text.split(b"|"))


QUERIES = either(
    b"||?current=@|?current=0|?current=9|?wait=0&current=@|?wait=0.01&current=@|?current=@&wait=0.02|?wait=0.01"
    b"|?wait=60&current=0|?|?wait=111|?wait=nan|?current=x|?current=1&current=1|?x=1|?current=%40|?current=01"
    b"|?current=null|/|s|#"
)
PLAIN_LINES = either(
    b'If-None-Match: "@"|If-None-Match: W/"@"|If-None-Match: *|If-None-Match: "0", "@"|If-None-Match: "x"'
    b'|If-None-Match: @|If-None-Match: "@|If-None-Match: , ,|Edgegc-Applied: @|Edgegc-Applied: 999'
    b"|Edgegc-Applied: x|Edgegc-Applied:|Edgegc-State: ok|Edgegc-State: failed|Edgegc-State: fine"
    b"|Edgegc-Nebula: 1.9.3|Edgegc-Nebula: ?!|X-Request-ID: mine|X-Request-ID: a b|User-Agent: a/1|Accept: */*"
    b"|Accept-Encoding: gzip|Cookie: a=b|X-Forwarded-For: ::1|Range: bytes=0-1|Idempotency-Key: k|accept:x"
    b"|Forwarded: for=x|Content-Length: 0|Content-Type: text/plain|Authorization: Bearer x"
)
ODD_LINES = either(
    b"Connection: close|Connection: Upgrade|Upgrade: h2c|Upgrade: websocket|Expect: x|Expect: 100-continue|Host: other"
    b"|X-Odd: \xe4|Accept: \t x \t| folded|no colon|Host : x|Transfer-Encoding: x|Transfer-Encoding: chunked"
    b"|Content-Length: 7|Content-Length: -1|X-Nul: \0|X-Feed: a\nb"
)
KEPT = ((b"Connection: Keep-Alive",), ())


def heads(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Heads with a few of those lines, each name once."""
    return st.builds(
        lambda query, lines, minor: head(query, *lines, *KEPT[minor], minor=minor),
        QUERIES,
        st.lists(lines, max_size=3, unique_by=lambda line: line.partition(b":")[0]),
        st.sampled_from([1, 1, 1, 0]),
    )


CHANGED = mutated(
    head(),
    head(b"?current=@&wait=0.01", b"Edgegc-Applied: @", b"User-Agent: a/1"),
    head(b"", b'If-None-Match: "@"', b"Connection: keep-alive"),
)
CONVERSATIONS = st.tuples(
    st.lists(heads(PLAIN_LINES), max_size=4),
    st.one_of(heads(PLAIN_LINES), heads(st.one_of(PLAIN_LINES, ODD_LINES)), CHANGED, CHANGED),
    st.lists(st.integers(0, 1000), max_size=4),
)
"""Plain heads, then one that may be anything, all of it cut at some places: behind what is no request Hypercorn answers
what is not sure to be counted the same way twice.
"""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(
    conversations=[
        ([head(), head(b"?wait=0.01&current=@")], head(b"", b'If-None-Match: "@"'), []),
        ([head(b"?wait=0.01&current=@", *KEPT[0], minor=0)], head(), [3, 80, 200]),
    ]
)
@given(conversations=st.lists(CONVERSATIONS, min_size=1, max_size=6))
async def test_valid_odd_split_and_pipelined_heads_are_answered_counted_and_noted_alike(
    conversations: list[tuple[list[bytes], bytes, list[int]]],
) -> None:
    async with sides() as both:
        for plain, last, cuts in conversations:
            sent = both.filled(b"".join(plain) + last)
            ends = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
            await both.ask([sent[begin:end] for begin, end in pairwise(ends) if begin < end])


async def told(both: Sides, *heads: bytes, **more: Any) -> bytes:
    """Have both asked the same, and return what they answered."""
    return await both.ask([both.filled(b"".join(heads))], **more)


async def test_the_lane_takes_what_agents_send() -> None:
    async with sides() as both:
        agent = (
            b"User-Agent: edgegc/0.1.0",
            b"Accept: application/json",
            b"Edgegc-Applied: @",
            b"Edgegc-State: ok",
        )
        for query in (b"", b"?current=@&wait=0.02", b"?wait=0.02"):
            await told(both, head(query, *agent, b'If-None-Match: "@"'))
        assert both.with_lane.taken == 3


async def test_what_the_lane_takes_over_tls_is_answered_alike(tmp_path: Path) -> None:
    identity = tls.self_signed(tmp_path, names=("localhost",), now=1_900_000_000)
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with sides(context=tls.context(identity)) as both:
        await told(both, head(), head(b"?current=@&wait=0.02"), context=client)
        assert both.with_lane.taken == 2


async def test_past_its_limit_a_node_is_refused_and_counted_alike() -> None:
    async with sides(limits=Limits(node_burst=3)) as both:
        answers = await told(both, *[head()] * 6)
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200"] * 3 + [b"429"] * 3 + [b"200"]
        assert both.with_lane.app.limits.refused["node"] == 3


async def test_the_first_use_of_a_token_is_noted_alike() -> None:
    for first in ("with_lane", "without"):
        async with sides(used=False) as both:
            said = await getattr(both, first).converse([both.filled(head())])
            assert said.answers.startswith(b"HTTP/1.1 200 ")
            entry = both.plane.control.roll.entry(both.node.id)
            assert entry is not None
            assert entry.token_used


async def test_failed_authentications_are_answered_and_counted_alike() -> None:
    async with sides(limits=Limits(failures_in_minute=3)) as both:
        answers = await told(
            both, *[head(b"?current=%d" % each).replace(b"AAA", b"BBB") for each in range(6)]
        )
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"401"] * 3 + [b"429"] * 3 + [b"200"]
        assert both.with_lane.taken == 0


async def held_by(side: Side, both: Sides, *, then: Callable[[], Any]) -> bytes:
    """Hold a check on one side, with another request pipelined behind it; return both answers."""
    sent = both.filled(head(b"?wait=60&current=@", b"X-Request-ID: held"))
    answers = b""

    async def ask() -> None:
        nonlocal answers
        answers = (await side.converse([sent, LAST], patient=True)).comparable

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with trio.fail_after(LIMIT_S):
            while not both.plane.control.polls.held:
                await trio.sleep(0.001)
        await then()
    assert both.plane.control.polls.held == 0
    return answers


async def test_a_held_check_is_woken_and_answered_alike_with_what_was_pipelined_behind_it() -> None:
    async with sides() as both:
        plane, node = both.plane, both.node
        for mtu, side in ((1400, both.with_lane), (1500, both.without)):
            answers = await held_by(side, both, then=partial(plane.patch, node.id, mtu=mtu))
            version = plane.effective(node.id)[0]
            assert b'{"version":%d}HTTP/1.1 200 ' % version in answers
            assert counted(side.log)["GET", PATH, 200, "count"] == 1
            assert ("GET", PATH, 200, "timed") not in counted(side.log)


async def test_who_loses_its_token_while_held_is_answered_alike() -> None:
    for action in (nodes.rotate_token, nodes.delete):
        found = []
        for name in ("with_lane", "without"):
            async with sides() as both:
                then = partial(action, both.plane.control, OPERATOR, both.node.id)
                found.append(await held_by(getattr(both, name), both, then=then))
        assert found[0] == found[1]
        assert found[0].startswith(b"HTTP/1.1 401 ")


async def test_who_leaves_while_held_is_counted_alike() -> None:
    async with sides() as both:
        for side in (both.with_lane, both.without):
            client = await RawClient.tcp(side.port)
            await client.send(both.filled(head(b"?wait=60&current=@")))
            with trio.fail_after(LIMIT_S):
                while not both.plane.control.polls.held:
                    await trio.sleep(0.001)
                await client.aclose()
                while side.log.connections_open:
                    await trio.sleep(0.001)
            assert counted(side.log) == {("GET", PATH, 499, "count"): 1}
            assert both.plane.control.polls.held == 0
