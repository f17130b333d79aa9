"""``/api/v1/maintenance``: backups that hold everything, their retention and download, checkpoint, compaction, verification."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgegc.settings import Backup
from tests.box import box_settings, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.box import Box

PATH = "/api/v1/maintenance"


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    with tempfile.TemporaryDirectory(prefix="egc-") as directory:
        data = Path(directory) / "data"
        settings = msgspec.structs.replace(box_settings(data), backup=Backup(keep=2))
        async with running_box(data, settings) as running:
            yield running


async def posted(box: Box, step: str, *, status: int = 200) -> Any:
    reply = await box.request("POST", f"{PATH}/{step}")
    assert reply.status == status, reply.body
    return reply.json


async def test_a_backup_is_a_private_file_of_its_size_and_digest_with_every_answered_write(box: Box) -> None:
    cluster = await box.cluster()
    made = await posted(box, "backup", status=201)
    assert made.keys() == {"name", "size", "sha256", "created_at"}
    path = box.data / "backups" / made["name"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert (made["size"], made["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM clusters").fetchall() == [(cluster["id"],)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not path.with_name(f"{path.name}-wal").exists()


async def test_backups_are_listed_and_downloaded_and_the_oldest_go(box: Box) -> None:
    assert (await box.request("GET", f"{PATH}/backups")).json == {"backups": [], "next_cursor": None}
    made = [await posted(box, "backup", status=201) for _ in range(3)]
    listed = (await box.request("GET", f"{PATH}/backups")).json["backups"]
    assert {each["name"] for each in listed} == {each["name"] for each in made[1:]}
    reply = await box.request("GET", f"{PATH}/backups/{made[2]['name']}")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/vnd.sqlite3"
    assert hashlib.sha256(reply.body).hexdigest() == made[2]["sha256"]


async def test_a_download_that_broke_off_goes_on_where_it_ended(box: Box) -> None:
    made = await posted(box, "backup", status=201)
    path = f"{PATH}/backups/{made['name']}"
    content = (box.data / "backups" / made["name"]).read_bytes()
    whole = await box.request("GET", path)
    assert (whole.body, whole.headers["accept-ranges"]) == (content, "bytes")
    tag = whole.headers["etag"]
    middle = len(content) // 2
    for asked, begin, end in (
        (f"{middle}-", middle, len(content)),
        ("1-4096", 1, 4097),
        ("-5", len(content) - 5, len(content)),
    ):
        part = await box.request("GET", path, headers={"Range": f"bytes={asked}", "If-Range": tag})
        assert (part.status, part.body) == (206, content[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(content)}"
        assert part.headers["content-length"] == str(end - begin)
    other = await box.request("GET", path, headers={"Range": "bytes=1-", "If-Range": '"another"'})
    assert (other.status, other.body) == (200, content)
    known = await box.request("GET", path, headers={"If-None-Match": tag})
    assert (known.status, known.body) == (304, b"")
    beyond = await box.request("GET", path, headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    head = await box.request("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    "name", ["edgegc-20260101T000000Z.db", "edgegc.db", "..%2Fmaster.key", "%2Fetc%2Fpasswd"]
)
async def test_what_is_no_backup_is_not_found(box: Box, name: str) -> None:
    await posted(box, "backup", status=201)
    reply = await box.request("GET", f"{PATH}/backups/{name}")
    assert reply.status == 404
    assert reply.json["code"] == "not_found"


@pytest.mark.parametrize("step", ["checkpoint", "compact", "verify"])
async def test_a_step_says_that_it_went_well_and_how_long_it_took(box: Box, step: str) -> None:
    await box.cluster()
    done = await posted(box, step)
    assert done.keys() == {"ok", "duration_ms", "detail"}
    assert done["ok"] is True
    assert done["duration_ms"] >= 0
    assert done["detail"]


async def test_compacting_gives_back_the_room_of_what_was_deleted(box: Box) -> None:
    with closing(sqlite3.connect(box.data / "edgegc.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE filler (x BLOB)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(4000000))")
        connection.execute("DROP TABLE filler")
    await posted(box, "checkpoint")
    before = (box.data / "edgegc.db").stat().st_size
    await posted(box, "compact")
    after = (box.data / "edgegc.db").stat().st_size
    assert before - after > 3_000_000
    assert (await posted(box, "verify"))["ok"]
    assert (await box.cluster())["name"] == "home"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "backup"),
        ("GET", "backups"),
        ("GET", "backups/edgegc-20260101T000000Z.db"),
        ("POST", "checkpoint"),
        ("POST", "compact"),
        ("POST", "verify"),
    ],
)
async def test_all_of_it_is_the_operators(box: Box, method: str, path: str) -> None:
    cluster = await box.cluster()
    boss = await box.admin(cluster["id"])
    token = boss["node_token"]
    assert (await box.request(method, f"{PATH}/{path}", token=token)).status == 403
    assert (await box.request(method, f"{PATH}/{path}", over="tcp")).status == 401
