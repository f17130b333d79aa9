"""What makes a machine fit to measure on: the rules, each with its sentence and its remedy. Reads nothing itself.

``fail``: what is measured now can't be trusted, or can't be measured; ``warn``: it can, but mind this.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.perf import filesystem
from edgegc.perf.validity import OTHERS_SHARE, STOLEN_SHARE, THROTTLED_SHARE

if TYPE_CHECKING:
    from edgegc.perf.cpus import Cpus
    from edgegc.perf.histogram import Histogram
    from edgegc.perf.plan import Load
    from edgegc.perf.surroundings import Surroundings

State = Literal["ok", "warn", "fail"]
MIB: Final = 1 << 20
GIB: Final = 1 << 30
MEMORY_WANTED_BYTES: Final = GIB
"""Server, generator and 10,000 connections, with room for the page cache of both."""
MEMORY_NEEDED_BYTES: Final = 256 * MIB
DISK_WANTED_BYTES: Final = 2 * GIB
"""Scenarios of bundles write and delete several hundred MiB, and copies of the database beside it."""
DISK_NEEDED_BYTES: Final = 256 * MIB
HOT_C: Final = 75.0
"""Small boards slow down from 80 °C on."""
SLOW_FSYNC_S: Final = 0.05
"""Half of what a query may take at the worst: then it is the disk that decides."""
CONNECTIONS: Final = 10_000
"""Of the largest scenario; generator and server hold a file descriptor for each."""
SPARE_FILES: Final = 512
GENERATOR_PER_S: Final = 40_000
"""Against a raw echo: enough to be sure that it is the server that is measured."""
GOOD_CLOCKS: Final = frozenset({"tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "xen"})
"""Read without a system call, or nearly so."""
SLOW_CLOCK_NS: Final = 1_000
"""A clock that takes longer to read costs the server, which reads it several times in a request, a share that shows."""
CLOCKSOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
UNDERVOLTAGE_NOW, CAPPED_NOW, SLOWED_NOW = 1 << 0, 1 << 1, 1 << 2
"""Of a Raspberry Pi's ``get_throttled``; the same from bit 16 on for what was since it was started."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``sentence``: what there is; ``remedy``: what to do, where it is not ``ok``."""

    name: str
    state: State
    sentence: str
    remedy: str | None = None


def processors(chosen: Cpus) -> Check:
    """Whether server and generator have a processor each."""
    if chosen.warning is not None:
        return Check(
            name="processors",
            state="warn",
            sentence=chosen.warning,
            remedy="compare only with runs on the same machine, and trust no rate of a closed load",
        )
    return Check(
        name="processors",
        state="ok",
        sentence=f"the server gets processor {chosen.server}, the generator {chosen.generator}",
    )


def governor(governs: str) -> Check:
    """Whether the processors' speed stays what it is."""
    if governs in ("performance", "none"):
        what = "not governed here" if governs == "none" else "always the highest"
        return Check(name="governor", state="ok", sentence=f"the processors' speed is {what}")
    return Check(
        name="governor",
        state="warn",
        sentence=f"the processors' speed follows the load ({governs}): short measurements are slower than long ones",
        remedy="cpupower frequency-set -g performance, for as long as it is measured",
    )


def other_load(before: Surroundings, after: Surroundings) -> Check:
    """Whether others leave the processors alone."""
    share = max(0.0, (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)) / _available_s(
        before, after
    )
    return Check(
        name="other load",
        state=_worse(share, warn=OTHERS_SHARE / 2, fail=OTHERS_SHARE),
        sentence=f"other processes use {share:.0%} of the processors",
        remedy=None if share <= OTHERS_SHARE / 2 else "see top for which they are, and end or await them",
    )


def stolen(before: Surroundings, after: Surroundings) -> Check:
    """Whether the machine below gives us the processors that it promised."""
    share = (after.stolen_s - before.stolen_s) / _available_s(before, after)
    return Check(
        name="stolen time",
        state=_worse(share, warn=STOLEN_SHARE / 2, fail=STOLEN_SHARE),
        sentence=f"the host of this virtual machine takes {share:.1%} of the processors for others"
        if share
        else "nothing is taken by a host below this machine",
        remedy=None
        if share <= STOLEN_SHARE / 2
        else "measure at another time, or on a machine of your own; repeat (--repeat 5) to see how much it matters",
    )


