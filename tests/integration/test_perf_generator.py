"""The load generator's process, against servers that do as a test says."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
import trio

from edgegc.api import tls
from edgegc.errors import Unavailable
from edgegc.perf import references
from edgegc.perf.generator import client
from edgegc.perf.histogram import Histogram
from edgegc.perf.plan import Ask, Load, Plan, Target
from tests import generators

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from edgegc.perf.plan import Answered, Progress

LIMIT_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


ASK = Ask(name="a", requests=(get("/"),))


async def never() -> None:
    await trio.sleep_forever()


class Server:
    """Answers each request with what a function of it says; None: with the end of the connection."""

    def __init__(self, answer: Callable[[int, bytes], bytes | None | Awaitable[bytes | None]]) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[tuple[int, bytes]] = []
        """By connection, in the order of their arrival."""
        self.port = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        number = self.connections
        self.connections += 1
        try:
            async with stream:
                read = b""
                async for piece in stream:
                    read += piece
                    if b"\r\n\r\n" not in read:
                        continue
                    self.requests.append((number, read))
                    answer = self.answer(number, read)
                    if not isinstance(answer, bytes) and answer is not None:
                        answer = await answer
                    read = b""
                    if answer is None:
                        return
                    await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass

    def paths(self) -> list[bytes]:
        return [request.split(b" ")[1] for _, request in self.requests]


@asynccontextmanager
async def serving(
    answer: Callable[[int, bytes], bytes | None | Awaitable[bytes | None]],
    *,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server(answer)
    listeners: list[trio.abc.Listener[trio.SocketStream]] = list(
        await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    )
    server.port = listeners[0].socket.getsockname()[1]  # type: ignore[attr-defined]

    async def serve(stream: trio.SocketStream) -> None:
        await server.serve(stream if context is None else trio.SSLStream(stream, context, server_side=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with trio.fail_after(LIMIT_S):
            yield server
        nursery.cancel_scope.cancel()


def plan(server: Server, *asks: Ask, connections: int = 4, duration_s: float = 0.3, **more: object) -> Plan:
    fields = {"timeout_s": 5.0} | more
    return Plan(
        target=Target(host="127.0.0.1", port=server.port),
        asks=asks or (ASK,),
        connections=connections,
        duration_s=duration_s,
        **fields,  # type: ignore[arg-type]
    )


def only(load: Load) -> Answered:
    (answered,) = load.asks
    return answered


def p(counts: object, percent: float) -> int:
    return Histogram.from_counts(counts).value_at(percent)  # type: ignore[arg-type]


async def test_a_closed_load_asks_again_as_soon_as_it_is_answered() -> None:
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server))
    answered = only(load)
    assert answered.requests > 20
    assert not answered.errors
    assert not load.errors
    # One connection more: whether the target is there is tried first.
    assert server.connections == 4 + 1
    assert sum(answered.latency.counts) == answered.requests
    assert answered.bytes_read == len(OK) * answered.requests
    assert sum(load.connect.counts) == 4
    assert load.fewest_answers > 0
    assert load.reconnects == load.dropped == 0
    assert not load.partial


async def test_an_open_load_asks_as_often_as_its_rate_says() -> None:
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server, rate_per_s=200.0, duration_s=2.0, seed=5))
    # Poisson: 400, give or take three deviations of 20.
    assert 340 <= only(load).requests <= 460
    assert sum(load.lag.counts) == only(load).requests
    assert load.duration_s == 2.0
    # Of the last second some are answered in the third.
    assert len(load.per_second) == 2
    assert only(load).requests - 20 <= sum(load.per_second) <= only(load).requests


async def test_nothing_of_the_warmup_is_counted() -> None:
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server, rate_per_s=200.0, duration_s=0.5, warmup_s=1.0))
    assert only(load).requests < len(server.requests) * 0.6
    assert only(load).requests > 0


async def test_each_connection_sends_its_own_request_over_and_over() -> None:
    own = Ask(name="own", requests=tuple(get(f"/{i}") for i in range(4)), order="connection")
    async with serving(lambda *_: OK) as server:
        await client.run(plan(server, own, connections=4))
    by_connection: dict[int, set[bytes]] = {}
    for number, request in server.requests:
        by_connection.setdefault(number, set()).add(request)
    assert sorted(len(requests) for requests in by_connection.values()) == [1, 1, 1, 1]
    assert set(server.paths()) == {b"/0", b"/1", b"/2", b"/3"}


async def test_an_eager_load_does_not_wait_for_the_last_connection() -> None:
    async with serving(lambda *_: OK) as server:
        eager = plan(server, connections=3, duration_s=0.5, connect_within_s=60.0, eager=True)
        load = await client.run(eager)
    assert load.connected == 1
    assert only(load).requests > 5
    assert load.duration_s == 0.5


async def test_what_is_sent_once_ends_the_plan_when_it_is_used_up() -> None:
    creates = Ask(name="create", requests=tuple(get(f"/{i}") for i in range(50)), once=True)
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server, creates, duration_s=LIMIT_S))
    assert sorted(server.paths()) == sorted(f"/{i}".encode() for i in range(50))
    assert only(load).requests == 50
    assert load.duration_s < LIMIT_S
    assert not load.partial


async def test_what_each_connection_sends_once_is_awaited_and_ends_the_plan() -> None:
    released = trio.Event()

    async def held() -> bytes:
        await released.wait()
        return OK

    polls = Ask(
        name="poll",
        requests=tuple(get(f"/{i}") for i in range(20)),
        order="connection",
        once=True,
        times=True,
    )

    def look(progress: Progress) -> None:
        if progress.waiting == 20:
            released.set()

    async with serving(lambda *_: held()) as server:
        load = await client.run(plan(server, polls, connections=20, duration_s=LIMIT_S), on_progress=look)
    assert only(load).requests == len(only(load).at_ns) == 20
    assert list(only(load).at_ns) == sorted(only(load).at_ns)


async def test_a_conditional_request_carries_what_its_connection_was_told_last() -> None:
    def answer(number: int, request: bytes) -> bytes:
        if b'If-None-Match: "7"\r\n' in request:
            return b'HTTP/1.1 304 Not Modified\r\nETag: "7"\r\n\r\n'
        return b'HTTP/1.1 200 OK\r\nETag: "7"\r\nContent-Length: 2\r\n\r\nok'

    ask = Ask(name="a", requests=(get("/"),), conditional=True, expected=(304,))
    async with serving(answer) as server:
        load = await client.run(plan(server, ask, connections=3))
    assert only(load).errors == {"status 200": 3}
    assert only(load).requests > 3


async def test_kinds_are_sent_in_their_proportions_and_counted_apart() -> None:
    reads = Ask(name="read", requests=(get("/read"),), weight=3)
    writes = Ask(name="write", requests=(get("/write"),), weight=1)
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server, reads, writes))
    counted = {answered.name: answered.requests for answered in load.asks}
    assert counted["read"] == pytest.approx(3 * counted["write"], abs=12)


async def test_a_connection_that_the_server_closes_is_opened_again() -> None:
    async with serving(lambda *_: OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as server:
        load = await client.run(plan(server))
    assert not only(load).errors
    assert only(load).requests > 4
    assert load.reconnects >= only(load).requests


async def test_an_idle_connection_that_is_closed_is_no_error() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep(0.05)

    async with serving(lambda *_: OK) as server:
        server.serve = serve  # type: ignore[method-assign,assignment]
        # An arrival in ten seconds: nobody asks anything.
        load = await client.run(plan(server, connections=2, rate_per_s=0.1, seed=1))
    assert not load.errors
    assert load.reconnects > 2


async def test_a_server_that_turns_connections_away_is_not_stormed() -> None:
    async with serving(lambda *_: None) as server:
        load = await client.run(plan(server, connections=5, duration_s=1.0))
    # At once, then after 0.1, 0.2, 0.4 and 0.8 s.
    assert 5 * 2 <= only(load).errors["closed"] <= 5 * 5
    assert load.reconnects == only(load).errors["closed"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "closed"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed"),
        (OK + b"more", "malformed"),
    ],
)
async def test_what_goes_wrong_is_counted_by_its_kind(answer: bytes | None, kind: str) -> None:
    async with serving(lambda *_: answer) as server:
        load = await client.run(plan(server))
    assert set(only(load).errors) == {kind}
    assert only(load).requests == 0
    assert sum(only(load).latency.counts) == 0


async def test_an_answer_that_stops_halfway_is_a_timeout() -> None:
    async with serving(lambda *_: OK[:-1]) as server:
        load = await client.run(plan(server, duration_s=0.5, timeout_s=0.1))
    assert set(only(load).errors) == {"timeout"}


async def test_resets_are_told_from_the_end_of_a_connection() -> None:
    async with references.running("raw_echo", flaws=references.Flaws(reset_every=2)) as echo:
        load = await client.run(
            Plan(
                target=echo.target,
                asks=(Ask(name="a", requests=(references.REQUEST,)),),
                connections=1,
                duration_s=0.3,
            )
        )
    answered = only(load)
    assert set(answered.errors) == {"reset"}
    assert answered.errors["reset"] == pytest.approx(answered.requests, abs=1)


async def test_a_server_that_goes_away_leaves_connections_refused() -> None:
    async with references.running("raw_echo") as echo:

        def end(progress: Progress) -> None:
            if progress.requests:
                psutil.Process(echo.pid).kill()

        load = await client.run(
            Plan(
                target=echo.target,
                asks=(Ask(name="a", requests=(references.REQUEST,)),),
                connections=2,
                duration_s=1.5,
            ),
            on_progress=_once(end),
        )
    assert load.errors["refused"] > 0
    assert set(only(load).errors) <= {"reset", "closed"}
    assert load.connected == 0


def _once(call: Callable[[Progress], None]) -> Callable[[Progress], None]:
    done = False

    def called(progress: Progress) -> None:
        nonlocal done
        if not done and progress.requests:
            done = True
            call(progress)

    return called


async def test_arrivals_that_no_connection_takes_in_time_are_dropped() -> None:
    async with serving(lambda *_: never()) as server:
        load = await client.run(plan(server, connections=1, rate_per_s=100.0, duration_s=1.0, timeout_s=0.5))
    assert only(load).requests == 0
    assert only(load).errors["timeout"] >= 1
    # Each arrival came to something: it was sent and given up, or dropped.
    assert load.dropped + only(load).errors["timeout"] == sum(load.lag.counts)
    assert load.dropped > 50


async def test_a_target_that_is_not_there_is_said_to_be() -> None:
    nobody = Plan(target=Target(host="127.0.0.1", port=9), asks=(ASK,), connections=1, duration_s=1)
    with pytest.raises(Unavailable, match=r"nothing takes connections at 127\.0\.0\.1:9"):
        await client.run(nobody)


async def test_more_connections_than_files_are_refused_with_the_remedy() -> None:
    async with serving(lambda *_: OK) as server:
        with pytest.raises(Unavailable, match="ulimit -Hn"):
            await client.run(plan(server, connections=2_000_000_000))


async def test_a_plan_that_is_stopped_tells_what_it_has() -> None:
    stop = trio.Event()
    async with serving(lambda *_: OK) as server:
        load = await client.run(
            plan(server, duration_s=60),
            on_progress=lambda progress: stop.set() if progress.requests > 20 else None,
            stop=stop,
        )
    assert load.partial
    assert load.duration_s < LIMIT_S
    assert only(load).requests > 20


async def test_a_plan_that_is_stopped_before_it_began_tells_that_there_is_nothing() -> None:
    stop = trio.Event()
    stop.set()
    async with serving(lambda *_: OK) as server:
        load = await client.run(plan(server, duration_s=60), stop=stop)
    assert load.partial
    assert load.duration_s < LIMIT_S


async def test_a_signal_ends_a_plan_with_what_it_has() -> None:
    async with serving(lambda *_: OK) as server:
        load = await client.run(
            plan(server, duration_s=60), on_progress=_once(lambda _: generators.running()[0].terminate())
        )
    assert load.partial
    assert only(load).requests > 0


async def test_cancelling_ends_the_process() -> None:
    async with serving(lambda *_: OK) as server:
        found: list[psutil.Process] = []
        with trio.CancelScope() as scope:

            def cancel(progress: Progress) -> None:
                found.extend(generators.running())
                scope.cancel()

            await client.run(plan(server, duration_s=60), on_progress=_once(cancel))
        assert scope.cancelled_caught
    (generator,) = found
    assert not generator.is_running()


async def test_a_generator_that_breaks_is_said_to_have() -> None:
    async with serving(lambda *_: OK) as server:
        with pytest.raises(Unavailable, match="the load generator broke: exit code -9"):
            await client.run(
                plan(server, duration_s=60), on_progress=_once(lambda _: generators.running()[0].kill())
            )


async def test_large_bodies_come_whole_or_in_chunks() -> None:
    body = bytes(3_000_000)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2dc6c0\r\n" + body + b"\r\n0\r\n\r\n"
    async with serving(lambda _, request: whole if b"whole" in request else chunked) as server:
        load = await client.run(
            plan(server, Ask(name="a", requests=(get("/whole"), get("/chunked")), once=True), connections=2)
        )
    assert only(load).requests == 2
    assert only(load).bytes_read == len(whole) + len(chunked)


async def test_large_requests_are_sent_completely() -> None:
    body = bytes(3_000_000)
    upload = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n" + body
    received = 0

    async def count(stream: trio.SocketStream) -> None:
        nonlocal received
        left = len(upload)
        async for piece in stream:
            left -= len(piece)
            if not left:
                received += 1
                left = len(upload)
                await stream.send_all(OK)

    async with serving(lambda *_: OK) as server:
        server.serve = count  # type: ignore[method-assign,assignment]
        load = await client.run(plan(server, Ask(name="a", requests=(upload,) * 3, once=True), connections=1))
    assert only(load).requests == received == 3


async def test_tls_is_spoken_where_the_target_says_so(tmp_path: Path) -> None:
    files = tls.self_signed(tmp_path, names=("127.0.0.1",), now=1_800_000_000)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    async with serving(lambda *_: OK, context=context) as server:
        asked = plan(server)
        asked = msgspec.structs.replace(asked, target=Target(host="127.0.0.1", port=server.port, tls=True))
        load = await client.run(asked)
    assert only(load).requests > 20
    assert not only(load).errors
    assert not load.errors


async def test_tls_with_a_server_that_speaks_none_is_an_error_of_the_connection() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(OK)

    async with serving(lambda *_: OK) as server:
        server.serve = talk  # type: ignore[method-assign,assignment]
        asked = plan(server)
        asked = msgspec.structs.replace(asked, target=Target(host="127.0.0.1", port=server.port, tls=True))
        load = await client.run(asked)
    assert only(load).requests == 0
    assert load.errors["tls"] >= 4


async def test_a_thousand_connections_are_all_served() -> None:
    async with references.running("raw_echo") as echo:
        load = await client.run(
            Plan(
                target=echo.target,
                asks=(Ask(name="a", requests=(references.REQUEST,)),),
                connections=1000,
                duration_s=1.0,
            )
        )
    assert load.connected == 1000
    assert not load.errors
    assert not only(load).errors
    assert load.fewest_answers >= 1
    assert load.most_answers <= 2 * load.fewest_answers + 2


async def test_plain_quart_answers_a_version_check_and_bytes() -> None:
    ask = Ask(name="a", requests=(references.REQUEST,) * 4, once=True)
    for body_bytes in (0, 100_000):
        async with references.running("plain_quart", body_bytes=body_bytes) as quart:
            load = await client.run(Plan(target=quart.target, asks=(ask,), connections=2, duration_s=LIMIT_S))
        assert only(load).requests == 4
        assert not load.reconnects
        assert only(load).bytes_read > 4 * body_bytes


def turns(asked: list[str]) -> list[str]:
    """Return who was asked, once for each time that it was somebody else's turn."""
    return [name for number, name in enumerate(asked) if not number or asked[number - 1] != name]


