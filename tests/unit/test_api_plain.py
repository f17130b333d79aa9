"""Plain heads: what is read at all is read as h11 reads it, and what h11 would not wait for is not waited for."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given

from edgegc.api import plain
from edgegc.api.plain import Head, Unfit
from tests.fuzz import THOUSANDS
from tests.heads import streams

LIMIT = 16_384
PLAIN = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Request-ID: 7\r\nX-Empty:\r\n\r\n"


def read(stream: bytes) -> Head | Unfit:
    return plain.read(bytearray(stream), limit=LIMIT)


def test_a_plain_head_is_read_and_what_follows_is_not() -> None:
    assert read(PLAIN + b"POST") == Head(
        size=len(PLAIN),
        method="GET",
        target=b"/a?b",
        minor="1",
        headers=[(b"host", b"x"), (b"x-request-id", b"7"), (b"x-empty", b"")],
        length=0,
        keeps=True,
        expects=False,
        request_id=b"7",
    )


@pytest.mark.parametrize("size", range(1, len(PLAIN)))
def test_any_part_of_it_is_incomplete(size: int) -> None:
    assert read(PLAIN[:size]) is Unfit.INCOMPLETE


@pytest.mark.parametrize(
    "lines",
    [
        [b"GET / HTTP/1.1"],
        [b"GET / HTTP/1.1", b"Host: x", b"Host: x"],
        [b"GET / HTTP/1.1", b"Host : x"],
        [b"GET / HTTP/1.1", b"Host: x "],
        [b"GET / HTTP/1.1", b"Host:  x"],
        [b"GET / HTTP/1.1", b"Host: x", b" folded"],
        [b"GET / HTTP/1.1", b"Host: x", b"X-Latin: \xe9"],
        [b"GET / HTTP/1.1", b"Host: x", b"X-Tab: a\tb"],
        [b"GET / HTTP/1.1", b"Host: x", b"Upgrade: h2c"],
        [b"GET / HTTP/1.1", b"Host: x", b"Connection: close, x"],
        [b"GET / HTTP/1.1", b"Host: x", b"Expect: 100-continue"],
        [b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Content-Length: 1"],
        [b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1, 1"],
        [b"POST / HTTP/1.1", b"Host: x", b"Content-Length: +1"],
        [b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1234567890123456789"],
        [b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked"],
        [b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Expect: something"],
        [b"GET / HTTP/1.0", b"Host: x"],
        [b"GET / HTTP/1.0", b"Host: x", b"Connection: close"],
        [b"GET / HTTP/1.2", b"Host: x"],
        [b"get / HTTP/1.1", b"Host: x"],
        [b"CONNECT /x HTTP/1.1", b"Host: x"],
        [b"GET x HTTP/1.1", b"Host: x"],
        [b"GET http://x/ HTTP/1.1", b"Host: x"],
        [b"GET  / HTTP/1.1", b"Host: x"],
        [b"", b"GET / HTTP/1.1", b"Host: x"],
        [b"GET / HTTP/1.1", b"Host: x", b"X-Long: " + b"x" * LIMIT],
        [b"GET / HTTP/1.1", b"Host: x", *[b"a:b"] * (LIMIT // 5 - 6)],
    ],
    ids=lambda lines: b" | ".join(lines)[:60].decode("latin-1"),
)
def test_what_is_not_plain_is_left_to_h11(lines: list[bytes]) -> None:
    assert read(b"\r\n".join([*lines, b"", b""])) is Unfit.ODD


@pytest.mark.parametrize("begun", [b"\r\n", b"\x16\x03\x01", b"GET / HTTP/1.1\n", b"G" * (LIMIT + 1)])
def test_what_begins_oddly_is_not_waited_for(begun: bytes) -> None:
    assert read(begun) is Unfit.ODD


def test_an_old_client_that_would_keep_the_connection_is_taken_at_its_word() -> None:
    head = read(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n")
    assert isinstance(head, Head)
    assert (head.minor, head.keeps) == ("0", True)


@THOUSANDS
@given(streams())
def test_a_head_that_is_read_is_read_as_h11_reads_it(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    found = read(stream)
    if found is Unfit.ODD:
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    connection.receive_data(stream)
    event = connection.next_event()
    if found is Unfit.INCOMPLETE:
        assert event is h11.NEED_DATA
        return
    assert isinstance(found, Head)
    assert isinstance(event, h11.Request)
    assert event.method.decode() == found.method
    assert (event.target, event.http_version) == (found.target, b"1." + found.minor.encode())
    assert list(event.headers) == found.headers
    assert connection.they_are_waiting_for_100_continue == found.expects
    assert connection.trailing_data[0] == stream[found.size :]
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert body == stream[found.size : found.size + found.length]
    complete = len(stream) >= found.size + found.length
    assert isinstance(event, h11.EndOfMessage) == complete
    if complete and found.minor == "1":
        assert (connection.their_state is h11.DONE) == found.keeps
