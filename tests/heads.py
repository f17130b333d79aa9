"""Request streams as Hypothesis makes them: plain, odd and hostile ones, for whoever must agree with another reader."""

from __future__ import annotations

from hypothesis import strategies as st

_HEADERS = st.sampled_from(
    [
        b"Accept: */*",
        b"accept-encoding: gzip, br;q=0.5",
        b"User-Agent: edgegc/1 (a; b)",
        b"X-Request-ID: mine-1",
        b"X-Request-ID: not sane",
        b"Connection: keep-alive",
        b"Connection: close",
        b"Cookie: a=1",
        b"Cookie: b=2",
        b"X-Empty:",
        b"X-Tight:1",
    ]
)
_ODD_HEADERS = st.sampled_from(
    [
        b"Host: y",
        b"Connection: Upgrade",
        b"Connection: keep-alive, close",
        b"Connection: x",
        b"Upgrade: h2c",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b"Content-Length: 3",
        b"Content-Length: 3, 3",
        b"Content-Length: +3",
        b"Content-Length: 0x3",
        b"Content-Length: 3 ",
        b"Content-Length:",
        b"Content-Length: -1",
        b"Content-Length: 999999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"X-Space : 1",
        b" X-Folded: 1",
        b"\tfolded",
        b"X-Tab:\t1",
        b"X-Trailing: 1 \t",
        b"X-Control: a\x01b",
        b"X-Return: a\rb",
        b"X-Feed: a\nb",
        b"X-Nul: a\x00b",
        b"X-Latin: \xe9",
        b"X-(Comment): 1",
        b": nameless",
        b"no colon",
        b"X-Long: " + b"x" * 20_000,
    ]
)
_METHODS = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
_ODD_METHODS = st.sampled_from([b"get", b"CONNECT", b"TRACE", b"BREW", b"G\xc9T", b"", b"PRI", b"X" * 40])
_TARGETS = st.sampled_from(
    [b"/", b"/a", b"/a?b=c&d", b"/%41%2f?%", b"//x", b"/plain", b"/stream", b"/nothing"]
)
_ODD_TARGETS = st.sampled_from([b"*", b"http://y/", b"a", b"/a b", b"/\xe9", b"/#", b"/\x7f", b"", b"?a"])
_VERSIONS = st.just(b"HTTP/1.1")
_ODD_VERSIONS = st.sampled_from(
    [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b""]
)
_ODD_ENDS = st.sampled_from([b"\n", b"\r\r\n", b" \r\n", b"\x00\r\n"])
_BODIES = st.binary(max_size=30).map(lambda content: content.replace(b"HTTP", b"http"))


@st.composite
def requests(draw: st.DrawFn, *, odd: bool) -> bytes:
    """Make a request of which, if ``odd``, a thing or two is not as usual."""

    def one(usual: st.SearchStrategy[bytes], unusual: st.SearchStrategy[bytes]) -> bytes:
        return draw(unusual if odd and draw(st.integers(0, 9)) == 0 else usual)

    line = b" ".join(
        (one(_METHODS, _ODD_METHODS), one(_TARGETS, _ODD_TARGETS), one(_VERSIONS, _ODD_VERSIONS))
    )
    lines = [line, *([] if odd and draw(st.integers(0, 19)) == 0 else [b"Host: x"])]
    lines += [one(_HEADERS, _ODD_HEADERS) for _ in range(draw(st.integers(0, 4)))]
    body = draw(_BODIES)
    if body:
        if odd and draw(st.booleans()):
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            off = draw(st.sampled_from([0, 0, 0, 1, -1])) if odd else 0
            lines.append(b"Content-Length: %d" % max(0, len(body) + off))
    ends = [one(st.just(b"\r\n"), _ODD_ENDS) for _ in range(len(lines) + 1)]
    return b"".join(part + end for part, end in zip([*lines, b""], ends, strict=True)) + body


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Make what a client sends, in the pieces that it sends it in: requests one after another, perhaps damaged."""
    odd = draw(st.booleans())
    stream = b"".join(draw(st.lists(requests(odd=odd), min_size=1, max_size=4)))
    if odd:
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(stream)))
            inserted = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\x00", b":", b"\xff", b"a"]))
            stream = stream[:at] + inserted + stream[at + draw(st.integers(0, 1)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return [piece for piece in pieces if piece]
