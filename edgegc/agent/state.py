"""What an agent remembers of one cluster across power cuts: what is proven, what was tried, the highest version seen.

Knows no bundles and no processes. One small file, replaced atomically and fsynced at each change; between two
changes nothing is written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import trio

from edgegc.errors import Invalid
from edgegc.nebula import files
from edgegc.nebula.process import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.nebula.process import Disk

FORMAT: Final = 1
HISTORY_LENGTH: Final = 50
"""What an operator looks at after a bad week; about 6 KB."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A version is being tried: written before the switch, so that whoever starts after a crash finishes the trial.

    ``back_to``: the last good version, None without one. ``must_reach``: a lighthouse must answer, because one did
    before the switch (or because that is what this version failed at). ``lost`` and ``reason`` are set when the way
    back has been taken: whether it only lost the lighthouses, and the sentence for people.
    """

    version: int
    back_to: int | None
    must_reach: bool
    lost: bool = False
    reason: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was tried and is not proven. ``lost``: it ran, and no lighthouse answered."""

    version: int
    reason: str
    lost: bool
    attempts: int
    at: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log of what was applied when."""

    at: int
    version: int
    what: Literal["applied", "failed"]
    reason: str | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a cluster's versions.

    ``applied``: proven. ``tried``: complete on disk, and given to the applier. ``highest``: the newest whose
    signature was accepted, with its digest: nothing older is accepted, and not the same one with other contents.
    ``server``: the address of the one that answered last, where there are several.
    """

    applied: int | None = None
    tried: int = 0
    highest: int = 0
    highest_digest: str = ""
    trial: Trial | None = None
    failure: Failure | None = None
    server: str | None = None
    history: tuple[Outcome, ...] = ()
    format: int = FORMAT

    def with_outcome(self, outcome: Outcome) -> State:
        """Return this state with a line added to the log."""
        return msgspec.structs.replace(self, history=(*self.history, outcome)[-HISTORY_LENGTH:])


def load(path: Path) -> State:
    """Return the remembered state; a new one where there is none. Blocking.

    Raises Invalid where the file is damaged: starting anew would accept versions that were replaced long ago.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except msgspec.DecodeError as error:
        raise Invalid(f"{path} is damaged ({error}): move it away and join again") from error
    if state.format != FORMAT:
        raise Invalid(f"{path} has format {state.format}, this edgegc knows {FORMAT}: run the newer edgegc")
    return state


def save(path: Path, state: State) -> None:
    """Replace the remembered state, durably. Blocking."""
    files.write_atomic(path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")


class Memory:
    """The state in memory and on disk. Two tasks change different fields of it; changes are made one at a time."""

    def __init__(self, path: Path, *, disk: Disk = in_thread) -> None:
        self.state = State()
        self._path = path
        self._disk = disk
        self._lock = trio.Lock()

    async def recall(self) -> None:
        """Take up what is on disk. Raises as :func:`load` does."""
        self.state = await self._disk(partial(load, self._path))

    async def change(self, **fields: object) -> State:
        """Replace fields, durably, and return the new state.

        On OSError nothing has changed. Once the write has begun it is not cancelled.
        """
        return await self._write(fields, None)

    async def conclude(self, outcome: Outcome, **fields: object) -> State:
        """Replace fields and add a line to the log, in one write."""
        return await self._write(fields, outcome)

    async def _write(self, fields: dict[str, object], outcome: Outcome | None) -> State:
        async with self._lock:
            new = msgspec.structs.replace(self.state, **fields)
            if outcome is not None:
                new = new.with_outcome(outcome)
            if new != self.state:
                await self._disk(partial(save, self._path, new))
                self.state = new
            return new
