"""Restoring a backup into a data directory that nobody serves: checked first, then all of it or nothing.

Its database goes on where nodes can follow it: with versions above any that they can have accepted, and away from the
addresses that were given out last. Blocking: there is no daemon to disturb. Knows no terminal.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc import errors
from edgegc.control.callers import system_caller
from edgegc.control.reconcile import MASTER_KEY as KNOWN_KEY
from edgegc.control.write import Write
from edgegc.model.message import rfc3339
from edgegc.store import audit, backup_file, bundles, clusters, meta, room
from edgegc.store.backup_file import BadBackup
from edgegc.store.gate import RESTORING_FILE, check_database, lock_data_directory, open_unused
from edgegc.store.migrations import bring_up_to_date, released_plan, user_version
from edgegc.store.snapshot import faults, fsync
from edgegc.store.vault import Vault, parse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VERSIONS_AHEAD: Final = 1_000_000
"""What every cluster's version is raised by: more changes than any box makes between two backups."""
ADDRESSES_AHEAD: Final = 4096
"""How far allocation moves on, at most: nodes that enrolled after the backup keep their certificates, and the restored
database does not know their addresses."""
STAGING: Final = ".restore"
OPERATOR_TOKEN: Final = "operator.token"  # noqa: S105  a name, not a secret
PLAN: Final = "quickstart.json"
OWNED: Final = (
    *backup_file.NAMES,
    f"{backup_file.DATABASE}-wal",
    f"{backup_file.DATABASE}-shm",
    OPERATOR_TOKEN,
    PLAN,
)
"""What belongs to a control plane, and is never overwritten unasked."""
STAYING: Final = (backup_file.TLS_KEY, backup_file.TLS_CERTIFICATE, backup_file.SETTINGS, OPERATOR_TOKEN)
"""What a control plane keeps when its own database is put back by a backup that does not hold it."""


class ClusterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster in a backup."""

    id: str
    name: str
    version: int
    nodes: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a database that was checked. ``newest_change_at``: when the last write was made, Unix seconds."""

    schema_version: int
    clusters: tuple[ClusterFacts, ...]
    newest_change_at: int | None
    master_key: str | None
    """Fingerprint of the key that its secrets are sealed with."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did. ``replaced``: where what was there before is kept; None where there was nothing."""

    into: Path
    created_at: datetime | None
    clusters: tuple[ClusterFacts, ...]
    replaced: Path | None
    tls_key: bool
    """Whether the restored box shows the key that nodes have pinned."""


def examine(database: Path) -> Facts:
    """Check a database that nobody has open, and say what is in it.

    Raises BadBackup where it fails a check or is not ours; Conflict for one of a newer edgegc.
    """
    try:
        if not check_database(database, released_plan()):
            raise BadBackup(f"{database} is empty")
        with closing(open_unused(database)) as connection:
            wrong = faults(connection)
            if wrong:
                raise BadBackup(f"the database is damaged: {'; '.join(wrong[:10])}")
            rows = connection.execute("SELECT id, name, version, node_count FROM clusters ORDER BY name, id")
            return Facts(
                schema_version=user_version(connection),
                clusters=tuple(ClusterFacts(id=i, name=n, version=v, nodes=c) for i, n, v, c in rows),
                newest_change_at=audit.newest_at(connection),
                master_key=meta.get(connection, KNOWN_KEY),
            )
    except sqlite3.Error as error:
        raise BadBackup(f"the database can't be read: {error}") from error
    except errors.Invalid as error:
        raise BadBackup(error.message) from error


def check_key(facts: Facts, key: bytes, *, name: str) -> None:
    """Raise BadBackup unless the content of a ``master.key`` is what the database was made with."""
    try:
        fingerprint = Vault(parse_key(key, name=name)).fingerprint()
    except errors.Invalid as error:
        raise BadBackup(error.message) from error
    if facts.master_key is not None and fingerprint != facts.master_key:
        raise BadBackup(f"{name} is not the key that this database was made with")


