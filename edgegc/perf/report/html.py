"""A report as one HTML file: no script, nothing from elsewhere, light and dark, from a phone to a wall. Knows no statistics.

With a base report its curves lie under those of the new one, and the comparison is told before the cases.
"""

from __future__ import annotations

from html import escape
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

from edgegc.perf import units
from edgegc.perf.compare import compare
from edgegc.perf.report import comparison as comparisons
from edgegc.perf.report import plots, text
from edgegc.perf.report.layout import plain
from edgegc.perf.report.summary import PERCENTS, Summary, measured, merged, of
from edgegc.perf.result import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgegc.perf.compare import Comparison, Row
    from edgegc.perf.report.plots import Curve, Panel
    from edgegc.perf.result import Case, Measurement, Report, Sample

    Points = tuple[tuple[float, float], ...]

GROUPS: Final = {
    "api": "API: one endpoint at a time",
    "db": "Database",
    "lighthouse": "Lighthouses: real nebula",
    "agent": "Agents: real nebula",
    "load": "Load: many at once",
    "start": "Start and idling",
    "mix": "Mixes",
}
TITLES: Final = {"CPU/REQ": "CPU/request", "PER S": "per s", "RATIO": "ratio"}
HELD: Final = {True: "held", False: "missed", None: "open"}
"""Classes of the style sheet."""
EXPLAINED: Final = (
    (
        "open",
        "arrivals on a schedule; latency counts from the intended time, so that a server that stalls is not spared",
    ),
    ("closed", "each connection asks again when it is answered: how much it can do; latency says little"),
    ("n/a", "too few samples: ten have to lie above a percentile, so p99.9 takes 10,000"),
    ("CPU per request", "of the server and its children, user and system"),
    ("private", "Private_Clean + Private_Dirty: what would be free without this process"),
)


def render(report: Report, *, base: Report | None = None, comparison: Comparison | None = None) -> str:
    """Return the page. ``base``: another report to draw beside it; ``comparison``: of the two, made here if not given."""
    if base is not None and comparison is None:
        comparison = compare(base, report, cross_host=True)
    before = {case.name: case for case in (*base.references, *base.cases)} if base else {}
    body = "\n".join(_body(report, before, base, comparison))
    return _PAGE.format(
        title=escape(f"edgegc {report.versions.get('edgegc', '')}: performance"), style=_STYLE, body=body
    )


def _body(
    report: Report, before: dict[str, Case], base: Report | None, comparison: Comparison | None
) -> Iterator[str]:
    yield from _header(report, base)
    if comparison is not None:
        yield from _comparison(comparison)
    yield from _thresholds(report)
    cases = (*report.references, *report.cases)
    summaries = {case.name: of(case) for case in cases}
    yield from _overview("Cases", [summaries[case.name] for case in report.cases])
    yield from _overview(
        "References, measured in the same run", [summaries[case.name] for case in report.references]
    )
    for group, members in groupby(report.cases, key=lambda case: case.scenario.partition(".")[0]):
        yield f"<h2>{escape(GROUPS.get(group, group))}</h2>"
        for case in members:
            yield from _case(case, summaries[case.name], before.get(case.name))
    if report.references:
        yield "<h2>References</h2>"
        for case in report.references:
            yield from _case(case, summaries[case.name], before.get(case.name))
    yield "<h2>How to read this</h2><dl class='words'>"
    for word, meaning in EXPLAINED:
        yield f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>"
    yield f"</dl><footer>Made from a {SCHEMA} document.</footer>"


def _header(report: Report, base: Report | None) -> Iterator[str]:
    yield f"<header><h1>edgegc {escape(plain(report.versions.get('edgegc', '')))}</h1>"
    if base is not None:
        yield (
            f"<p class='legend'><span class='key new'></span> new {escape(plain(report.versions.get('edgegc', '?')))}"
            f" <span class='key base'></span> base {escape(plain(base.versions.get('edgegc', '?')))}</p>"
        )
    for line in (text.machine(report), text.device(report), text.versions(report), text.made(report)):
        if line:
            yield f"<p>{escape(line)}</p>"
    yield "</header>"
    warnings = [plain(w) for w in report.warnings]
    if report.partial:
        warnings.insert(0, "This run was interrupted: what is missing was not measured.")
    for warning in warnings:
        yield f"<p class='warning'>{escape(warning)}</p>"


