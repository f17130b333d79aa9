"""Logging for the operator: stdlib ``logging``, one event one line, JSON or console, fixed field names.

Fields go in ``extra=`` and only those of :data:`FIELDS` are written. Knows nothing of what is logged, except how
our credentials look: none of them ever reaches a line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = (
    "tenant_id",
    "cluster_id",
    "node_id",
    "version",
    "pid",
    "port",
    "duration_ms",
    "request_id",
    "method",
    "path",
    "status",
    "source",
    "reason",
)
"""The field vocabulary, in the order in which they are written."""

BURST = 10
"""Lines of one message that pass in a window before the rest are only counted: enough to see a pattern."""
WINDOW_S = 60.0
MAX_TRACKED = 1_000
"""Messages counted at once; message templates are few, so passing this means that someone formats before logging."""
MAX_MESSAGE_CHARACTERS = 4_000
"""A line that a peer can influence does not fill the disk."""

SECRET = re.compile(r"\b(eg[nka]_[0-9A-Za-z]{1,8})[0-9A-Za-z_-]{8,}|(?<=Bearer )(?!eg[nka]_)\S+")
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)", re.DOTALL
)


def configure(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send every log line of the process to ``stream`` (stderr), replacing what was configured before.

    ``auto`` is console on a terminal and JSON elsewhere.
    """
    target = sys.stderr if stream is None else stream
    console = format == "console" or (format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(ConsoleFormatter() if console else JsonFormatter())
    handler.addFilter(Sampler())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Their INFO is about themselves, or repeats our own line.
    for name in ("hypercorn.error", "hypercorn.access", "quart.app", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def redact(text: str) -> str:
    """Return ``text`` with every credential of ours cut to what identifies it."""
    text = SECRET.sub(lambda match: f"{match[1] or ''}***", text)
    return PRIVATE_KEY.sub("***private key***", text)


class Sampler(logging.Filter):
    """Lets :data:`BURST` lines of one message through per :data:`WINDOW_S`, then counts; the next one let through says how many.

    A message is its logger, level and template, so that ids in the arguments don't make each line a new message.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._seen: dict[tuple[str, int, str], _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        now = self._monotonic()
        key = (record.name, record.levelno, str(record.msg))
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= MAX_TRACKED:
                self._seen.pop(next(iter(self._seen)))
            seen = self._seen[key] = _Seen(now)
        if now - seen.since >= WINDOW_S:
            if seen.suppressed:
                record.suppressed = seen.suppressed
            seen.since, seen.passed, seen.suppressed = now, 0, 0
        if seen.passed < BURST:
            seen.passed += 1
            return True
        seen.suppressed += 1
        return False


class _Seen:
    __slots__ = ("passed", "since", "suppressed")

    def __init__(self, since: float) -> None:
        self.since = since
        self.passed = 0
        self.suppressed = 0


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time level logger message``, then fields, then ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= _fields(record)
        traceback = _traceback(self, record)
        if traceback:
            line["error"] = traceback
        return redact(json.dumps(line, ensure_ascii=False, default=str))


class ConsoleFormatter(logging.Formatter):
    """For eyes: time, level, message, then ``name=value``; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = _message(record)
        said = message.split()  # a person need not read it twice
        fields = "".join(
            f" {name}={value}" for name, value in _fields(record).items() if str(value) not in said
        )
        traceback = _traceback(self, record)
        line = f"{_time(record)} {record.levelname:<7} {message}{fields}"
        return redact(
            "".join(c if c.isprintable() else " " for c in line) + (f"\n{traceback}" if traceback else "")
        )


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        + f"{int(record.msecs):03d}Z"
    )


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[:MAX_MESSAGE_CHARACTERS] + "…"
    suppressed = getattr(record, "suppressed", 0)
    return f"{message} ({suppressed} more like this before)" if suppressed else message


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found = vars(record)
    return {name: found[name] for name in FIELDS if found.get(name) is not None}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""
