"""A profile: how much of something each stack has. Adds up and names; knows nothing of how it was measured or is shown."""

from __future__ import annotations

import ast
import linecache
import os
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.perf.profiler.recording import Frame, Stack

Unit = Literal["s", "bytes"]

INSTALLED: Final = f"{os.sep}site-packages{os.sep}"
OURS: Final = f"{os.sep}edgegc{os.sep}"
THREAD: Final = "thread "
"""What the names of threads begin with, and of tasks."""
IMPORTING: Final = "<frozen importlib"
TASK: Final = "task "
BOOTSTRAP: Final = f"{os.sep}_bootstrap{os.sep}"
"""In a ``.pyz``, whatever that file is named: what unpacks it."""
OUTER: Final = (
    "<",
    "__main__.py",
    "_bootstrap/",
    "runpy.py",
    "contextlib.py",
    "threading.py",
    "click/",
    "edgegc/__main__.py",
    "edgegc/cli/",
    "edgegc/perf/profiler/",
    "trio/_core/_run.py",
    "trio/_core/_thread_cache.py",
    "trio/_threads.py",
)
"""From the program's beginning to where a thread's work is chosen."""
STANDARD: Final = sysconfig.get_paths()["stdlib"] + os.sep


class Wait(NamedTuple):
    """A place of ours in which a task or thread is, and the function that it waits in there."""

    who: str
    at: Frame
    inner: str


@dataclass
class Profile:
    """Weights by stack: seconds or bytes."""

    unit: Unit
    weights: dict[Stack, float] = field(default_factory=dict)

    def add(self, stack: Stack, weight: float) -> None:
        """Give a stack more."""
        self.weights[stack] = self.weights.get(stack, 0.0) + weight

    @property
    def total(self) -> float:
        """What all stacks have together."""
        return sum(self.weights.values())

    def lines(self) -> list[tuple[Frame, float]]:
        """Return what each line has by itself, most first."""
        found: dict[Frame, float] = {}
        for stack, weight in self.weights.items():
            if stack:
                leaf = _leaf(stack)
                found[leaf] = found.get(leaf, 0.0) + weight
        return _most_first(found)

    def functions(self) -> list[tuple[Frame, float]]:
        """Return what each function has with all that it calls, most first. Its line is 0."""
        found: dict[Frame, float] = {}
        for stack, weight in self.weights.items():
            # Once, also where it calls itself.
            for function in {frame._replace(line=0) for frame in stack if frame.file}:
                found[function] = found.get(function, 0.0) + weight
        return _most_first(found)

    def waits(self) -> list[tuple[Wait, float]]:
        """Return what each place of ours has, by who is there, most first: everything waits in the same few lines of trio."""
        found: dict[Wait, float] = {}
        for stack, weight in self.weights.items():
            places = [frame for frame in stack if frame.file]
            if not places:
                continue
            at = next((frame for frame in reversed(places) if OURS in frame.file), places[-1])
            last = stack[-1] if not stack[-1].file else places[-1]
            who = next((frame.function for frame in stack if frame.function.startswith((THREAD, TASK))), "")
            wait = Wait(who, at, last.function)
            found[wait] = found.get(wait, 0.0) + weight
        return sorted(found.items(), key=lambda each: (-each[1], each[0]))

    def trimmed(self) -> Profile:
        """Return it without how each thread came to its main loop, which all its stacks begin with."""
        found = Profile(unit=self.unit)
        for stack, weight in self.weights.items():
            found.add(_trimmed(stack), weight)
        return found


def named(stack: Iterable[Frame]) -> Stack:
    """Return a stack whose frames have the names of their functions, which are looked up in the source where they lack.

    Frames of the import system are left out where others are within: they stand between who imports and what is imported.
    """
    whole = tuple(stack)
    return tuple(
        frame if frame.function else frame._replace(function=function_at(frame.file, frame.line))
        for number, frame in enumerate(whole, 1)
        if number == len(whole) or not frame.file.startswith(IMPORTING)
    )


@cache
def function_at(file: str, line: int) -> str:
    """Return the name of the function that a line is in, from the source; ``<module>`` outside of all."""
    best, name = 0, "<module>"
    for first, last, function in _functions_of(file):
        if first <= line <= last and first > best:
            best, name = first, function
    return name


def source(frame: Frame) -> str:
    """Return the line's text; empty where there is none."""
    return linecache.getline(frame.file, frame.line).strip() if frame.file and frame.line else ""


def short(file: str) -> str:
    """Return a file's name without where things are installed on this machine: ``trio/_core/_run.py``."""
    if INSTALLED in file:
        return file.rpartition(INSTALLED)[2]
    if file.startswith(STANDARD):
        return file.removeprefix(STANDARD)
    if BOOTSTRAP in file:
        return BOOTSTRAP.lstrip(os.sep) + file.rpartition(BOOTSTRAP)[2]
    if OURS in file:
        return OURS.strip(os.sep) + os.sep + file.partition(OURS)[2]
    return file if file.startswith("<") else os.path.basename(file)


@cache
def _functions_of(file: str) -> list[tuple[int, int, str]]:
    text = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    found: list[tuple[int, int, str]] = []
    todo: list[tuple[ast.AST, str]] = [(tree, "")]
    while todo:
        node, prefix = todo.pop()
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((child.lineno, child.end_lineno or child.lineno, prefix + child.name))
                inner = f"{prefix}{child.name}.<locals>."
            elif isinstance(child, ast.ClassDef):
                inner = f"{prefix}{child.name}."
            todo.append((child, inner))
    return found


def _leaf(stack: Stack) -> Frame:
    """Return the innermost frame that is a place."""
    return next((frame for frame in reversed(stack) if frame.file), stack[-1])


def _trimmed(stack: Stack) -> Stack:
    names = next((number for number, frame in enumerate(stack) if frame.file), len(stack))
    if names and not stack[names - 1].function.startswith(THREAD):
        return stack
    inner = names
    while inner < len(stack) and short(stack[inner].file).startswith(OUTER):
        inner += 1
    # The innermost of them stays: it may be what takes the time.
    return stack[:names] + stack[max(names, inner - 1) :]


def _most_first(found: dict[Frame, float]) -> list[tuple[Frame, float]]:
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))
