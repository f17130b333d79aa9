"""A lane and an application that say who answered, and a poll that is held until the test has it woken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

LANE = b"GET /lane HTTP/1.1\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\n\r\n"
PLAIN = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
ODD = b"GET /odd HTTP/1.1\r\nHost:\tx\r\n\r\n"
NEWS = b"news\n"


@dataclass
class FakeHeld:
    """A poll that is answered when the test says so."""

    deadline: float
    wake: Callable[[], None] | None = None
    ended: list[str] = field(default_factory=list)
    changed: bool = False

    def park(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        if self.changed:
            wake()

    def answer(self) -> bytes:
        self.ended.append("answered")
        return NEWS

    def leave(self) -> None:
        if not self.ended:
            self.ended.append("left")


@dataclass
class FakeTaken:
    consumed: int
    answer: Any


class FakeLane:
    def __init__(self) -> None:
        self.stopping = False
        self.held: list[FakeHeld] = []
        self.hold_s = 60.0
        self.changed = False
        self.sources: set[str] = set()

    def take(self, received: bytes | bytearray, *, source: str) -> FakeTaken | None:
        self.sources.add(source)
        if received.startswith(LANE):
            return FakeTaken(len(LANE), b"lane\n")
        if received.startswith(HELD):
            self.held.append(FakeHeld(trio.current_time() + self.hold_s, changed=self.changed))
            return FakeTaken(len(HELD), self.held[-1])
        return None


async def app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0"), (b"x-path", scope["raw_path"])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def paths(heard: bytes) -> list[str]:
    """Return who answered, in order."""
    lines = heard.replace(b"x-path: /", b"").split(b"\n")
    return [line.strip().decode() for line in lines if line.strip() in (b"lane", b"news", b"plain", b"odd")]