def _thresholds(report: Report) -> Iterator[str]:
    if not report.verdicts:
        return
    yield f"<h2>Thresholds</h2><p>{escape(text.told(report.verdicts))}.</p><div class='pair'>"
    for kind, heading in text.HEADINGS.items():
        some = [v for v in report.verdicts if v.kind == kind]
        if not some:
            continue
        yield f"<section><h3>{escape(heading)}</h3><table class='verdicts'>"
        for each in some:
            mark = text.MARKS[each.held][0]
            yield (
                f"<tr class='{HELD[each.held]}'><td title='{HELD[each.held]}'>{mark}</td>"
                f"<td>{escape(each.name)}</td><td class='n'>{escape(plain(each.found))}</td></tr>"
            )
        yield "</table></section>"
    yield "</div>"


def _comparison(comparison: Comparison) -> Iterator[str]:
    state = "missed" if comparison.regressions else "held"
    yield f"<h2>Against the base</h2><p class='verdict {state}'>{escape(comparisons.verdict(comparison))}</p>"
    for remark in comparisons.remarks(comparison):
        yield f"<p class='warning'>{escape(remark)}</p>"
    shown = {heading for heading, _ in comparisons.sections(comparison, every=False)}
    for heading, rows in comparisons.sections(comparison, every=True):
        table = "".join(_compared(rows))
        if heading in shown:
            yield f"<h3>{escape(heading)}</h3>{table}"
        else:
            yield f"<details><summary>{escape(heading)} ({len(rows)})</summary>{table}</details>"
    if comparison.skipped:
        yield f"<details><summary>Not compared ({len(comparison.skipped)})</summary><ul>"
        for each in comparison.skipped:
            yield f"<li>{escape(each.case)}: {escape(plain(each.why))}</li>"
        yield "</ul></details>"


def _compared(rows: Sequence[Row]) -> Iterator[str]:
    yield "<div class='wide'><table><tr>"
    for i, title in enumerate(comparisons.TITLES):
        yield f"<th{_number(i in comparisons.RIGHT)}>{escape(TITLES.get(title, title.lower()))}</th>"
    yield "</tr>"
    for row in rows:
        yield f"<tr class='{row.decision}'>"
        for i, cell in enumerate(comparisons.cells(row)):
            inner = f"<a href='#{_anchor(cell)}'>{escape(cell)}</a>" if i == 1 else escape(cell)
            yield f"<td{_number(i in comparisons.RIGHT)}>{inner}</td>"
        yield "</tr>"
    yield "</table></div>"


def _overview(heading: str, summaries: Sequence[Summary]) -> Iterator[str]:
    if not summaries:
        return
    yield f"<h2>{escape(heading)}</h2><div class='wide'><table class='cases'><tr>"
    for i, title in enumerate(text.TITLES):
        yield f"<th{_number(i in text.RIGHT)}>{escape(TITLES.get(title, title.lower()))}</th>"
    yield "</tr>"
    for summary in summaries:
        yield f"<tr class='{summary.status}'>"
        cells = text.cells(summary)
        for i in range(len(text.TITLES)):
            cell = cells[i] if i < len(cells) else ""
            inner = f"<a href='#{_anchor(cell)}'>{escape(cell)}</a>" if i == 0 else escape(cell)
            yield f"<td{_number(i in text.RIGHT)}>{inner}</td>"
        yield "</tr>"
    yield "</table></div>"


def _case(case: Case, summary: Summary, base: Case | None) -> Iterator[str]:
    yield f"<article id='{_anchor(case.name)}' class='{case.status}'><h3>{escape(case.name)}</h3>"
    yield f"<p>{escape(plain(case.proves))}{' (in one process with the store, not over HTTP)' if case.in_process else ''}</p>"
    if case.status != "ok":
        yield f"<p class='warning'>{escape(text.BROKEN[case.status])}: {escape(plain('; '.join(summary.reasons)))}</p>"
    elif summary.reasons:
        yield f"<p class='warning'>{escape(plain('; '.join(summary.reasons)))}</p>"
    if summary.repetitions:
        yield from _facts(summary)
        drawn = [each for each in _plots(case, base) if each]
        if drawn:
            yield f"<div class='plots'>{''.join(drawn)}</div>"
    yield "</article>"


