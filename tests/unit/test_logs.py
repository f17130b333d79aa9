"""Log lines: one event one line, our fields only, repeated ones counted, no secret ever."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from edgegc import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "egn_" + "0123456789abcdef" * 2 + "_" + "Ab-_" * 10 + "xyz"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(format_: str, write: object, root: logging.Logger) -> list[str]:
    stream = io.StringIO()
    logs.configure(level="info", format=format_, stream=stream)  # type: ignore[arg-type]
    write(logging.getLogger("edgegc.test"))  # type: ignore[operator]
    return stream.getvalue().splitlines()


def test_a_json_line_has_the_vocabulary_and_nothing_else(root: logging.Logger) -> None:
    [line] = lines_of(
        "json", lambda log: log.info("node %s", "pi-7", extra={"node_id": "n", "stray": 1}), root
    )
    parsed = json.loads(line)
    assert parsed.pop("time").endswith("Z")
    assert parsed == {"level": "info", "logger": "edgegc.test", "message": "node pi-7", "node_id": "n"}


def test_a_console_line_is_one_line_whatever_the_message_holds(root: logging.Logger) -> None:
    [line] = lines_of("console", lambda log: log.warning("bad\nname\x1b[2J", extra={"reason": "x"}), root)
    assert line.endswith("WARNING bad name [2J reason=x")


def test_a_console_line_does_not_repeat_what_its_message_says(root: logging.Logger) -> None:
    extra = {"method": "GET", "path": "/x", "status": 200, "source": "socket"}
    [line] = lines_of("console", lambda log: log.info("%s %s %s", "GET", "/x", 200, extra=extra), root)
    assert line.endswith("INFO    GET /x 200 source=socket")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_credential_reaches_a_line(format_: str, root: logging.Logger) -> None:
    def write(log: logging.Logger) -> None:
        log.info("got %s", TOKEN)
        log.info("Authorization: Bearer c2VjcmV0", extra={"reason": TOKEN})
        log.info(
            "-----BEGIN NEBULA X25519 PRIVATE KEY-----\nc2VjcmV0\n-----END NEBULA X25519 PRIVATE KEY-----"
        )
        try:
            raise ValueError(TOKEN)
        except ValueError:
            log.exception("it failed")

    text = "\n".join(lines_of(format_, write, root))
    assert TOKEN[12:] not in text
    assert "c2VjcmV0" not in text
    assert "egn_01234567***" in text


def test_auto_is_json_where_no_terminal_is(root: logging.Logger) -> None:
    [line] = lines_of("auto", lambda log: log.info("hello"), root)
    assert json.loads(line)["message"] == "hello"


def test_repeated_lines_are_counted_after_a_burst_and_told_of_in_the_next_window() -> None:
    now = 0.0
    sampler = logs.Sampler(monotonic=lambda: now)

    def line(i: int) -> logging.LogRecord:
        return logging.LogRecord("x", logging.INFO, "", 0, "poll of %s failed", (i,), None)

    passed = [sampler.filter(line(i)) for i in range(logs.BURST + 5)]
    assert passed == [True] * logs.BURST + [False] * 5
    other = logging.LogRecord("x", logging.INFO, "", 0, "something else", (), None)
    assert sampler.filter(other)
    now = logs.WINDOW_S
    record = line(1)
    assert sampler.filter(record)
    assert "poll of 1 failed (5 more like this before)" in logs.ConsoleFormatter().format(record)


def test_a_very_long_message_is_cut(root: logging.Logger) -> None:
    [line] = lines_of("json", lambda log: log.info("x" * 10_000), root)
    assert len(line) < logs.MAX_MESSAGE_CHARACTERS + 200
