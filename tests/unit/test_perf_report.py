"""A report for eyes: what stands where, in which unit, and what must not be in it."""

from __future__ import annotations

import csv as reader
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.perf import units
from edgegc.perf.histogram import Histogram
from edgegc.perf.report import csv, html, markdown, plots, text
from edgegc.perf.report.layout import sparkline
from edgegc.perf.report.summary import of
from edgegc.perf.result import Case, Measurement
from tests.perf_reports import Truth, invalid, report

if TYPE_CHECKING:
    from edgegc.perf.result import Report

VOID = {"meta", "line", "polyline", "br"}


def case(*latencies_ms: list[float]) -> Case:
    return Case(
        scenario="api.version",
        case="",
        proves="",
        status="ok",
        measurements=tuple(
            Measurement(
                repetition=number,
                model="open",
                duration_s=1.0,
                requests=len(some),
                latency=Histogram.of(int(ms * 1e6) for ms in some).counts(),
            )
            for number, some in enumerate(latencies_ms)
        ),
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0031, "3.1ms"),
        (0.00312345, "3.12ms"),
        (0.9996, "1s"),
        (41.2e-6, "41.2µs"),
        (3e-9, "3ns"),
        (0, "0s"),
        (12.0, "12s"),
        (912.0, "15.2min"),
        (None, "n/a"),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_suits(seconds: float | None, shown: str) -> None:
    assert units.duration(seconds) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "0.977 KiB"),
        (52_428_800, "50 MiB"),
        (1 << 40, "1 TiB"),
        (None, "n/a"),
    ],
)
def test_sizes_are_powers_of_1024(amount: float | None, shown: str) -> None:
    assert units.size(amount) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.5, "s", "500ms"),
        (20_000, "per_s", "20,000/s"),
        (1.5, "percent", "1.5 %"),
        (3, "count", "3"),
        (0.57, "ratio", "0.57×"),
        (1536, "bytes", "1.5 KiB"),
        (1536, "bytes_per_s", "1.5 KiB/s"),
        (0.00001, "count", "0.00001"),
    ],
)
def test_figures_are_shown_in_their_unit(value: float, unit: str, shown: str) -> None:
    assert units.figure(value, unit) == shown


def test_percentiles_of_repetitions_are_those_of_all_samples_together() -> None:
    # The average of the two p50 would be 50.5 ms; half of all samples took at most 1 ms.
    summary = of(case([1.0] * 600, [100.0] * 200))
    assert summary.percentiles_ns[50.0] == pytest.approx(1e6, rel=0.001)


def test_p999_is_not_told_of_less_than_ten_thousand_samples() -> None:
    assert of(case([1.0] * 9_999)).percentiles_ns[99.9] is None
    assert of(case([1.0] * 10_000)).percentiles_ns[99.9] is not None


def test_invalid_repetitions_count_for_nothing_where_there_are_valid_ones() -> None:
    good = case([1.0] * 100, [1.0] * 100)
    spoilt = msgspec.structs.replace(
        good,
        measurements=(
            msgspec.structs.replace(good.measurements[0], invalid=("the host was busy",)),
            good.measurements[1],
        ),
    )
    assert of(spoilt).samples == 100
    assert of(spoilt).reasons == ("the host was busy",)


def test_a_case_says_how_many_times_as_much_it_did_as_a_reference_that_took_turns_with_it() -> None:
    (hot, *_) = report(Truth(in_turns=True)).cases
    shown = of(hot).figures["beside plain_quart"]
    # 40 µs a request against 520.
    assert shown.value == pytest.approx(13, rel=0.05)
    assert shown.unit == "ratio"


def test_thresholds_come_before_cases_and_floors_before_goals() -> None:
    shown = text.render(report())
    places = [shown.index(word) for word in ("Floors", "Goals", "References", "Cases")]
    assert places == sorted(places)
    assert re.search(r"^✓ api\.version\[hot-open\] p99 < 10ms +3\.1ms$", shown, re.MULTILINE)
    assert re.search(r"^✗ api\.node_create\[closed\] throughput > 500/s +417/s$", shown, re.MULTILINE)


def test_each_case_has_a_row_and_what_was_not_measured_says_why() -> None:
    shown = text.render(report())
    for each in report().cases:
        assert len(re.findall(rf"^{re.escape(each.name)} ", shown, re.MULTILINE)) == 1
    assert "it needs nebula" in shown


def test_text_is_plain_unless_it_is_for_a_terminal() -> None:
    assert "\x1b" not in text.render(report())
    assert not set("▁▂▃▄▅▆▇█") & set(text.render(report()))
    shown = text.render(report(), color=True, sparklines=True, room=160)
    assert "\x1b[" in shown
    assert set("▁▂▃▄▅▆▇█") & set(shown)


