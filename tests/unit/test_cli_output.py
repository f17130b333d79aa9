"""Tables that fit, and cells that cannot harm a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from edgegc.cli.output import Column, ago, cell, duration, layout

COLUMNS = (
    Column("NAME", flexible=True),
    Column("IP"),
    Column("GROUPS", flexible=True, rank=2),
    Column("VERSION", right=True),
    Column("SEEN", rank=1),
)


def test_a_table_without_a_limit_shows_everything() -> None:
    assert layout(COLUMNS, [["pi-7", "10.42.0.2/16", "a, b", "7", "3 s"]], None, color=False) == [
        "NAME  IP            GROUPS  VERSION  SEEN",
        "pi-7  10.42.0.2/16  a, b          7  3 s",
    ]


def test_a_flexible_column_is_squeezed_before_a_column_is_dropped() -> None:
    lines = layout(
        COLUMNS, [["a-name-of-twenty-six-letters", "10.42.0.2/16", "a, b", "7", "3 s"]], 60, color=False
    )
    assert max(map(len, lines)) == 60
    assert lines[0].split() == ["NAME", "IP", "GROUPS", "VERSION", "SEEN"]
    assert "a-name-of-twenty-six-l…" in lines[1]


def test_the_least_important_column_goes_before_a_name_becomes_unreadable() -> None:
    lines = layout(COLUMNS, [["a-rather-long-name", "10.42.0.2/16", "a" * 40, "7", "3 s"]], 48, color=False)
    assert lines == [
        "NAME                IP            VERSION  SEEN",
        "a-rather-long-name  10.42.0.2/16        7  3 s",
    ]


def test_what_must_be_shown_is_squeezed_further_when_nothing_can_go() -> None:
    lines = layout(COLUMNS, [["a-rather-long-name", "10.42.0.2/16", "a, b", "7", "3 s"]], 32, color=False)
    assert lines == ["NAME       IP            VERSION", "a-rather…  10.42.0.2/16        7"]


def test_absent_values_are_dashes_and_booleans_are_words() -> None:
    assert [cell(v) for v in (None, (), "", True, False)] == ["-", "-", "-", "yes", "no"]


def test_control_characters_never_reach_the_terminal() -> None:
    assert cell("evil\x1b[2J\nname") == "evil [2J name"


def test_times_are_told_in_one_unit() -> None:
    now = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
    assert ago(now - timedelta(seconds=12), now=now) == "12 s"
    assert ago(now - timedelta(minutes=3), now=now) == "3 min"
    assert ago(None, now=now) == "never"
    assert duration(3 * 86_400) == "3 d"
