"""What a scenario is, and which there are. Knows no scenario's inside: modules of :mod:`edgegc.perf.scenarios` are imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal

from edgegc.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.perf.bench import Bench

Need = Literal["root", "nebula", "namespaces"]
"""What a machine may lack; then the scenario's cases are ``unavailable``, and the report says why."""

GROUPS: Final = ("api", "db", "lighthouse", "agent", "load", "start", "mix")
"""A module of :mod:`edgegc.perf.scenarios` each, with a tuple ``SCENARIOS``."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of the table that ``perf list`` shows.

    ``run`` measures one repetition: each case goes through :meth:`~edgegc.perf.bench.Bench.measure`. It raises
    :class:`~edgegc.errors.Error` for what can't be measured, with the sentence that the report shows.
    """

    name: str
    proves: str
    run: Callable[[Bench], Awaitable[None]]
    cases: tuple[str, ...] = ("",)
    quick_s: float
    """About how long a repetition takes in the quick suite; 0: it is not in it."""
    full_s: float
    ram_bytes: int
    """About what server and generator hold together at most."""
    needs: frozenset[Need] = field(default_factory=frozenset)
    in_process: bool = False
    needs_own: str = ""
    """Why it can't ask a server that runs already: what it does, as a sentence without its end; empty where it can."""
    asked_for: bool = False
    """It is in no suite: only who names it gets it, or whose pattern nothing else matches."""


def every() -> tuple[Scenario, ...]:
    """Import and return all scenarios, in the order of :data:`GROUPS`."""
    return tuple(
        scenario for group in GROUPS for scenario in import_module(f"edgegc.perf.scenarios.{group}").SCENARIOS
    )


def chosen(
    *, suite: Literal["quick", "full"], only: tuple[str, ...] = (), also: tuple[Scenario, ...] = ()
) -> tuple[Scenario, ...]:
    """Return the scenarios whose names match one of the patterns ``only``, and ``also``; without either, a whole suite.

    Raises NotFound for a pattern that matches none.
    """
    known = every()
    named: set[str] = set()
    for pattern in only:
        matching = [each for each in known if fnmatchcase(each.name, pattern)]
        if not matching:
            raise NotFound(f"no scenario matches '{pattern}'; see: edgegc perf list")
        # Who asks for 'load.*' means what is in the suite, and no hour besides.
        named |= {each.name for each in [each for each in matching if not each.asked_for] or matching}
    if only or also:
        named -= {each.name for each in also}
        return (*(each for each in known if each.name in named), *also)
    return tuple(each for each in known if not each.asked_for and (suite == "full" or each.quick_s))
