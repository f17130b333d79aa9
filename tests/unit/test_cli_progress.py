"""Progress bars: on a terminal and late, else not at all."""

from __future__ import annotations

import io
import sys

import pytest

from edgegc.cli import progress
from edgegc.cli.options import Common

MIB = 1024 * 1024


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(common: Common, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True) -> str:
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress.bar(common, "copying the database", 2 * MIB) as done:
        done(MIB)
        done(MIB)
    return stderr.getvalue()


def test_what_is_quick_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Common(), monkeypatch) == ""


def test_what_takes_long_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    text = shown(Common(), monkeypatch)
    assert "copying the database" in text
    assert "2.0/2.0 MiB" in text


@pytest.mark.parametrize("common", [Common(quiet=True), Common(output="json")])
def test_who_wants_quiet_or_json_sees_none(common: Common, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    assert shown(common, monkeypatch) == ""


def test_a_pipe_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    assert shown(Common(), monkeypatch, terminal=False) == ""
