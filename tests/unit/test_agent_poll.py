"""The poller, with a control plane that answers what it is told to; bundles, verification and files are real."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from edgegc.agent.pace import HOLD_S
from edgegc.agent.poll import Poller
from edgegc.agent.servers import Servers
from edgegc.agent.state import Memory
from edgegc.agent.versions import Versions
from edgegc.client import Bundle, Polled, Unreachable, Untrusted
from edgegc.errors import Forbidden, NotFound, TooMany, Unauthorized
from edgegc.model.manifest import Server
from edgegc.nebula import bundle, keys
from tests.fakes import ControlPlane, FakeClock, inline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock


class Line:
    """A client that is a control plane: answers with ``version``, after ``failures`` have been raised."""

    def __init__(self, plane: ControlPlane, public_key: bytes) -> None:
        self.plane = plane
        self.public_key = public_key
        self.version = 0
        self.spread_s: float | None = None
        self.failures: list[Exception] = []
        self.asked: list[tuple[int | None, float]] = []
        self.at: list[float] = []
        self.downloads = 0
        self.changes: dict[str, Any] = {}

    async def poll(self, *, current: int | None, wait_s: float, headers: dict[str, str]) -> Polled:
        self.asked.append((current, wait_s))
        self.at.append(trio.current_time())
        if self.failures:
            await trio.lowlevel.checkpoint()
            raise self.failures.pop(0)
        deadline = trio.current_time() + wait_s
        while self.version == current and trio.current_time() < deadline:
            await trio.sleep(min(1.0, deadline - trio.current_time()))
        return Polled(version=self.version, spread_s=self.spread_s)

    async def bundle(self, *, limit_bytes: int) -> Bundle:
        self.downloads += 1
        self.at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        body = self.plane.bundle(self.version, self.public_key)
        fields = {
            "body": body,
            "version": str(self.version),
            "digest": f"sha256:{bundle.digest(body)}",
            "signature": self.plane.signature(body, self.version),
        }
        return Bundle(**(fields | self.changes))

    def close(self) -> None:
        pass


class Silent:
    """A reporter with nothing to say."""

    @contextmanager
    def riding_along(self) -> Iterator[dict[str, str]]:
        yield {}


class World:
    def __init__(self, directory: Path) -> None:
        self.plane = ControlPlane()
        self.pair = keys.generate_x25519()
        self.versions = Versions(directory / self.plane.cluster_id)
        self.versions.directory.mkdir()
        self.memory = Memory(directory / "state.json", disk=inline)
        self.line = Line(self.plane, self.pair.public)
        self.cluster = self.plane.membership()
        self.arrived: list[int] = []

        async def nothing(*_: object) -> None:
            await trio.lowlevel.checkpoint()

        self.poller = Poller(
            cluster=self.cluster,
            servers=Servers(self.cluster, on_good=nothing, connect=lambda server, token: self.line),  # type: ignore[arg-type, return-value]
            versions=self.versions,
            memory=self.memory,
            reporter=Silent(),  # type: ignore[arg-type]
            clock=FakeClock(),
            random=lambda: 0.5,
            on_version=lambda: self.arrived.append(self.memory.state.tried),
            on_change=lambda: None,
            settled=nothing,
            disk=inline,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_new_version_is_brought_onto_the_disk_and_given_on(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(world.poller.run)
    await trio.sleep(5)
    assert world.line.asked == [(0, 0.0), (0, HOLD_S)], "whether it is reached at all is known at once"
    world.line.version = 7
    await trio.sleep(5)
    assert world.arrived == [7]
    assert world.versions.has(7)
    state = world.memory.state
    assert (state.tried, state.highest, len(state.highest_digest)) == (7, 7, 64)
    assert world.line.asked[2:] == [(7, HOLD_S)]
    await trio.sleep(200)
    assert world.line.downloads == 1


async def test_a_control_plane_that_is_away_costs_nothing_but_patience(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    world.line.failures = [Unreachable("nobody there")] * 50
    nursery.start_soon(world.poller.run)
    await trio.sleep(3600)
    assert world.arrived == [7]
    assert world.poller.trouble is None
    gaps = [after - before for before, after in zip(world.line.at[10:49], world.line.at[11:50], strict=True)]
    assert gaps == pytest.approx([30.0] * len(gaps)), "half of a minute: full jitter at 0.5"


async def test_a_refused_bundle_is_told_remembered_nowhere_and_tried_again_later(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    world.line.changes = {"signature": "AAAA"}
    nursery.start_soon(world.poller.run)
    await trio.sleep(600)
    assert world.poller.trouble is not None
    assert "signed by somebody else" in world.poller.trouble
    assert (world.arrived, world.memory.state.highest, world.versions.has(7)) == ([], 0, False)
    assert world.line.downloads < 40
    world.line.changes = {}
    await trio.sleep(120)
    assert (world.arrived, world.poller.trouble) == ([7], None)


async def test_the_highest_version_is_remembered_before_the_archive_is_opened(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    body = b"signed, but not an archive"
    world.line.changes = {
        "body": body,
        "digest": f"sha256:{bundle.digest(body)}",
        "signature": world.plane.signature(body, 7),
    }
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    assert (world.memory.state.highest, world.memory.state.tried) == (7, 0)
    assert world.poller.trouble is not None
    assert "signed, but malformed" in world.poller.trouble


async def test_a_control_plane_that_went_back_is_not_followed_nor_asked_in_a_loop(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    world.line.version = 5
    asked = len(world.line.asked)
    await trio.sleep(600)
    assert world.poller.trouble is not None
    assert "is at version 5, but this node has accepted version 7" in world.poller.trouble
    assert world.line.downloads == 1
    assert len(world.line.asked) - asked < 40
    assert world.memory.state.tried == 7


async def test_a_control_plane_that_gives_out_less_than_it_announces_is_not_asked_in_a_loop(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    body = world.plane.bundle(7, world.pair.public)
    await world.memory.change(highest_digest=bundle.digest(body))
    world.line.changes = {
        "body": body,
        "version": "7",
        "digest": f"sha256:{bundle.digest(body)}",
        "signature": world.plane.signature(body, 7),
    }
    world.line.version = 8
    await trio.sleep(600)
    assert world.poller.trouble == "the control plane announces version 8, but gives out version 7"
    assert world.line.downloads < 40


async def test_a_version_that_was_accepted_but_not_laid_down_before_a_crash_is_fetched_again(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    body = world.plane.bundle(7, world.pair.public)
    await world.memory.change(highest=7, highest_digest=bundle.digest(body))
    world.line.version = 7
    world.line.changes = {
        "body": body,
        "digest": f"sha256:{bundle.digest(body)}",
        "signature": world.plane.signature(body, 7),
    }
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    assert world.arrived == [7]


async def test_many_that_woke_at_once_spread_their_downloads(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.version = 7
    world.line.spread_s = 20.0
    nursery.start_soon(world.poller.run)
    await trio.sleep(30)
    asked, downloaded = world.line.at[:2]
    assert downloaded - asked == pytest.approx(10.0)


async def test_a_token_that_is_not_valid_is_told_and_tried_again_every_five_minutes(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world.line.failures = [Unauthorized("unauthorized")] * 3
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    assert world.poller.trouble is not None
    assert "token" in world.poller.trouble
    await trio.sleep(1000)
    assert [
        round(after - before) for before, after in zip(world.line.at[:3], world.line.at[1:4], strict=True)
    ] == [300] * 3
    assert world.poller.trouble is None


@pytest.mark.parametrize("failure", [NotFound("no bundle yet"), TooMany("slowly", retry_after_s=90)])
async def test_whatever_the_server_says_it_is_asked_again(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock, failure: Exception
) -> None:
    world.line.failures = [failure]
    world.line.version = 7
    nursery.start_soon(world.poller.run)
    await trio.sleep(120)
    assert world.arrived == [7]
    if isinstance(failure, TooMany):
        assert world.line.at[1] - world.line.at[0] >= 90


async def test_a_full_disk_is_told_and_the_version_is_fetched_when_there_is_room(
    world: World, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(unpacked: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.versions, "store", full)
    world.line.version = 7
    nursery.start_soon(world.poller.run)
    await trio.sleep(1)
    assert world.poller.trouble is not None
    assert "No space left" in world.poller.trouble
    monkeypatch.undo()
    await trio.sleep(120)
    assert (world.arrived, world.poller.trouble) == ([7], None)


class Server2(msgspec.Struct):
    """A server that answers with its name, or fails."""

    name: str
    failure: Exception | None = None

    def close(self) -> None:
        pass


async def test_no_server_that_others_name_gets_the_token_in_clear_text() -> None:
    readable, good = Server(url="http://192.0.2.1:8080", pin=None), Server(url="https://box", pin=None)
    own = ControlPlane().membership(servers=(readable,), fallback=good)

    async def note(server: Server) -> None:
        await trio.lowlevel.checkpoint()

    async def question(line: Any) -> str:
        await trio.lowlevel.checkpoint()
        return str(line)

    def ours(**changes: Any) -> Servers:
        cluster = msgspec.structs.replace(own, **changes)
        return Servers(cluster, on_good=note, connect=lambda server, token: server.url)  # type: ignore[arg-type, return-value]

    assert await ours().ask(question) == good.url
    with pytest.raises(
        Untrusted, match=r"clear text.*set-server home http://192\.0\.2\.1:8080 --insecure-http"
    ):
        await ours(fallback=None).ask(question)
    assert await ours(insecure_http=True).ask(question) == readable.url


async def test_servers_are_tried_in_order_and_the_good_one_is_remembered() -> None:
    lines = {name: Server2(name) for name in ("a", "b", "fallback")}
    asked: list[str] = []
    good: list[str] = []
    servers = [Server(url=f"https://{name}", pin=None) for name in lines]
    own = ControlPlane().membership(servers=tuple(servers[:2]), fallback=servers[2])

    async def note(server: Server) -> None:
        await trio.lowlevel.checkpoint()
        good.append(server.url)

    async def question(line: Any) -> str:
        await trio.lowlevel.checkpoint()
        asked.append(line.name)
        if line.failure:
            raise line.failure
        return str(line.name)

    ours = Servers(own, on_good=note, connect=lambda server, token: lines[server.url[8:]])  # type: ignore[arg-type, return-value]
    lines["a"].failure = Unreachable("down")
    assert await ours.ask(question) == "b"
    assert (asked, good, ours.good) == (["a", "b"], ["https://b"], servers[1])
    asked.clear()
    assert await ours.ask(question) == "b"
    assert asked == ["b"], "the good one first"
    after_restart = Servers(own, on_good=note, connect=lambda server, token: lines[server.url[8:]])  # type: ignore[arg-type, return-value]
    for remembered, first in ((None, servers[0]), ("https://gone", servers[0]), ("https://b", servers[1])):
        after_restart.prefer(remembered)
        assert after_restart.good == first
    lines["b"].failure = Untrusted("another key")
    assert await ours.ask(question) == "fallback"
    lines["fallback"].failure = Forbidden("no")
    asked.clear()
    with pytest.raises(Forbidden):
        await ours.ask(question)
    assert asked == ["fallback"], "an answer is an answer"
    lines["fallback"].failure = Unreachable("down")
    with pytest.raises((Unreachable, Untrusted)):
        await ours.ask(question)
    assert asked[1:] == ["fallback", "a", "b"]