async def test_closed_loads_that_take_turns_never_ask_at_the_same_time() -> None:
    asked: list[str] = []
    out = {"case": 0, "beside": 0}

    async def answer(name: str) -> bytes:
        asked.append(name)
        out[name] += 1
        assert not out["case" if name == "beside" else "beside"]
        await trio.sleep(0.01)
        out[name] -= 1
        return OK

    async with serving(lambda *_: answer("case")) as case, serving(lambda *_: answer("beside")) as beside:
        plans = [plan(each, duration_s=0.4, warmup_s=0.1) for each in (case, beside)]
        loads = await client.in_turns(plans, turn_s=0.1)
    # The warmup and four turns each; the first plan has the last one.
    assert turns(asked) == ["beside", "case"] * 5
    for load in loads:
        answered = only(load)
        assert answered.errors == {}
        # Each of four connections is answered every 10 ms, for 0.4 s.
        assert 60 <= answered.requests <= 160
        assert load.duration_s == pytest.approx(0.44, abs=0.1)
        # Nobody waits for a turn while it is asked.
        assert answered.latency.max_ns < 80_000_000
        assert not load.partial
        assert load.unanswered == {}
        assert load.cpu_s > 0


async def test_a_plan_that_has_used_up_its_requests_ends_all_that_take_turns_with_it() -> None:
    async with serving(lambda *_: OK) as case, serving(lambda *_: OK) as beside:
        each_once = Ask(name="each", requests=tuple(get(f"/{n}") for n in range(300)), once=True)
        used_up, other = await client.in_turns(
            [plan(case, each_once, duration_s=30.0), plan(beside, duration_s=30.0)], turn_s=0.05
        )
    assert only(used_up).requests == 300
    assert sorted(case.paths(), key=lambda path: int(path[1:])) == [b"/%d" % n for n in range(300)]
    assert only(other).requests > 0
    assert other.duration_s < 10


