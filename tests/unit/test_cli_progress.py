"""How far something is: on a terminal and late, else not at all."""

from __future__ import annotations

import io
import sys
import time
from typing import TYPE_CHECKING

import pytest

from edgegc.cli import progress
from edgegc.cli.options import Common

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make_stderr_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: pytest puts its own in place when a test begins."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything take long enough."""
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def everything(common: Common) -> None:
    """Use all there is, for as long as a thread that draws at all would need to begin."""
    with progress.bar(common, "copying", 2 * MIB) as advance, progress.spinner(common, "compacting"):
        advance(MIB)
        with progress.count(common, "nodes current") as show:
            show(1, 2)


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)
    everything(Common())
    assert stderr.getvalue() == ""


@pytest.mark.usefixtures("slow")
def test_what_takes_long_shows_how_far_it_is_and_then_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)
    with progress.bar(Common(), "copying the database", 2 * MIB, then="checking it") as advance:
        advance(MIB)
        wait_for(lambda: "1.0/2.0 MiB" in stderr.getvalue())
        assert "copying the database" in stderr.getvalue()
        advance(MIB)
        wait_for(lambda: "checking it" in stderr.getvalue())


@pytest.mark.usefixtures("slow")
def test_nodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)
    with progress.count(Common(), "nodes current") as show:
        show(3, 7)
        wait_for(lambda: "3/7" in stderr.getvalue())


@pytest.mark.usefixtures("slow")
def test_what_nobody_knows_the_length_of_shows_the_time_it_took_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)
    with progress.spinner(Common(), "compacting"):
        wait_for(lambda: "0:00:01" in stderr.getvalue())
    assert "compacting" in stderr.getvalue()
    assert "%" not in stderr.getvalue()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("common", [Common(quiet=True), Common(output="json")])
def test_who_wants_quiet_or_json_sees_none(common: Common, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)
    everything(common)
    assert stderr.getvalue() == ""


@pytest.mark.usefixtures("slow")
def test_a_pipe_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    everything(Common())
    assert pipe.getvalue() == ""


@pytest.mark.usefixtures("slow")
def test_an_error_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = make_stderr_a_terminal(monkeypatch)

    def fail() -> None:
        with progress.spinner(Common(), "compacting"):
            wait_for(lambda: "compacting" in stderr.getvalue())
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    shown = stderr.getvalue()
    time.sleep(3 * progress.DRAWN_EVERY_S)
    assert stderr.getvalue() == shown
