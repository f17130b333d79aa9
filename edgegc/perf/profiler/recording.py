"""What a sampler in a measured process writes, and how the suite reads it: lines of text, each stack and place once.

Imports nothing but the standard library: it is loaded into what is measured. A file that ends in the middle of a line, as
that of a killed process does, is read up to there.
"""

from __future__ import annotations

import json
import opcode
import os
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import CodeType

Kind = Literal["cpu", "memory", "blocking"]

SUFFIX: Final = ".samples"
FLUSH_EVERY_S: Final = 1.0
"""A crash loses no more than this; each writing costs the measured process a system call."""


ENTERED: Final = bytes((opcode.opmap["RESUME"], 0))
"""The instruction with which a function begins, as PEP 659 has it since Python 3.11."""


class Frame(NamedTuple):
    """A place in the source. ``file`` is empty for what is none: a thread's name, a task's, that something waits."""

    file: str
    function: str
    line: int


Stack = tuple[Frame, ...]
"""Outermost first."""


class Recorder:
    """Writes samples of this process, whatever thread they are of. Used by one thread or signal handler at a time."""

    def __init__(self, path: Path, *, kind: Kind, words: Iterable[str]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._pending = [f"p {json.dumps({'pid': os.getpid(), 'kind': kind, 'words': list(words)})}"]
        self._written_s = time.monotonic()
        self._frames: dict[Frame, int] = {}
        self._places: dict[tuple[int, int], tuple[int, bool]] = {}
        self._codes: list[CodeType] = []
        """Those that are known by their ids; hashing one looks at all of it."""
        self._stacks: dict[tuple[int, ...], int] = {}

    def frame(self, frame: Frame) -> int:
        """Return the number of a frame, which it is written under."""
        number = self._frames.get(frame)
        if number is None:
            number = self._frames[frame] = len(self._frames)
            self._pending.append(f"f {json.dumps(frame)}")
        return number

    def place(self, code: CodeType, instruction: int) -> int:
        """Return the number of the frame that an instruction is in."""
        return self._place(code, instruction)[0]

    def begins(self, code: CodeType, instruction: int) -> bool:
        """Return whether it is the first thing that a function does: nothing of it has run yet."""
        return self._place(code, instruction)[1]

    def _place(self, code: CodeType, instruction: int) -> tuple[int, bool]:
        key = (id(code), instruction)
        found = self._places.get(key)
        if found is None:
            self._codes.append(code)
            frame = Frame(code.co_filename, code.co_qualname, _line(code, instruction))
            entered = code.co_code[instruction : instruction + 2] == ENTERED
            found = self._places[key] = (self.frame(frame), entered)
        return found

    def add(self, at_ns: int, weight: int, frames: Iterable[int]) -> None:
        """Write a sample: at a time of the monotonic clock, so many nanoseconds, in a stack, outermost first."""
        self._pending.append(f"t {at_ns} {weight} {self._stack(frames)}")

    def add_memory(self, window: int, held: int, grown: int, blocks: int, frames: Iterable[int]) -> None:
        """Write the bytes that a stack held at a window's end, by how many they grew in it, and in how many blocks."""
        self._pending.append(f"m {window} {held} {grown} {blocks} {self._stack(frames)}")

    def say(self, name: str, value: int) -> None:
        """Write a number about the sampler itself; the last one of a name counts."""
        self._pending.append(f"n {name} {value}")

    def flush_if_due(self) -> None:
        """Write what is pending if the last writing is a while ago."""
        if time.monotonic() - self._written_s >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        text = "".join(f"{line}\n" for line in self._pending)
        self._pending.clear()
        self._written_s = time.monotonic()
        remaining = memoryview(text.encode("utf-8", "surrogateescape"))
        while remaining:
            remaining = remaining[os.write(self._fd, remaining) :]

    def _stack(self, frames: Iterable[int]) -> int:
        key = tuple(frames)
        number = self._stacks.get(key)
        if number is None:
            number = self._stacks[key] = len(self._stacks)
            self._pending.append(f"s {' '.join(map(str, key))}")
        return number


class Sample(NamedTuple):
    """``weight`` in nanoseconds."""

    at_ns: int
    weight: int
    stack: Stack


class Held(NamedTuple):
    """Memory that a stack allocated and that was there at the end of a window; ``grown`` since its beginning."""

    window: int
    bytes: int
    grown: int
    blocks: int
    stack: Stack


class Recording:
    """What one process has written."""

    def __init__(self) -> None:
        self.pid = 0
        self.kind: Kind = "cpu"
        self.words: tuple[str, ...] = ()
        self.samples: list[Sample] = []
        self.held: list[Held] = []
        self.numbers: dict[str, int] = {}


def read(path: Path) -> Recording:
    """Return what is in a file so far. Raises OSError."""
    found = Recording()
    frames: list[Frame] = []
    stacks: list[Stack] = []
    whole, _, _ = path.read_bytes().decode("utf-8", "surrogateescape").rpartition("\n")
    for line in whole.splitlines():
        what, _, rest = line.partition(" ")
        match what:
            case "f":
                frames.append(Frame(*json.loads(rest)))
            case "s":
                stacks.append(tuple(frames[int(number)] for number in rest.split()))
            case "t":
                at_ns, weight, stack = map(int, rest.split())
                found.samples.append(Sample(at_ns, weight, stacks[stack]))
            case "m":
                window, held, grown, blocks, stack = map(int, rest.split())
                found.held.append(Held(window, held, grown, blocks, stacks[stack]))
            case "n":
                name, value = rest.split()
                found.numbers[name] = int(value)
            case "p":
                said = json.loads(rest)
                found.pid, found.kind, found.words = said["pid"], said["kind"], tuple(said["words"])
    return found


def _line(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
