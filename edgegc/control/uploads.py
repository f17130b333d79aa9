"""Uploaded bundles: take one, show and give out the history, go back to an old one. Uploaded clusters only.

An upload is spooled to a nameless file in the data directory while its limits are counted, looked through there, and
then written into the store a piece at a time, so that other writes pass between. Nothing of a refused one is left.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.control import existing, modes, repetition
from edgegc.control.permissions import cluster_of
from edgegc.control.versions import bump_cluster
from edgegc.control.views import bundle_view
from edgegc.errors import Conflict, NotFound, TooLarge, Unavailable, UnsupportedMedia
from edgegc.model.bundle import UploadedBundle
from edgegc.model.credential import with_body
from edgegc.model.message import BundleList, BundleView
from edgegc.nebula import archive, upload
from edgegc.store import bundles, room

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterator

    from edgegc.control.control import Control
    from edgegc.control.permissions import Need
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller

LIMIT_BYTES: Final = archive.DEFAULT_LIMITS.body_bytes
SPOOL_BYTES: Final = 262_144
"""What is gathered before it goes to the disk: a thread for every network packet would cost more than the writing."""
STORE_BYTES: Final = 524_288
"""One piece in the store: another writer waits for at most one of them."""
CLEANING_S: Final = 10.0
COPIES: Final = 4
"""How often an upload is on the disk at once, at most: spooled, twice in the database's log (its room is made there, then
filled), and in the database itself. A disk that it filled would refuse every other write, too."""


class Made(msgspec.Struct, frozen=True):
    """What an upload or activation led to; ``is_new`` False: it is what was active already, and no version moved."""

    view: BundleView
    is_new: bool


async def receive(
    control: Control,
    caller: Caller,
    cluster_id: str | None,
    parts: AsyncIterator[bytes],
    *,
    length: int | None,
) -> Made:
    """Take a bundle and make it the active one, in a new version for the whole cluster.

    ``parts`` is the body, read no further than its limits allow; ``length`` what the client says of it, if anything.
    Conflict in a managed cluster, TooLarge, UnsupportedMedia when it is no gzip, Invalid with a sentence for everything
    else that is wrong with it, TooMany, Unavailable. What is active already is not stored again. It may be sent again under
    its name, and activating as well: :func:`repetition.once`.
    """
    found = await _admitted(control, caller, cluster_id, "admin")
    if length is not None and length > LIMIT_BYTES:
        raise TooLarge(f"the bundle has {length} bytes, {LIMIT_BYTES} are allowed")
    async with control.uploads.turn(found):
        with _spooled(control, LIMIT_BYTES if length is None else length) as spool:
            digest, size = await _receive(parts, spool)
            caller = with_body(caller, bytes.fromhex(digest))
            known = await control.write(caller, lambda write: repetition.found(write, Made))
            if known is not None:
                return known
            spool.seek(0)
            await trio.to_thread.run_sync(upload.check, spool.read)
            return await _store(control, caller, found, spool, digest=digest, size=size)


async def list_(control: Control, caller: Caller, cluster_id: str | None) -> BundleList:
    """Return the bundles that are kept, the newest, which is active, first. Conflict in a managed cluster."""
    found = await _admitted(control, caller, cluster_id, "read")
    history = await control.database.read(lambda connection: bundles.history(connection, found))
    return BundleList(bundles=tuple(bundle_view(each, active=rank == 0) for rank, each in enumerate(history)))


async def get(control: Control, caller: Caller, cluster_id: str | None, version: int) -> UploadedBundle:
    """Return a bundle to download. It may hold a private key, so only an admin gets it. NotFound, Conflict."""
    found = await _admitted(control, caller, cluster_id, "admin")
    return await control.database.read(lambda connection: _get(connection, found, version))


async def delete(control: Control, caller: Caller, cluster_id: str | None, version: int) -> None:
    """Delete a bundle. NotFound; Conflict for the active one, and in a managed cluster."""
    found = await _admitted(control, caller, cluster_id, "admin")

    def job(write: Write) -> None:
        bundle = _get(write.connection, found, version)
        if bundle == bundles.active(write.connection, found):
            raise Conflict(f"version {version} is active: nodes run it; upload or activate another one first")
        bundles.delete(write.connection, bundle)
        write.audit("bundle.delete", f"{found}/{version}")

    await control.write(caller, job)


async def activate(control: Control, caller: Caller, cluster_id: str | None, version: int) -> Made:
    """Make a bundle of the history the active one: a new version with its content. NotFound, Conflict."""
    found = await _admitted(control, caller, cluster_id, "admin")
    keep = control.settings.bundles.keep

    def job(write: Write) -> Made:
        bundle = _get(write.connection, found, version)
        return _make_active(write, bundle, keep=keep, action="bundle.activate")

    return await control.write(caller, lambda write: repetition.once(write, Made, job))


async def _admitted(control: Control, caller: Caller, cluster_id: str | None, need: Need) -> str:
    """Return the uploaded cluster that a call is about, before anything of its body is read."""
    found = cluster_of(control, caller, cluster_id, need)

    def job(connection: sqlite3.Connection) -> None:
        modes.uploaded_only(existing.cluster(connection, found))

    await control.database.read(job)
    return found


@contextmanager
def _spooled(control: Control, size: int) -> Iterator[IO[bytes]]:
    """Open a file without a name: whatever ends us, nothing of it is left on the disk. Unavailable without room."""
    directory = control.settings.data.dir
    try:
        room.require(directory, COPIES * size, what="an upload")
        with tempfile.TemporaryFile(dir=directory, buffering=0) as spool:
            yield spool
    except OSError as error:
        raise Unavailable(
            f"the upload could not be kept for checking: {error.strerror}", retry_after_s=30
        ) from error


async def _receive(parts: AsyncIterator[bytes], spool: IO[bytes]) -> tuple[str, int]:
    """Write a body to the spool, counting; return its digest and size."""
    hasher = hashlib.sha256()
    pending = bytearray()
    size = 0

    def put(piece: bytes) -> None:
        hasher.update(piece)
        left = memoryview(piece)
        while left:
            left = left[spool.write(left) :]

    async for part in parts:
        size += len(part)
        if size > LIMIT_BYTES:
            raise TooLarge(f"the bundle has more than the {LIMIT_BYTES} bytes that are allowed")
        pending += part
        if size == len(pending) and size >= len(archive.GZIP_MAGIC):
            _check_gzip(pending)
        if len(pending) >= SPOOL_BYTES:
            await trio.to_thread.run_sync(put, bytes(pending))
            pending.clear()
    if size == len(pending):
        _check_gzip(pending)
    await trio.to_thread.run_sync(put, bytes(pending))
    return hasher.hexdigest(), size


def _check_gzip(begin: bytearray) -> None:
    # Before the rest is read: who sends something else by mistake hears of it at once.
    if not begin.startswith(archive.GZIP_MAGIC):
        raise UnsupportedMedia("the bundle is not gzip: a tar.gz is expected")


async def _store(
    control: Control, caller: Caller, cluster_id: str, spool: IO[bytes], *, digest: str, size: int
) -> Made:
    keep = control.settings.bundles.keep
    known = await control.database.read(lambda connection: bundles.find_body(connection, cluster_id, digest))
    body_id = known
    made: Made | None = None
    try:
        if body_id is None:
            body_id = await _reserve(control, caller, cluster_id, digest=digest, size=size)
            await _fill(control, caller, cluster_id, body_id, spool, size=size)
        written = body_id

        def make(write: Write) -> Made:
            existing.cluster(write.connection, cluster_id)
            if known is not None and bundles.find_body(write.connection, cluster_id, digest) is None:
                raise Conflict("the bundle with this content was deleted meanwhile; upload it again")
            bundles.finish_body(write.connection, written)
            bundle = UploadedBundle(
                cluster_id=cluster_id,
                version=0,
                body_id=written,
                digest=digest,
                size=size,
                uploaded_at=write.now,
            )
            return _make_active(write, bundle, keep=keep, action="bundle.upload")

        def job(write: Write) -> Made:
            made = repetition.once(write, Made, make)
            if known is None:
                # Where another upload of the same was faster, no bundle has come to have this body.
                bundles.drop_body(write.connection, written)
            return made

        made = await control.write(caller, job)
    finally:
        if known is None and body_id is not None and made is None:
            left = body_id
            with trio.move_on_after(CLEANING_S, shield=True):
                await control.write(caller, lambda write: bundles.drop_body(write.connection, left))
    return made


async def _reserve(control: Control, caller: Caller, cluster_id: str, *, digest: str, size: int) -> int:
    def job(write: Write) -> int:
        existing.cluster(write.connection, cluster_id)
        return bundles.reserve_body(write.connection, cluster_id, digest=digest, size=size)

    return await control.write(caller, job)


async def _fill(
    control: Control, caller: Caller, cluster_id: str, body_id: int, spool: IO[bytes], *, size: int
) -> None:
    spool.seek(0)
    for offset in range(0, size, STORE_BYTES):
        piece = await trio.to_thread.run_sync(spool.read, STORE_BYTES)

        def job(write: Write, offset: int = offset, piece: bytes = piece) -> None:
            # If it was deleted meanwhile, the body's row went with it.
            existing.cluster(write.connection, cluster_id)
            bundles.write_piece(write.connection, body_id, offset=offset, piece=piece)

        await control.write(caller, job)


def _make_active(write: Write, bundle: UploadedBundle, *, keep: int, action: str) -> Made:
    """Give a content its new version, unless it is what is active; forget what is older than the ``keep`` newest."""
    active = bundles.active(write.connection, bundle.cluster_id)
    if active is not None and active.digest == bundle.digest:
        return Made(bundle_view(active, active=True), is_new=False)
    version = bump_cluster(write, bundle.cluster_id)
    made = msgspec.structs.replace(bundle, version=version)
    bundles.insert(write.connection, made)
    for old in bundles.history(write.connection, bundle.cluster_id)[keep:]:
        bundles.delete(write.connection, old)
    write.audit(action, f"{bundle.cluster_id}/{version}")
    return Made(bundle_view(made, active=True), is_new=True)


def _get(connection: sqlite3.Connection, cluster_id: str, version: int) -> UploadedBundle:
    bundle = bundles.get(connection, cluster_id, version)
    if bundle is None:
        raise NotFound(f"no bundle of version {version} is kept")
    return bundle