def verify(
    path: Path, scratch: Path, *, done: Callable[[int], None] = lambda _: None
) -> tuple[Facts, backup_file.Unpacked]:
    """Prove that a backup is whole and opens. ``scratch``: an empty directory with room for the database.

    Raises BadBackup, Conflict, OSError.
    """
    unpacked = backup_file.unpack(path, scratch, done=done)
    facts = examine(unpacked.database)
    key = unpacked.small.get(backup_file.MASTER_KEY)
    if key is not None:
        check_key(facts, key, name=backup_file.MASTER_KEY)
    return facts, unpacked


def restore(
    path: Path,
    into: Path,
    *,
    master_key: Path | None = None,
    force: bool = False,
    now: int,
    done: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Make ``into`` the data directory that ``path`` is a backup of.

    ``master_key``: for a backup without secrets; else the key that lies in ``into``. With ``force`` what is there is
    moved aside, never deleted. A backup without its key, as a copy of the database alone is, leaves the control plane
    that it was made from the keys and settings that it does not hold: its nodes have pinned one of them.

    Killed at any moment it leaves what was there, or a directory that the daemon refuses until the restore is run again.
    Raises Conflict where something is there or the directory is in use, BadBackup, Invalid without a key, Unavailable
    without room, OSError.
    """
    if not into.exists():
        into.mkdir(parents=True)
        # Lighthouses' users pass through; everything secret is 0600 besides.
        into.chmod(0o711)
    with lock_data_directory(into):
        marker = into / RESTORING_FILE
        if not force and not marker.exists():
            _refuse_to_overwrite(into)
        staging = into / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        room.require(into, path.stat().st_size, what="restoring")
        staging.mkdir(mode=0o700)
        try:
            facts, unpacked = verify(path, staging, done=done)
            own_keys = _own_keys(into)
            key = _key(unpacked, facts, master_key, own_keys)
            check_key(facts, key, name=str(master_key or backup_file.MASTER_KEY))
            try:
                _go_on(unpacked.database, key, above=_versions_there(into), now=now)
            except sqlite3.Error as error:
                raise errors.Unavailable(
                    f"the restored database could not be written: {error}; nothing was changed"
                ) from error
            restored = examine(unpacked.database)
            _lay_down(staging, {**unpacked.small, backup_file.MASTER_KEY: key})
            same_box = bool(own_keys) and key.strip() == own_keys[0].strip()
            staying = _staying(unpacked) if same_box else frozenset[str]()
            marker.touch(mode=0o600)
            fsync(into)
            replaced = _move_aside(into, staying, now=now)
            _put_in_place(staging, into)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        marker.unlink(missing_ok=True)
        fsync(into)
    return Restored(
        into=into,
        created_at=_time_of(unpacked, facts),
        clusters=restored.clusters,
        replaced=replaced,
        tls_key=backup_file.TLS_KEY in unpacked.small or backup_file.TLS_KEY in staying,
    )


def _refuse_to_overwrite(into: Path) -> None:
    there = [name for name in OWNED if (into / name).exists()]
    if there:
        raise errors.Conflict(
            f"{into} holds {', '.join(there)} already: nothing was changed; restore --into another directory, "
            "or add --force, which moves what is there aside"
        )


def _own_keys(into: Path) -> list[bytes]:
    """Return the directory's own key, then those that restores have moved aside, the newest first: perhaps one that was
    interrupted.
    """
    aside = sorted(into.glob(f"replaced-*/{backup_file.MASTER_KEY}"), reverse=True)
    return [path.read_bytes() for path in (into / backup_file.MASTER_KEY, *aside) if path.exists()]


def _key(unpacked: backup_file.Unpacked, facts: Facts, given: Path | None, own: list[bytes]) -> bytes:
    """Return the key to go on with: the one given, else the backup's, else one of the directory's own.

    Whether it fits is for the caller to check.
    """
    if given is not None:
        return given.read_bytes()
    held = unpacked.small.get(backup_file.MASTER_KEY)
    if held is not None:
        return held
    if not own:
        raise errors.Invalid(
            "the backup holds no master.key, and the database can't be used without: name it with --master-key FILE"
        )
    return next((key for key in own if _fits(facts, key)), own[0])


def _fits(facts: Facts, key: bytes) -> bool:
    try:
        check_key(facts, key, name=backup_file.MASTER_KEY)
    except BadBackup:
        return False
    return True


def _staying(unpacked: backup_file.Unpacked) -> frozenset[str]:
    """Return what the control plane that a backup was made from keeps: of a complete one nothing, it holds all there was."""
    if backup_file.MASTER_KEY in unpacked.small:
        return frozenset()
    return frozenset(STAYING) - unpacked.small.keys()


def _versions_there(into: Path) -> Mapping[str, int]:
    """Return the versions of what is replaced, now or by earlier restores, as far as it can still be read.

    Nodes have seen those too: the same backup restored twice must not give the same versions twice.
    """
    highest: dict[str, int] = {}
    for database in (into / backup_file.DATABASE, *into.glob(f"replaced-*/{backup_file.DATABASE}")):
        try:
            if not database.exists():
                continue
            with closing(open_unused(database)) as connection:
                for cluster_id, version in connection.execute("SELECT id, version FROM clusters"):
                    highest[cluster_id] = max(version, highest.get(cluster_id, 0))
        except sqlite3.Error:
            continue  # It may be what is wrong with it that made somebody restore.
    return highest


def _go_on(database: Path, key: bytes, *, above: Mapping[str, int], now: int) -> None:
    """Bring a restored database to this edgegc's schema, and let it go on where nodes can follow."""
    vault = Vault(parse_key(key, name=backup_file.MASTER_KEY))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        # It is a copy already: nothing is kept of how it was before.
        bring_up_to_date(connection, released_plan(), backups=None)
        connection.execute("BEGIN IMMEDIATE")
        raised = clusters.raise_all_versions(connection, above=above, by=VERSIONS_AHEAD, at=now)
        for cluster in clusters.all_(connection):
            if cluster.mode == "uploaded":
                bundles.renumber_active(connection, cluster.id, raised[cluster.id])
                continue
            size = IPv4Network(cluster.network_cidr).num_addresses
            cursor = clusters.address_cursor(connection, cluster.id)
            ahead = min(ADDRESSES_AHEAD, size // 4)
            clusters.set_address_cursor(connection, cluster.id, (cursor + ahead) % size)
        write = Write(connection, caller=system_caller(), now=now, vault=vault)
        write.audit("restore", None)
        connection.execute("COMMIT")


def _lay_down(staging: Path, small: Mapping[str, bytes]) -> None:
    for name, content in small.items():
        path = staging / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for name in (backup_file.DATABASE, ".", "tls"):
        if (staging / name).exists():
            fsync(staging / name)


def _move_aside(into: Path, staying: frozenset[str], *, now: int) -> Path | None:
    there = [name for name in OWNED if name not in staying and (into / name).exists()]
    if not there:
        return None
    aside = _free_name(into / time.strftime("replaced-%Y%m%dT%H%M%SZ", time.gmtime(now)))
    aside.mkdir(mode=0o700)
    for name in there:
        target = aside / name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        (into / name).rename(target)
    for directory in _directories(aside):
        fsync(directory)
    return aside


def _put_in_place(staging: Path, into: Path) -> None:
    for name in reversed(backup_file.NAMES):  # the database last
        if (staging / name).exists():
            (into / name).parent.mkdir(mode=0o700, exist_ok=True)
            (staging / name).rename(into / name)
    for directory in (into / "tls", into):
        if directory.exists():
            fsync(directory)


def _directories(top: Path) -> Iterator[Path]:
    yield from (path for path in top.rglob("*") if path.is_dir())
    yield top


def _free_name(path: Path) -> Path:
    free, number = path, 2
    while free.exists():
        free, number = path.with_name(f"{path.name}-{number}"), number + 1
    return free


def _time_of(unpacked: backup_file.Unpacked, facts: Facts) -> datetime | None:
    """Return as of when the backup is: its own word for it, else its newest change."""
    if unpacked.manifest is not None:
        return unpacked.manifest.created_at
    return None if facts.newest_change_at is None else rfc3339(facts.newest_change_at)