def heat(before: Surroundings, after: Surroundings, temperature_c: float | None) -> Check:
    """Whether the processors slow down because they are hot."""
    shown = "no sensor tells the temperature" if temperature_c is None else f"{temperature_c:.0f} °C"
    remedy = "let it cool, give it a heat sink or a fan, and measure again"
    if after.hot > before.hot:
        return Check(
            name="heat",
            state="fail",
            sentence=f"the processors slow down because they are hot ({shown})",
            remedy=remedy,
        )
    if temperature_c is not None and temperature_c >= HOT_C:
        return Check(
            name="heat",
            state="warn",
            sentence=f"{shown}: under load it soon slows down because of it",
            remedy=remedy,
        )
    earlier = f"; it has slowed down {after.hot} times since it was started" if after.hot else ""
    return Check(
        name="heat",
        state="warn" if after.hot else "ok",
        sentence=f"{shown}{earlier}",
        remedy=remedy if after.hot else None,
    )


def supply(bits: int | None) -> Check:
    """What a board's firmware says of its power supply."""
    if not bits:
        sentence = "no firmware complains of the power supply" if bits is None else "the power supply holds"
        return Check(name="power", state="ok", sentence=sentence)
    now = bits & (UNDERVOLTAGE_NOW | CAPPED_NOW | SLOWED_NOW)
    return Check(
        name="power",
        state="fail" if now else "warn",
        sentence="the board is held back by its firmware: too little voltage, or too hot"
        if now
        else "since it was started the firmware has held the board back: too little voltage, or too hot",
        remedy="a stronger power supply, a shorter cable, a heat sink",
    )


def memory(available_bytes: int) -> Check:
    """Whether there is memory for server and generator."""
    short = available_bytes < MEMORY_WANTED_BYTES
    return Check(
        name="memory",
        state="fail" if available_bytes < MEMORY_NEEDED_BYTES else "warn" if short else "ok",
        sentence=f"{available_bytes / MIB:,.0f} MiB are free",
        remedy=f"end what is not needed; 'edgegc perf list' says what each scenario takes, {MEMORY_WANTED_BYTES >> 20:,} MiB are enough for all"
        if short
        else None,
    )


def swap(used_bytes: int, swapped_pages: int) -> Check:
    """Whether memory is on a disk."""
    if swapped_pages:
        return Check(
            name="swap",
            state="fail",
            sentence="memory is being swapped right now: everything waits for a disk at times",
            remedy="end what is not needed, then swapoff -a for as long as it is measured",
        )
    if used_bytes:
        return Check(
            name="swap",
            state="warn",
            sentence=f"{used_bytes / MIB:,.0f} MiB are swapped out, and nothing moves",
            remedy="swapoff -a for as long as it is measured",
        )
    return Check(name="swap", state="ok", sentence="nothing is swapped out")


def own_limits(before: Surroundings, after: Surroundings, around: str) -> Check:
    """Whether a control group holds us back ourselves. ``around``: what :func:`edgegc.perf.control_groups.surroundings` says."""
    throttled_s = after.throttled_s - before.throttled_s
    if throttled_s > THROTTLED_SHARE * (after.at_s - before.at_s):
        return Check(
            name="own limits",
            state="fail",
            sentence=f"a control group holds this very process back ({around})",
            remedy="run it outside of the container or service that limits it",
        )
    if "held to" in around:
        return Check(
            name="own limits",
            state="warn",
            sentence=f"this very process is in control groups with limits ({around}): they hold for all that is measured",
            remedy="run it outside of the container or service that limits it, unless that is what is to be measured",
        )
    return Check(name="own limits", state="ok", sentence="no control group limits this process")


