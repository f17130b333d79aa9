"""Which processor the server gets, and which one the generator. Knows neither.

Two threads of one core take time from each other, and a small core is no measure for a large one: where there is a choice,
both get a core of their own, of the same kind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM: Final = Path("/sys/devices/system/cpu")


class Cpus(msgspec.Struct, frozen=True, kw_only=True):
    """A processor each; ``warning`` says where they are not each other's equal, or not apart."""

    server: int
    generator: int
    warning: str | None = None


def cpus(*, allowed: Iterable[int] | None = None, system: Path = SYSTEM) -> Cpus:
    """Choose two of the processors that we may use (``allowed``: of these)."""
    known = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    # The first one has most of the interrupts.
    server = known[-1]
    others = known[:-1]
    if not others:
        return Cpus(
            server=server,
            generator=server,
            warning="there is one processor: the generator takes its time from the server that it measures",
        )
    apart = [cpu for cpu in others if cpu not in siblings(server, system=system)]
    alike = [cpu for cpu in apart if capacity(cpu, system=system) == capacity(server, system=system)]
    if alike:
        return Cpus(server=server, generator=alike[0])
    if apart:
        warning = "no two processors that are apart are of the same kind: the generator has another kind than the server"
        return Cpus(server=server, generator=apart[0], warning=warning)
    warning = (
        "the only two processors are threads of one core: generator and server take time from each other"
    )
    return Cpus(server=server, generator=others[0], warning=warning)


def siblings(cpu: int, *, system: Path = SYSTEM) -> frozenset[int]:
    """Return the processors that are threads of the same core, itself included."""
    try:
        text = (system / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return frozenset({cpu})
    return frozenset(parse_list(text))


def capacity(cpu: int, *, system: Path = SYSTEM) -> int:
    """Return how much a processor can do beside the machine's best (1024); 0 where the kernel does not say."""
    try:
        return int((system / f"cpu{cpu}" / "cpu_capacity").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def parse_list(text: str) -> list[int]:
    """Return the numbers of a list as the kernel writes them: ``0-2,5``."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found
