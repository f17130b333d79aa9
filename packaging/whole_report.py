"""Whether the laboratory works: a report of its quick suite is valid by its schema, whole, and nothing in it broke.

    whole_report.py REPORT.json

Says nothing of how fast anything was: a threshold that was missed, or a measurement that a busy machine spoiled, is no finding.
Exit: 0, or 1 with a line for each thing that is wrong.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema

from edgegc.errors import Error
from edgegc.perf import document, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Report


def wrong(path: Path) -> Iterator[str]:
    """Say what is wrong with a report, a sentence each."""
    try:
        report = document.read(path)
    except Error as error:
        yield error.message
        return
    schema = json.loads((files("edgegc.perf") / "schema.json").read_text("utf-8"))
    for breach in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(path.read_bytes())):
        yield f"the report is not as schema.json says, at {breach.json_path}: {breach.message}"
    yield from lacking(report, tuple(each.name for each in scenario.chosen(suite="quick")))


def lacking(report: Report, scenarios: tuple[str, ...]) -> Iterator[str]:
    """Say which scenarios are not in a report, and which of its cases did not work.

    What is unavailable counts as well: here everything that the quick suite needs is installed.
    """
    if report.partial:
        yield "the run was interrupted"
    there = {case.scenario for case in report.cases}
    for name in scenarios:
        if name not in there:
            yield f"{name} is not in the report"
    if not report.references:
        yield "no reference is in the report"
    for case in (*report.references, *report.cases):
        if case.status in ("failed", "unavailable"):
            yield f"{case.name} {case.status}: {'; '.join(case.reasons) or 'no reason is given'}"
        elif not case.measurements:
            yield f"{case.name} was not measured"
        elif any(each.model != "none" and not each.requests for each in case.measurements):
            yield f"{case.name}: no request was answered"


def main() -> int:
    """Print what is wrong, and return the exit code."""
    found = list(wrong(Path(sys.argv[1])))
    for sentence in found:
        print(f"packaging/whole_report.py: {sentence}", file=sys.stderr)
    if not found:
        print("every scenario of the quick suite worked, and the report is valid")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