async def test_what_is_lost_in_a_turn_is_an_error_of_its_own_and_holds_up_nobody_for_long() -> None:
    async def sometimes(count: list[int]) -> bytes:
        count[0] += 1
        if count[0] % 50 == 0:
            await trio.sleep_forever()
        return OK

    count = [0]
    async with serving(lambda *_: sometimes(count)) as case, serving(lambda *_: OK) as beside:
        lossy, sound = await client.in_turns(
            [plan(case, duration_s=0.6, timeout_s=0.2), plan(beside, duration_s=0.6)], turn_s=0.2
        )
    assert set(only(lossy).errors) == {"timeout"}
    assert only(lossy).requests > 100
    assert only(sound).errors == {}


async def test_the_processor_time_of_a_plans_processes_is_that_of_the_measured_time() -> None:
    async with references.running("raw_echo") as echo:
        asked = Plan(
            target=echo.target,
            asks=(Ask(name="a", requests=(references.REQUEST,)),),
            connections=4,
            duration_s=0.5,
            warmup_s=0.2,
            pids=(echo.pid,),
        )
        before_s = psutil.Process(echo.pid).cpu_times()
        load = await client.run(asked)
        after_s = psutil.Process(echo.pid).cpu_times()
    assert load.server_cpu_s is not None
    assert 0 < load.server_cpu_s < after_s.user + after_s.system - before_s.user - before_s.system


async def test_an_open_load_takes_no_turns() -> None:
    async with serving(lambda *_: OK) as server:
        with pytest.raises(Unavailable, match="only closed loads can take turns"):
            await client.in_turns([plan(server), plan(server, rate_per_s=10.0)], turn_s=0.1)


async def test_cancelling_ends_those_that_take_turns() -> None:
    async with serving(lambda *_: OK) as server:
        with trio.move_on_after(1.0) as scope:
            await client.in_turns([plan(server, duration_s=60.0)] * 2, turn_s=0.1)
    assert scope.cancelled_caught
    assert not generators.running()
