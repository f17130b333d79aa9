"""Uploads without a socket: what a crash leaves, what a deleted cluster takes along, one load for many, turns."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.control import body_cache, clusters, housekeeping, uploads
from edgegc.control.body_cache import Bodies
from edgegc.control.upload_desk import AT_ONCE, PER_MINUTE, WINDOW_S, Desk
from edgegc.errors import Invalid, NotFound, TooMany, Unavailable
from edgegc.settings import Data
from edgegc.store import bundles, room
from edgegc.store.database import MEMORY, open_database
from tests import zoo
from tests.control_plane import OPERATOR, Plane, control_plane, open_plane

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

UPLOADED = {"mode": "uploaded"}


async def parts(body: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(body), 50_000):
        await trio.lowlevel.checkpoint()
        yield body[offset : offset + 50_000]


async def never_read() -> AsyncIterator[bytes]:
    raise AssertionError
    yield b""


async def upload(plane: Plane, body: bytes) -> uploads.Made:
    return await uploads.receive(plane.control, OPERATOR, plane.cluster_id, parts(body), length=None)


def bodies(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM bundle_bodies").fetchone()[0])


async def test_a_deleted_cluster_takes_its_bundles_along(tmp_path: Path) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        await upload(plane, zoo.sized(1_200_000))
        await upload(plane, zoo.bundle())
        assert await plane.control.database.read(bodies) == 2
        await clusters.delete(plane.control, OPERATOR, plane.cluster_id, cascade=True)
        assert await plane.control.database.read(bodies) == 0


@pytest.mark.parametrize("after", ["_reserve", "_fill"])
async def test_a_cluster_that_is_deleted_during_its_upload_is_not_found(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        step: Callable[..., Awaitable[object]] = getattr(uploads, after)

        async def then_deleted(*arguments: object, **more: object) -> object:
            result = await step(*arguments, **more)
            await clusters.delete(plane.control, OPERATOR, plane.cluster_id, cascade=True)
            return result

        monkeypatch.setattr(uploads, after, then_deleted)
        with pytest.raises(NotFound, match="no such cluster"):
            await upload(plane, zoo.bundle())
        assert await plane.control.database.read(bodies) == 0


async def test_what_an_upload_left_that_a_crash_ended_goes_at_the_next_start(tmp_path: Path) -> None:
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database, data=Data(dir=tmp_path))
        plane.cluster_id = (await plane.add_cluster(**UPLOADED)).id
        await upload(plane, zoo.bundle())
        await database.write(
            lambda connection: bundles.reserve_body(connection, plane.cluster_id, digest="d", size=1000)
        )
        await open_plane(database, clock=plane.clock, data=Data(dir=tmp_path))
        assert await database.read(bodies) == 1


async def test_what_an_upload_left_on_a_full_disk_goes_when_nobody_uploads(tmp_path: Path) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        control = plane.control
        await control.database.write(
            lambda connection: bundles.reserve_body(connection, plane.cluster_id, digest="d", size=1000)
        )
        async with control.uploads.turn(plane.cluster_id):
            await housekeeping.trim(control)
            assert await control.database.read(bodies) == 1
        await housekeeping.trim(control)
        assert await control.database.read(bodies) == 0


async def test_an_upload_that_would_fill_the_disk_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        disk = os.statvfs(tmp_path)
        monkeypatch.setattr(room, "LEFT_BYTES", disk.f_bavail * disk.f_frsize + 2**30)
        with pytest.raises(Unavailable, match=r"an upload needs \d+ bytes on the disk of .*: make room"):
            await uploads.receive(plane.control, OPERATOR, plane.cluster_id, never_read(), length=1000)


async def test_a_refused_bundle_leaves_no_row_and_moves_no_version(tmp_path: Path) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        node = await plane.add_node("a", keyed=False)
        with pytest.raises(Invalid, match=r"has no ca\.crt"):
            await upload(plane, zoo.bundle({"config.yml": zoo.CONFIG}))
        assert await plane.control.database.read(bodies) == 0
        assert plane.effective(node.id) == [0]
        await upload(plane, zoo.bundle())
        assert plane.effective(node.id) == [1]
        assert not os.listdir(tmp_path)


async def test_a_hundred_who_ask_at_once_cost_one_load_in_bounded_memory(tmp_path: Path) -> None:
    async with control_plane(cluster=UPLOADED, data=Data(dir=tmp_path)) as plane:
        body = zoo.sized(3 * body_cache.PIECE_BYTES)
        made = await upload(plane, body)
        stored = await uploads.get(plane.control, OPERATOR, plane.cluster_id, made.view.version)
        cache = Bodies(plane.control.database, capacity_bytes=2 * body_cache.PIECE_BYTES)
        digests = set()

        async def download() -> None:
            hasher = hashlib.sha256()
            async for part in cache.parts(stored.body_id, stored.digest, 0, stored.size):
                hasher.update(part)
            digests.add(hasher.hexdigest())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(download)
        assert digests == {stored.digest}
        assert cache.loaded <= 4
        assert cache.size_bytes <= 2 * body_cache.PIECE_BYTES
        gone = cache.parts(stored.body_id, "0" * 64, 0, 10)
        with pytest.raises(NotFound):
            await anext(gone)


async def test_so_many_at_a_time_and_so_many_a_minute(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    now = most = 0

    async def hold(cluster_id: str) -> None:
        nonlocal now, most
        async with desk.turn(cluster_id):
            now += 1
            most = max(most, now)
            await trio.sleep(0.1)
            now -= 1

    async with trio.open_nursery() as nursery:
        for number in range(PER_MINUTE):
            nursery.start_soon(hold, "a" if number % 2 else "b")
    assert most == AT_ONCE
    for _ in range(PER_MINUTE // 2):
        await hold("a")
    with pytest.raises(TooMany) as refused:
        await hold("a")
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= WINDOW_S
    await trio.sleep(refused.value.retry_after_s)
    await hold("a")
