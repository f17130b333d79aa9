"""What is read out of nebula's logs, in the words of 1.6, 1.9 and 1.11."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.nebula import logfile
from edgegc.nebula.logfile import LogFile

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (
    'time="2026-11-23T08:13:09Z" level=info msg="Nebula interface is active" build=1.6.1 interface=disabled '
    'network=10.42.0.1/16 udpAddr="0.0.0.0:24242"'
)
JSON = (
    '{"build":"1.9.3","interface":"disabled","level":"info","msg":"Nebula interface is active",'
    '"network":"10.42.0.1/16","udpAddr":{"ip":"0.0.0.0","port":24242}}'
)
SLOG = (
    'time=2026-11-23T08:13:22.147Z level=INFO msg="Nebula interface is active" interface=disabled '
    "networks=[10.42.0.1/16] build=1.11.0 udpAddr=0.0.0.0:24242 boringcrypto=false"
)
SLOG_JSON = (
    '{"time":"2026-11-23T08:17:51Z","level":"INFO","msg":"Nebula interface is active","build":"1.11.0",'
    '"udpAddr":"[::]:24242","boringcrypto":false}'
)


@pytest.mark.parametrize(
    ("line", "version"),
    [(TEXT, (1, 6, 1)), (JSON, (1, 9, 3)), (SLOG, (1, 11, 0)), (SLOG_JSON, (1, 11, 0))],
)
def test_the_ready_line_tells_version_and_port(line: str, version: tuple[int, int, int]) -> None:
    assert logfile.ready_line(["something", line]) == line
    assert logfile.udp_port(line) == 24242
    assert logfile.build(line) == version
    assert not logfile.is_error(line)
    assert logfile.sentence(line) == "Nebula interface is active"


def test_a_ready_line_without_details_is_one_all_the_same() -> None:
    line = "Nebula interface is active"
    assert (logfile.ready_line([line]), logfile.udp_port(line), logfile.build(line)) == (line, None, None)


@pytest.mark.parametrize(
    "line",
    [
        'time="x" level=error msg="Failed to open udp listener" error="unable to bind: \\"taken\\"" queue=0',
        'time=x level=ERROR msg="Failed to open udp listener" queue=0 error="unable to bind: \\"taken\\""',
        '{"level":"error","msg":"Failed to open udp listener","error":"unable to bind: \\"taken\\""}',
        'level=fatal msg="Failed to open udp listener" error="unable to bind: \\"taken\\""',
    ],
)
def test_an_error_is_told_in_its_own_words(line: str) -> None:
    assert logfile.is_error(line)
    assert logfile.sentence(line) == 'Failed to open udp listener: unable to bind: "taken"'


def test_the_complaint_is_the_last_error_unless_something_bare_follows() -> None:
    errors = ['level=error msg="first"', 'level=info msg="fine"', "level=error msg=second"]
    assert logfile.complaint(errors) == "second"
    panic = [*errors, "panic: runtime error", "", "goroutine 1 [running]:"]
    assert logfile.complaint(panic) == "panic: runtime error"
    assert logfile.complaint(["failed to load config: yaml: line 9"]) == "failed to load config: yaml: line 9"
    assert logfile.complaint(['level=info msg="fine"']) is None
    assert logfile.complaint([]) is None


def test_an_old_error_is_not_why_it_ended() -> None:
    quiet = ["level=info msg=fine"] * logfile.RECENT_LINES
    assert logfile.complaint(["level=error msg=old", *quiet]) is None


@given(st.lists(st.text(max_size=200), max_size=30))
def test_no_line_is_too_odd_to_read(lines: list[str]) -> None:
    logfile.ready_line(lines)
    complaint = logfile.complaint(lines)
    assert complaint is None or len(complaint) <= logfile.SENTENCE_LIMIT
    for line in lines:
        logfile.udp_port(line)
        logfile.build(line)
        assert len(logfile.sentence(line)) <= logfile.SENTENCE_LIMIT


def test_lines_are_read_from_an_offset_and_only_when_complete(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "nebula.log")
    assert (log.size(), log.lines_since(0), log.tail(5)) == (0, [], ())
    log.path.write_bytes(b"one\ntwo\nthr")
    assert log.lines_since(4) == ["two"]
    log.path.write_bytes(b"one\ntwo\nthree\n")
    assert log.lines_since(4) == ["two", "three"]
    assert log.tail(2) == ("two", "three")


def test_a_log_that_became_shorter_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "nebula.log")
    log.path.write_bytes(b"new\n")
    assert log.lines_since(1000) == ["new"]


def test_rotation_keeps_one_older_file_and_the_writers_descriptor(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "nebula.log", limit_bytes=10)
    descriptor = log.open_append()
    try:
        os.write(descriptor, b"short\n")
        assert not log.rotate()
        os.write(descriptor, b"and now too long\n")
        assert log.rotate()
        os.write(descriptor, b"again\n")
    finally:
        os.close(descriptor)
    assert log.path.read_bytes() == b"again\n"
    assert (tmp_path / "nebula.log.1").read_bytes() == b"short\nand now too long\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nebula.log", "nebula.log.1"]
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_copied_is_bounded_all_the_same(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "nebula.log", limit_bytes=10)
    log.path.write_bytes(b"x" * 100)
    (tmp_path / "nebula.log.1.partial").mkdir()  # in the way, as a full disk would be
    assert log.rotate()
    assert log.size() == 0
