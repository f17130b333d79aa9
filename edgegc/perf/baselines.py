"""Reports that are kept to compare later ones with. Knows no statistics.

In a checkout they are files in ``perf/baselines/``, to be committed; elsewhere (the ``.pyz`` on a box) they are in the user's
state directory. Never in the server's data directory, which has to be empty to be initialised.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.perf import document
from edgegc.perf.respawn import PACKAGE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgegc.perf.result import Report

SUFFIX: Final = ".json.gz"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
FINGERPRINT_DIGITS: Final = 8
"""Enough to tell the machines of one project apart."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A kept report, briefly."""

    name: str
    made_at: int
    version: str
    fingerprint: str
    device: str
    suite: str
    repeat: int
    cases: int


def directory(environ: Mapping[str, str] = os.environ, *, root: Path = PACKAGE_ROOT) -> Path:
    """Return where baselines are kept; it may not exist yet."""
    if (root / "pyproject.toml").is_file() and (root / "perf").is_dir():
        return root / "perf" / "baselines"
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "edgegc-perf" / "baselines"


def usual_name(report: Report) -> str:
    """Return ``HOST-VERSION``, with the device where one was emulated."""
    version = re.sub(r"[^A-Za-z0-9._+-]", "-", report.versions.get("edgegc", "unknown"))
    parts = [report.host.fingerprint[:FINGERPRINT_DIGITS], version, *filter(None, [_device(report)])]
    return "-".join(parts).strip("-.")


def save(report: Report, *, name: str | None = None, force: bool = False, into: Path | None = None) -> Path:
    """Keep a report and return its file.

    Raises Invalid for a name that is none or a report that was interrupted, Conflict where there is one of that name.
    """
    name = name or usual_name(report)
    path = _path(name, into or directory())
    if report.partial:
        raise Invalid("the run was interrupted: a baseline has to be whole")
    if path.exists() and not force:
        raise Conflict(
            f"there is a baseline '{name}' already: replace it with --force, or give another --name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    document.write(path, report)
    return path


def load(name: str, *, within: Path | None = None) -> Report:
    """Return the report of that name. Raises NotFound without one."""
    where = within or directory()
    path = _path(name, where)
    if not path.exists():
        raise NotFound(f"no baseline '{name}' in {where}; see: edgegc perf baseline list")
    return document.read(path)


def every(*, within: Path | None = None) -> list[Baseline]:
    """Return all of them, the newest first. A file that is no report is left out."""
    found = []
    for path in sorted((within or directory()).glob(f"*{SUFFIX}")):
        try:
            report = document.read(path)
        except (Invalid, NotFound):
            continue
        found.append(describe(path.name.removesuffix(SUFFIX), report))
    return sorted(found, key=lambda each: -each.made_at)


def describe(name: str, report: Report) -> Baseline:
    """Return the line that a list shows."""
    return Baseline(
        name=name,
        made_at=report.made_at,
        version=report.versions.get("edgegc", "?"),
        fingerprint=report.host.fingerprint[:FINGERPRINT_DIGITS],
        device=_device(report),
        suite=report.suite,
        repeat=report.repeat,
        cases=len(report.cases),
    )


def _device(report: Report) -> str:
    if report.device is None:
        return ""
    return f"{report.device.memory_bytes >> 20}M-{report.device.cpu_percent:g}pct"


def _path(name: str, where: Path) -> Path:
    if not NAME.fullmatch(name):
        raise Invalid(f"'{name}' can't name a baseline: letters, digits and ._+- only, 100 at most")
    return where / f"{name}{SUFFIX}"