def _facts(summary: Summary) -> Iterator[str]:
    facts: list[tuple[str, str, str]] = []
    if summary.model != "none":
        facts.append(("load", summary.model, ""))
    facts += [(name.replace("_", " "), _parameter(value), "") for name, value in summary.parameters.items()]
    if summary.repetitions > 1:
        facts.append(("repetitions", str(summary.repetitions), ""))
    if summary.throughput is not None:
        facts.append(("answered", units.rate(summary.throughput), ""))
    if summary.samples:
        facts.append(("samples", f"{summary.samples:,}", ""))
        facts.append(("mean", units.of_ns(summary.mean_ns), ""))
        facts += [(f"p{percent:g}", units.of_ns(summary.percentiles_ns[percent]), "") for percent in PERCENTS]
        facts.append(("max", units.of_ns(summary.max_ns), ""))
    if summary.lag_p99_ns is not None:
        facts.append(
            ("generator’s lag p99", units.of_ns(summary.lag_p99_ns), "how late it sent what was due")
        )
    if summary.errors:
        facts.append(("errors", text.errors(summary), ""))
    if summary.cpu_share is not None:
        facts.append(("CPU", units.percent(summary.cpu_share), "of one core"))
    if summary.cpu_per_request_s is not None:
        facts.append(("CPU per request", units.duration(summary.cpu_per_request_s), ""))
    for name, amount in (
        ("private", summary.private_bytes),
        ("PSS", summary.pss_bytes),
        ("RSS", summary.rss_bytes),
        ("written", summary.written_bytes),
        ("database", summary.database_bytes),
        ("WAL", summary.wal_bytes),
    ):
        if amount:
            facts.append((name, units.size(amount), "in all repetitions" if name == "written" else "at most"))
    if summary.fds:
        facts.append(("fds", str(summary.fds), "at most"))
    if summary.context_switches:
        facts.append(("context switches", f"{summary.context_switches:,}", "in all repetitions"))
    if summary.throttled_s:
        facts.append(("throttled", units.duration(summary.throttled_s), "held back by the control group"))
    figures = list(text.figures(summary))
    if figures:
        yield "<dl class='figures'>"
        for name, value, note in figures:
            yield _fact(name, value, note)
        yield "</dl>"
    yield "<dl class='facts'>"
    for name, value, note in facts:
        yield _fact(name, value, note)
    yield "</dl>"


def _fact(name: str, value: str, note: str) -> str:
    title = f" title='{escape(note, quote=True)}'" if note else ""
    return f"<div{title}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _parameter(value: str | int | float | bool) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return units.significant(value) if isinstance(value, float) else f"{value:,}"
        case _:
            return plain(value)


def _plots(case: Case, base: Case | None) -> Iterator[str]:
    sides: list[tuple[plots.Side, Case]] = [("new", case)]
    if base is not None:
        sides.insert(0, ("base", base))
    curves = [
        plots.Curve(side=side, points=points)
        for side, each in sides
        if (points := plots.percentile_points(merged(measured(each))))
    ]
    yield plots.percentiles(curves, units.duration)
    panels = [
        _panel("answers a second", units.significant, sides, _answers),
        _panel("CPU, % of a core", units.significant, sides, _cpu),
        _panel(
            "private memory", units.size, sides, lambda m: _sampled(m, lambda s: s.private_bytes), binary=True
        ),
        _panel("RSS", units.size, sides, lambda m: _sampled(m, lambda s: s.rss_bytes), binary=True),
        _panel("WAL", units.size, sides, lambda m: _sampled(m, lambda s: s.wal_bytes), binary=True),
    ]
    used = measured(case)
    marks = [(mark.at_s, plain(mark.what)) for mark in used[-1].marks] if used else []
    yield plots.over_time([panel for panel in panels if panel is not None], marks, _seconds)


def _panel(
    title: str,
    label: Callable[[float], str],
    sides: Sequence[tuple[plots.Side, Case]],
    points: Callable[[Measurement], Points],
    *,
    binary: bool = False,
) -> Panel | None:
    curves: list[Curve] = []
    for side, case in sides:
        used = measured(case)
        for number, each in enumerate(used):
            found = points(each)
            if len(found) > 1 and any(y for _, y in found):
                last = number == len(used) - 1
                # Of the base only one repetition is drawn: it is there to be compared with, not to be looked at.
                if last or side == "new":
                    curves.append(plots.Curve(side=side, points=found, faint=not last))
    return plots.Panel(title=title, curves=tuple(curves), label=label, binary=binary) if curves else None


def _answers(measurement: Measurement) -> Points:
    # The count of a second stands in its middle; one that was not measured whole would look like a fall.
    whole = measurement.per_second[: max(int(measurement.duration_s + 0.05), 1)]
    return tuple((second + 0.5, float(count)) for second, count in enumerate(whole))