def file_descriptors(hard_limit: int) -> Check:
    """Whether as many connections may be open as the largest scenario has."""
    needed = CONNECTIONS + SPARE_FILES
    enough = hard_limit == resource.RLIM_INFINITY or hard_limit >= needed
    shown = "without limit" if hard_limit == resource.RLIM_INFINITY else f"{hard_limit:,}"
    return Check(
        name="open files",
        state="ok" if enough else "warn",
        sentence=f"a process may have {shown} open"
        + ("" if enough else f": too few for load.connections_{CONNECTIONS}"),
        remedy=None
        if enough
        else f"ulimit -Hn {needed * 2}, as root; for a login in /etc/security/limits.conf",
    )


def clock(source: str, read_ns: float) -> Check:
    """Whether the time can be read without it showing."""
    slow = read_ns > SLOW_CLOCK_NS or (source not in GOOD_CLOCKS and source != "unknown")
    return Check(
        name="clock",
        state="warn" if slow else "ok",
        sentence=f"the clock is {source}; to read it takes {read_ns:.0f} ns",
        remedy=f"boot with a better one: cat {CLOCKSOURCE.with_name('available_clocksource')}"
        if slow
        else None,
    )


def disk(directory: Path, free_bytes: int) -> Check:
    """Where the database will lie."""
    if warning := filesystem.warning(directory):
        return Check(
            name="disk",
            state="warn",
            sentence=warning,
            remedy="name a directory on the disk that is to be measured with --dir",
        )
    short = free_bytes < DISK_WANTED_BYTES
    return Check(
        name="disk",
        state="fail" if free_bytes < DISK_NEEDED_BYTES else "warn" if short else "ok",
        sentence=f"{filesystem.mount_of(directory).kind} with {free_bytes / MIB:,.0f} MiB free",
        remedy="make room, or name a directory on another disk with --dir" if short else None,
    )


def fsync(times: Histogram) -> Check:
    """How long a durable write waits for the disk."""
    p50_s, p99_s = times.value_at(50) / 1e9, times.value_at(99) / 1e9
    slow = p99_s > SLOW_FSYNC_S
    return Check(
        name="fsync",
        state="warn" if slow else "ok",
        sentence=f"p50 {p50_s * 1e3:.2f} ms, p99 {p99_s * 1e3:.2f} ms of {times.count}",
        remedy="every write waits for it: this is the card or disk, or what else writes to it"
        if slow
        else None,
    )


def nebula_there(version: str | None) -> Check:
    """Whether scenarios with real nebula can run."""
    if version is None:
        return Check(
            name="nebula",
            state="warn",
            sentence="there is none: lighthouse.* and what needs it can't be measured",
            remedy="apt-get install nebula, or name one with --nebula PATH",
        )
    return Check(name="nebula", state="ok", sentence=version)


def rights(user_id: int) -> Check:
    """Whether scenarios with network namespaces can run."""
    if user_id:
        return Check(
            name="rights",
            state="warn",
            sentence="not root: scenarios with tunnels and network namespaces can't be measured",
            remedy="run it as root",
        )
    return Check(name="rights", state="ok", sentence="root")


def generator_rate(load: Load) -> Check:
    """Whether the generator can ask faster than the server answers."""
    answered = sum(ask.requests for ask in load.asks)
    rate = answered / load.duration_s
    share = min(1.0, load.cpu_s / load.duration_s)
    # Where the echo is the slower one, the generator waits for it.
    able = rate / share if share else rate
    said = f"{rate:,.0f} answers a second of a raw echo, with {share:.0%} of its processor"
    failed = sum(sum(ask.errors.values()) for ask in load.asks) + sum(load.errors.values())
    if failed:
        return Check(
            name="generator",
            state="fail",
            sentence=f"{said}, and {failed} errors",
            remedy="something between two processes of this machine loses requests: a firewall, or too few ports or files",
        )
    if able < GENERATOR_PER_S:
        return Check(
            name="generator",
            state="warn",
            sentence=f"{said}: it could do some {able:,.0f}, where {GENERATOR_PER_S:,} are wanted",
            remedy="a rate that comes near is the generator's; ratios between runs on this machine still hold",
        )
    return Check(name="generator", state="ok", sentence=said)


def _available_s(before: Surroundings, after: Surroundings) -> float:
    return max(after.at_s - before.at_s, 1e-9) * after.cpus


def _worse(share: float, *, warn: float, fail: float) -> State:
    return "fail" if share > fail else "warn" if share > warn else "ok"
