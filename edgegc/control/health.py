"""The health board: one sentence per check, written by whoever knows, read by ``/health/ready``. Memory only."""

from __future__ import annotations

from typing import Literal

from edgegc.model.message import Health as HealthReport

Level = Literal["ok", "degraded", "unavailable"]

OK = "ok"
_RANK: dict[Level, int] = {"ok": 0, "degraded": 1, "unavailable": 2}


class Health:
    """What is known to be wrong with the box."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[Level, str]] = {}

    def set(self, check: str, sentence: str = OK, *, level: Level = "degraded") -> None:
        """Say how a check stands: ``"ok"``, or a sentence with the remedy and how bad it is."""
        self._checks[check] = ("ok", OK) if sentence == OK else (level, sentence)

    def said(self, check: str) -> str | None:
        """Return what was said of a check, None where nothing was."""
        return self._checks[check][1] if check in self._checks else None

    def drop(self, check: str) -> None:
        """Forget a check whose subject is gone."""
        self._checks.pop(check, None)

    def report(self) -> HealthReport:
        """Return all checks; the status is that of the worst."""
        ok: Level = "ok"
        worst = max((level for level, _ in self._checks.values()), key=_RANK.__getitem__, default=ok)
        return HealthReport(
            status=worst, checks={check: text for check, (_, text) in sorted(self._checks.items())}
        )
