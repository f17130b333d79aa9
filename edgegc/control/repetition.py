"""Requests that may be sent again (``Idempotency-Key``): what was made once is answered again, not made again.

Runs inside the write that makes it, so that the thing and the answer are kept together or not at all, and of two
equal requests at once the second finds the answer of the first. What takes more than a write asks :func:`found` before
it begins. Knows no HTTP. Only what succeeded is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from edgegc.errors import Conflict
from edgegc.store import kept_answers
from edgegc.store.kept_answers import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.control.write import Write
    from edgegc.model.credential import Repeatable

T = TypeVar("T", bound=msgspec.Struct)

KEPT_S = 86_400

MOST_KEPT = 10_000
"""The oldest go first: nobody fills the disk with answers that are never asked for again."""

_PURPOSE = "kept-answer"


def once(write: Write, kind: type[T], make: Callable[[Write], T]) -> T:
    """Return what ``make`` makes, a ``kind``; or what it made for an equal request of this caller within a day. Conflict."""
    known = found(write, kind)
    if known is not None:
        return known
    made = make(write)
    _keep(write, made)
    return made


def found(write: Write, kind: type[T]) -> T | None:
    """Return what was made for an equal request of this caller within a day. Conflict where that had another body."""
    asked = write.caller.repeatable
    if asked is None:
        return None
    digest = _digest(write, asked)
    kept = kept_answers.get(write.connection, digest)
    if kept is None or kept.expires_at <= write.now:
        return None
    if kept.body_digest != asked.body_digest:
        raise Conflict("Idempotency-Key: it was used with another body before; a new request takes a new key")
    return msgspec.json.decode(
        write.vault.unseal_for(asked.key, _PURPOSE, kept.answer, context=digest.hex()), type=kind
    )


def _keep(write: Write, made: msgspec.Struct) -> None:
    # The answer may hold a token, so it is sealed with a key that takes the sender's own key to derive, and that one is
    # not kept, only a keyed digest of it.
    asked = write.caller.repeatable
    if asked is None:
        return
    digest = _digest(write, asked)
    answer = write.vault.seal_for(asked.key, _PURPOSE, msgspec.json.encode(made), context=digest.hex())
    kept_answers.put(
        write.connection, digest, Kept(asked.body_digest, answer, write.now + KEPT_S), most=MOST_KEPT
    )


def _digest(write: Write, asked: Repeatable) -> bytes:
    return write.vault.digest(_PURPOSE, f"{write.caller.kind}:{write.caller.id} {asked.scope} {asked.key}")