def _cpu(measurement: Measurement) -> Points:
    return tuple(
        ((one.at_s + other.at_s) / 2, 100 * max(0.0, other.cpu_s - one.cpu_s) / (other.at_s - one.at_s))
        for one, other in pairwise(measurement.samples)
        if other.at_s > one.at_s
    )


def _sampled(measurement: Measurement, which: Callable[[Sample], int]) -> Points:
    return tuple((sample.at_s, float(which(sample))) for sample in measurement.samples)


def _seconds(value: float) -> str:
    return units.duration(value) if value else "0"


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _number(right: bool) -> str:
    return " class='n'" if right else ""


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE: Final = """
:root{--paper:#fbfbfa;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#dfe3e8;--new:#1f6feb;--base:#b26a00;
--good:#1a7f37;--bad:#c4262e;--doubt:#8a6100;--badly:#fdecec;--doubtly:#fff6dd}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1b1f25;--ink:#e4e7eb;--soft:#99a2ad;--line:#313841;
--new:#6cb0ff;--base:#e5a94f;--good:#57c773;--bad:#ff7b78;--doubt:#e6c15c;--badly:#3a2022;--doubtly:#332b15}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1280px;padding:1rem clamp(.75rem,3vw,2rem) 3rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.15rem;margin:2.2em 0 .6em;padding-bottom:.2em;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:.2em 0}p{margin:.25em 0}header p{color:var(--soft);font-size:.92em}a{color:inherit;text-decoration-color:var(--line)}
a:hover{text-decoration-color:currentColor}
.warning{background:var(--doubtly);border-left:3px solid var(--doubt);padding:.4em .7em;margin:.6em 0;border-radius:3px}
.verdict{font-weight:600;padding:.5em .7em;border-radius:3px;border-left:3px solid var(--good);background:var(--card)}
.verdict.missed{border-color:var(--bad);background:var(--badly)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem 2rem}
table{border-collapse:collapse;font-size:.92em}th{text-align:left;font-weight:600;color:var(--soft);font-size:.85em;white-space:nowrap}
th,td{padding:.28em .9em .28em 0;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.wide{overflow-x:auto}.wide table{min-width:100%}.wide td{white-space:nowrap}
.verdicts{width:100%}.verdicts td:first-child{width:1.4em}.verdicts .n{white-space:normal;overflow-wrap:normal}
tr.held td:first-child,tr.better td:first-child,tr.ok td:first-child:not(:has(a)){color:var(--good)}
tr.missed td:first-child,tr.regression td:first-child{color:var(--bad);font-weight:700}
tr.open td:first-child,tr.unsure td:first-child{color:var(--doubt)}
tr.regression{background:var(--badly)}
tr.invalid td,tr.failed td{color:var(--bad)}tr.unavailable td{color:var(--soft)}
.cases td:first-child{position:sticky;left:0;background:var(--paper)}
article{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.9rem 1rem;margin:.8rem 0;scroll-margin-top:1rem}
article:target{outline:2px solid var(--new)}article>p{color:var(--soft)}article>p.warning{color:inherit}
article h3{font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace;font-size:.98rem}
dl{margin:.6rem 0}.facts,.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:.45rem 1rem}
.figures{grid-template-columns:repeat(auto-fill,minmax(150px,1fr))}.figures dd{font-size:1.15em;font-weight:600}
dt{color:var(--soft);font-size:.8em}dd{margin:0;font-variant-numeric:tabular-nums}
.words{display:block}.words dt{font-size:.9em;font-weight:600;color:var(--ink);margin-top:.5em}.words dd{color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:.5rem 1.5rem;align-items:start}
svg{width:100%;max-width:560px;height:auto;display:block;font:10.5px system-ui,sans-serif}
svg text{fill:var(--soft)}svg .title{fill:var(--ink);font-weight:600;font-size:11px}.grid{stroke:var(--line);stroke-width:.7}
polyline{fill:none;stroke-width:1.6;stroke-linejoin:round;vector-effect:non-scaling-stroke}
polyline.new{stroke:var(--new)}polyline.base{stroke:var(--base);stroke-dasharray:5 3}polyline.faint{opacity:.28;stroke-width:1}
.mark line{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 2}
.key{display:inline-block;width:1.6em;height:0;border-top:3px solid var(--new);vertical-align:middle;margin:0 .2em 0 .8em}
.key:first-child{margin-left:0}.key.base{border-top:3px dashed var(--base)}
details{margin:.6em 0}summary{cursor:pointer;color:var(--soft)}footer{margin-top:3rem;color:var(--soft);font-size:.85em}
@media print{body{max-width:none}article{break-inside:avoid}}
"""
