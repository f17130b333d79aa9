"""Where an answer ends: as h11 says, in whatever pieces it comes."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.perf.generator.framing import HEAD_LIMIT_BYTES, Malformed, Reader

REQUEST = h11.Request(method="GET", target="/", headers=[("Host", "localhost")])

FIELDS = st.lists(
    st.sampled_from(
        [
            b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
            b'ETag: "7"',
            b"X-Content-Length: 5",
            b"X: connection: close",
            b"A:",
        ]
    ),
    max_size=4,
)
CONNECTION = st.sampled_from(
    [b"", b"Connection: close", b"connection: Keep-Alive", b"CONNECTION: x, close", b"Connection: x"]
)
FRAMING = st.sampled_from(["length", "lengths", "chunked", "close"])
STATUS = st.sampled_from([200, 201, 204, 304, 404, 503])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A whole answer that a server may give."""
    status = draw(STATUS)
    body = draw(st.binary(max_size=200))
    fields = draw(FIELDS)
    connection = draw(CONNECTION)
    if connection:
        fields.insert(draw(st.integers(0, len(fields))), connection)
    framing = draw(FRAMING)
    if status in (204, 304):
        # A 304 may say how long the answer would have been.
        if framing == "length":
            fields.append(b"Content-Length: 5")
        content = b""
    elif framing == "length":
        fields.append(
            draw(st.sampled_from([b"Content-Length: %d", b"content-length:%d ", b"CONTENT-LENGTH:\t%d"]))
            % len(body)
        )
        content = body
    elif framing == "lengths":
        fields += [b"Content-Length: %d" % len(body)] * 2
        content = body
    elif framing == "chunked":
        fields.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])))
        content = chunked(draw, body)
    else:
        content = body
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    if version == b"1.0" and framing == "chunked":
        version = b"1.1"
    reason = draw(st.sampled_from([b" OK", b" ", b" Not so good"]))
    early = draw(
        st.sampled_from(
            [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"]
        )
    )
    head = b"\r\n".join([b"HTTP/" + version + b" %d" % status + reason, *fields])
    return early + head + b"\r\n\r\n" + content


def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    written = b""
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from([b"", b";a=b", b" "]))
        written += b"%x" % size + extension + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    return written + b"0\r\n" + draw(st.sampled_from([b"", b"X-Sum: 1\r\n"])) + b"\r\n"


@st.composite
def in_pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    answer = draw(whole)
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(answer) - 1)), max_size=8)))
    return [piece for piece in (answer[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)) if piece]


class Oracle:
    """h11, asked the same."""

    def __init__(self) -> None:
        self.status = 0
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(REQUEST)
        self._http.send(h11.EndOfMessage())

    @property
    def keeps(self) -> bool:
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def feed(self, piece: bytes) -> bool:
        self._http.receive_data(piece)
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return False
            if isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.EndOfMessage):
                return True


@given(in_pieces(answers()))
def test_an_answer_ends_where_h11_says_it_does(pieces: list[bytes]) -> None:
    reader, oracle = Reader(), Oracle()
    for piece in pieces:
        complete = reader.feed(piece)
        assert complete == oracle.feed(piece)
    assert reader.status == oracle.status
    if complete:
        assert reader.keeps == oracle.keeps
    else:
        assert reader.end()
        assert oracle.feed(b"")
        assert not reader.keeps


@given(in_pieces(answers()))
def test_all_of_an_answer_is_counted(pieces: list[bytes]) -> None:
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    interim = sum(piece.count(b"HTTP/1.1 10") for piece in [b"".join(pieces)])
    assert interim or reader.read == sum(map(len, pieces))


@given(st.lists(in_pieces(answers()), min_size=2, max_size=4))
def test_one_answer_leaves_nothing_behind_for_the_next(several: list[list[bytes]]) -> None:
    reader = Reader()
    for pieces in several:
        fresh = Reader()
        for piece in pieces:
            assert reader.feed(piece) == fresh.feed(piece)
        assert (reader.status, reader.keeps, reader.read) == (fresh.status, fresh.keeps, fresh.read)
        assert reader.end() == fresh.end()


@given(in_pieces(answers()), st.data())
def test_what_is_no_answer_is_malformed_or_incomplete_and_nothing_worse(
    pieces: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    reader = Reader()
    try:
        for at in range(0, len(whole), 7):
            reader.feed(bytes(whole[at : at + 7]))
    except Malformed:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 204 No Content\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\na",
    ],
)
def test_bytes_that_nobody_asked_for_are_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed, match="more bytes"):
        Reader().feed(answer)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20x OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 5000,
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * HEAD_LIMIT_BYTES,
    ],
)
def test_what_no_server_of_ours_says_is_malformed(head: bytes) -> None:
    with pytest.raises(Malformed):
        Reader().feed(head)


def test_a_field_is_found_whatever_its_case() -> None:
    reader = Reader()
    reader.feed(b'HTTP/1.1 200 OK\r\neTAG:  "aB" \r\nContent-Length: 0\r\n\r\n')
    assert reader.value(b"etag") == b'"aB"'
    assert reader.value(b"date") is None


def test_a_large_body_costs_no_memory() -> None:
    reader = Reader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    piece = bytes(100_000)
    complete = [reader.feed(piece) for _ in range(10_000)]
    assert complete.index(True) == 9_999
    assert reader.read > 1_000_000_000
