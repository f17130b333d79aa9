"""The database on a disk that is full or fails, killed, locked, or not ours to read."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc import errors
from edgegc.store.database import open_database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting, and becoming another user, need root")


def insert(name: str, padding: int = 0) -> Callable[[sqlite3.Connection], None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (name, "x" * padding))

    return job


def keys(connection: sqlite3.Connection) -> set[str]:
    return {key for (key,) in connection.execute("SELECT key FROM meta")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(filler: Path) -> None:
    """Append to a file until nothing fits any more."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


@needs_root
async def test_a_full_disk_refuses_writes_keeps_reads_and_recovers(small_disk: Path) -> None:
    acknowledged: set[str] = set()
    refused: list[errors.Unavailable] = []
    filler = small_disk / "filler"
    async with open_database(small_disk / "edgegc.db") as database:

        async def client(number: int) -> None:
            for turn in range(10_000):
                try:
                    await database.write(insert(f"{number}-{turn}", 2000))
                except errors.Unavailable as error:
                    refused.append(error)
                    return
                acknowledged.add(f"{number}-{turn}")

        await database.write(insert("first"))
        filler.write_bytes(bytes(1024 * 1024))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(client, number)
        assert len(refused) == 20
        assert all("full" in error.message and error.retry_after_s for error in refused)
        assert await database.read(keys) == acknowledged | {"first"}
        # Also the last bytes, so that nothing at all can be written.
        fill(filler)
        # A write may still fit into what the log already has of the disk.
        refused.clear()
        async with trio.open_nursery() as nursery:
            for number in range(20, 40):
                nursery.start_soon(client, number)
        assert database.stats().trouble is not None
        assert await database.read(keys) == acknowledged | {"first"}
        filler.unlink()
        await database.write(insert("again"))
        assert database.stats().trouble is None
        assert (await database.checkpoint()).complete
        assert await database.verify() == []
    async with open_database(small_disk / "edgegc.db") as database:
        assert await database.read(keys) == acknowledged | {"first", "again"}


@needs_root
async def test_a_start_on_a_full_disk_is_a_clear_error_and_a_later_one_works(small_disk: Path) -> None:
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(errors.Unavailable, match=r"could not be opened: its disk is full .*: make room"):
        async with open_database(small_disk / "edgegc.db"):
            pytest.fail("must not open")
    filler.unlink()
    async with open_database(small_disk / "edgegc.db") as database:
        await database.write(insert("a"))


async def test_a_disk_that_fails_refuses_writes_and_recovers(tmp_path: Path) -> None:
    """A limit on file sizes makes the kernel refuse the write to the log in the middle of a COMMIT."""
    async with open_database(tmp_path / "edgegc.db") as database:
        await database.write(insert("a"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (database.stats().wal_bytes + 1000, limits[1]))
        try:
            for _ in range(3):
                with pytest.raises(errors.Unavailable):
                    await database.write(insert("b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await database.read(keys) == {"a"}
        await database.write(insert("c"))
        assert await database.read(keys) == {"a", "c"}


# Other processes

WRITE_UNTIL_KILLED = """
import os, sys, trio
from pathlib import Path
from edgegc.store.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])) as database, trio.open_nursery() as nursery:
        async def client(number):
            turn = 0
            while True:
                name = f"{os.getpid()}-{number}-{turn}"
                turn += 1
                await database.write(lambda c: c.execute("INSERT INTO meta VALUES (?, 'x')", (name,)) and None)
                os.write(1, f"{name}\\n".encode())
        for number in range(50):
            nursery.start_soon(client, number)

trio.run(main)
"""

HOLD = """
import sys, trio
from pathlib import Path
from edgegc.store.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])):
        print("open", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""

OPEN_AS_NOBODY = """
import os, pwd, sys, trio
from pathlib import Path
from edgegc import errors
from edgegc.store.database import open_database
from edgegc.store.migrations import released_plan
from edgegc.store.vault import open_vault

released_plan()  # what is imported must be imported as long as the interpreter's files can be read
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)

async def main():
    async with open_database(Path(sys.argv[2])) as database:
        await database.write(lambda c: c.execute("INSERT INTO meta VALUES ('a', 'b')") and None)

try:
    if sys.argv[1] == "vault":
        open_vault(Path(sys.argv[2]))
    else:
        trio.run(main)
except errors.Error as error:
    print(error.code, error)
else:
    print("done")
"""


@contextmanager
def running(program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize(
    ("rounds", "acknowledgements"), [(3, 1000), pytest.param(20, 5000, marks=pytest.mark.long)]
)
def test_whatever_was_acknowledged_before_kill_9_is_there_once(
    tmp_path: Path, rounds: int, acknowledgements: int
) -> None:
    path = tmp_path / "edgegc.db"
    acknowledged: list[str] = []
    for _ in range(rounds):
        with running(WRITE_UNTIL_KILLED, path) as process:
            assert process.stdout is not None
            acknowledged += [process.stdout.readline().decode().strip() for _ in range(acknowledgements)]
            process.send_signal(signal.SIGKILL)
            # What was written into the pipe before the kill was acknowledged as well.
            acknowledged += process.stdout.read().decode().splitlines()

    async def content() -> tuple[set[str], list[str]]:
        async with open_database(path) as database:
            return await database.read(keys), await database.verify()

    found, wrong = trio.run(content)
    assert len(acknowledged) >= rounds * acknowledgements
    assert set(acknowledged) <= found
    assert len(set(acknowledged)) == len(acknowledged)
    assert wrong == []


async def test_a_directory_held_by_another_process_is_refused_until_that_one_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    with running(HOLD, path) as process:
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == b"open\n"
        with pytest.raises(errors.Conflict, match=f"in use by process {process.pid}"):
            async with open_database(path):
                pytest.fail("must not open")
    async with open_database(path) as database:
        assert await database.read(keys) == set()


@needs_root
@pytest.mark.parametrize("what", ["directory", "lock", "database", "read-only database", "vault"])
def test_files_of_another_user_are_a_clear_error(what: str) -> None:
    async def make(path: Path) -> None:
        async with open_database(path):
            pass

    # Not tmp_path: nobody may not pass through its parents.
    with tempfile.TemporaryDirectory(prefix="edgegc-") as name:
        directory = Path(name)
        path = directory / "edgegc.db"
        trio.run(make, path)
        directory.chmod(0o700 if what == "directory" else 0o777)
        if what != "lock":
            (directory / "lock").chmod(0o666)
        if what == "read-only database":
            path.chmod(0o444)
        if what == "vault":
            (directory / "master.key").write_text("00" * 32)
            (directory / "master.key").chmod(0o600)
        arguments = ("vault", directory) if what == "vault" else ("database", path)
        with running(OPEN_AS_NOBODY, *arguments) as process:
            assert process.stdout is not None
            said = process.stdout.read().decode()
        assert said.startswith(("forbidden ", "unavailable ")), said
        assert name in said