@pytest.mark.parametrize("room", [60, 80, 100, 132])
def test_text_fits_a_terminal(room: int) -> None:
    assert max(map(len, text.render(report(), sparklines=True, room=room).splitlines())) <= room


def test_sparklines_are_on_a_usual_terminal_and_invalid_is_said_on_a_narrow_one() -> None:
    assert set("▁▂▃▄▅▆▇█") & set(text.render(report(), sparklines=True, room=100))
    found = report()
    spoilt = msgspec.structs.replace(found, cases=(invalid(found.cases[0], "busy"), *found.cases[1:]))
    assert "INVALID" in text.render(spoilt, sparklines=True, room=60)


def test_a_measurement_that_cannot_be_trusted_is_marked_as_such() -> None:
    found = report()
    spoilt = msgspec.structs.replace(
        found, cases=(invalid(found.cases[0], "the generator lagged"), *found.cases[1:])
    )
    for shown in (text.render(spoilt), markdown.render(spoilt), html.render(spoilt)):
        assert "INVALID" in shown
        assert "the generator lagged" in shown


def test_words_from_elsewhere_move_no_cursor_and_are_no_markup() -> None:
    evil = "\x1b[2J<script>alert(1)</script>|"
    found = msgspec.structs.replace(report(), warnings=(evil,), versions={"edgegc": evil})
    assert "\x1b" not in text.render(found)
    assert "<script" not in html.render(found)
    assert "<script" not in markdown.render(found)


def test_a_sparkline_is_as_high_as_its_numbers() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == ""


def test_csv_has_a_line_for_each_case_in_base_units() -> None:
    rows = list(reader.DictReader(io.StringIO(csv.render(report()))))
    assert len(rows) == len(report().cases) + len(report().references)
    (row,) = [row for row in rows if row["case"] == "api.version[hot-open]"]
    assert 100e-6 < float(row["p50_s"]) < 250e-6
    (row,) = [row for row in rows if row["case"] == "db.node_insert[1]"]
    assert row["figure:bytes_per_node (bytes)"] == "1412.0"


def test_markdown_tables_have_as_many_cells_in_each_row() -> None:
    cells = 0
    for line in markdown.render(report(device=True)).splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        assert cells in (0, found), line
        cells = found


class Page(HTMLParser):
    """Checks that elements are closed in the order in which they were opened, and collects what is referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.add(str(given["id"]))
        if "href" in given:
            self.links.add(str(given["href"]))
        assert "src" not in given
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(found: Report, base: Report | None = None) -> tuple[Page, str]:
    made = html.render(found, base=base)
    parsed = Page()
    parsed.feed(made)
    assert parsed.open == []
    return parsed, made


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    parsed, made = page(report(device=True), report(Truth(seed=2), device=True))
    assert not parsed.tags & {"script", "img", "link", "iframe"}
    assert "url(" not in made
    assert "http:" not in made.replace("http-equiv", "")
    assert "default-src 'none'" in made


def test_links_of_the_page_lead_to_cases() -> None:
    parsed, _ = page(report(), report(Truth(seed=2)))
    assert {link.removeprefix("#") for link in parsed.links} <= parsed.ids


def test_plots_are_well_formed_and_stay_within_their_frame() -> None:
    _, made = page(report(), report(Truth(seed=2)))
    drawings = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        root = ET.fromstring(drawing)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for line in root.iter("polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height


def test_a_page_with_a_base_draws_both_and_compares_them() -> None:
    _, made = page(report(Truth(seed=2, slower={"api.version": 1.3})), report(Truth(seed=1)))
    assert 'class="base"' in made
    assert "regressions" in made
    _, alone = page(report())
    assert 'class="base"' not in alone


def test_a_curve_of_percentiles_ends_where_ten_samples_are_left() -> None:
    points = plots.percentile_points(Histogram.of(range(1, 2001)))
    assert points[-1][0] <= 2.31
    assert plots.percentile_points(Histogram.of([1, 2, 3])) == ()


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 1e-9], [5e12, 1.0], [0.0, 1e-3]])
def test_odd_numbers_are_drawn_without_an_error(values: list[float]) -> None:
    curve = plots.Curve(side="new", points=tuple(enumerate(values)))
    assert plots.over_time([plots.Panel(title="x", curves=(curve,), label=str)], [(0.0, "start")], str)
    assert plots.percentiles([plots.Curve(side="new", points=((0.0, 1e-6), (0.5, 1e-6)))], str)


def test_a_report_of_nothing_can_be_shown() -> None:
    empty = msgspec.structs.replace(report(), cases=(), references=(), verdicts=(), warnings=(), partial=True)
    assert "interrupted" in text.render(empty)
    assert "interrupted" in markdown.render(empty)
    assert "interrupted" in html.render(empty)
    assert csv.render(empty)
