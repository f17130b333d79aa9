"""Which heads the lane reads, and what it takes from them; all others it leaves to others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.api import version_head
from edgegc.api.version_head import Asked, Report
from tests.fuzz import THOUSANDS, mutated

TOKEN = "egn_" + "0123456789abcdef" * 2 + "_" + "aZ9_-" * 8 + "xyz"
LINE = "GET /api/v1/config/version HTTP/1.1"
HOST, BEARER = "Host: box", f"Authorization: Bearer {TOKEN}"
NOTHING = Asked(
    current=None,
    awaited=None,
    wait_s=0.0,
    if_none_match=None,
    report=None,
    request_id=None,
    says_kept=False,
)


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def line(query: str, minor: int = 1) -> str:
    return f"GET /api/v1/config/version{query} HTTP/1.{minor}"


def read(*lines: str, behind_proxies: bool = False) -> Asked | None:
    found = version_head.read(head(*lines), behind_proxies=behind_proxies)
    if found is None:
        return None
    assert found[0] == TOKEN
    return found[1]


@pytest.mark.parametrize(
    ("query", "current", "wait_s"),
    [
        ("", None, 0),
        ("?current=7", 7, 0),
        ("?current=0&wait=0", 0, 0),
        ("?current=999999999999999&wait=110", 999_999_999_999_999, 110),
        ("?wait=54.3187212&current=12", 12, 54.3187212),
        ("?wait=0.5", None, 0.5),
    ],
)
def test_a_plain_query_is_read(query: str, current: int | None, wait_s: float) -> None:
    asked = read(line(query), HOST, BEARER)
    assert asked is not None
    assert (asked.current, asked.awaited, asked.wait_s) == (current, current, wait_s)


def test_what_the_route_looks_at_is_taken_and_what_it_does_not_is_harmless() -> None:
    asked = read(
        LINE,
        "HOST: [2001:db8::1]:8443",
        "User-Agent: curl/8.5.0",
        "accept: */*",
        "Accept-Encoding: gzip, deflate",
        f"authorization: bearer {TOKEN}",
        'If-None-Match: W/"12", "7"',
        "Edgegc-Applied: 6",
        "Edgegc-Nebula: 1.9.3",
        "X-Request-ID: a.b-c_7",
        "X-Forwarded-For: 203.0.113.9",
        "Connection: Keep-Alive",
    )
    assert asked == Asked(
        current=None,
        awaited=12,
        wait_s=0.0,
        if_none_match='W/"12", "7"',
        report=Report("6", None, "1.9.3"),
        request_id="a.b-c_7",
        says_kept=False,
    )


def test_http_1_0_is_read_where_the_connection_is_to_be_kept() -> None:
    asked = read(line("", minor=0), "Connection: Keep-Alive", BEARER, HOST)
    assert asked is not None
    assert asked.says_kept
    assert read(line("", minor=0), BEARER, HOST) is None


@pytest.mark.parametrize(
    "query",
    [
        *(
            "?",
            "?current",
            "?current=",
            "?current=-1",
            "?current=01",
            "?current=1e3",
            "?current=9" + "9" * 15,
        ),
        *(
            "?wait=111",
            "?wait=110.01",
            "?wait=.5",
            "?wait=5.",
            "?wait=+5",
            "?wait=nan",
            "?wait=1e2",
            "?wait=05",
        ),
        *(
            "?current=1&current=1",
            "?current=1&",
            "?&current=1",
            "?current=1;wait=2",
            "?Current=1",
            "?curent=1",
        ),
        *(
            "?current=%31",
            "?current=1#",
            "?current=null",
            "?current=1&wait=2&x=3",
            "/",
            "s",
            "//",
            "%20",
            "#",
        ),
    ],
)
def test_any_other_query_is_left_alone(query: str) -> None:
    assert read(line(query), HOST, BEARER) is None


@pytest.mark.parametrize(
    "lines",
    [
        *((LINE, HOST), (LINE, BEARER), (LINE,), (LINE, HOST, HOST, BEARER), (LINE, HOST, BEARER, BEARER)),
        *((LINE, HOST, BEARER, extra) for extra in ("", ": x", "X: y", "Cookie: a=b", "Accept", "Accept:")),
        *(
            (LINE, HOST, BEARER, f"Accept:{value}")
            for value in ("x", "  x", " x ", "\tx", " ", " \xe4", " \x00")
        ),
        *(
            (LINE, HOST, BEARER, f"Accept: x{odd}y")
            for odd in ("\n", "\r", "\x7f", "\t", "\n ", "\r ", "\x0b")
        ),
        *(
            (LINE, HOST, BEARER, odd)
            for odd in ("Accept : x", " Accept: x", "\tx", "Acc\xe9pt: x", "Accept\0: x")
        ),
        *((LINE, HOST, BEARER, "Accept: x", "accept: y"), (LINE, HOST, BEARER, "X-Request-ID: a b")),
        *(
            (LINE, HOST, BEARER, f"Connection: {value}")
            for value in ("close", "upgrade", "keep-alive, close")
        ),
        *(
            (LINE, HOST, BEARER, f"{name}: 0")
            for name in ("Content-Length", "Transfer-Encoding", "Trailer", "TE")
        ),
        *(
            (LINE, HOST, BEARER, f"{name}: x")
            for name in ("Expect", "Upgrade", "HTTP2-Settings", "Keep-Alive")
        ),
        *(
            (LINE, BEARER, f"Host: {value}")
            for value in ("a b", "a,b", "a/b", "a@b", "a..b", "[::1", "a:", "x" * 64)
        ),
        *((LINE, HOST, f"Authorization: {value}") for value in (TOKEN, f"Basic {TOKEN}", f"Bearer  {TOKEN}")),
        *((LINE, HOST, f"Authorization: Bearer {each}") for each in (TOKEN[:-1], f"{TOKEN}x", TOKEN.upper())),
        *((LINE, HOST, f"Authorization: Bearer {TOKEN.replace('egn', each)}") for each in ("ega", "egk")),
        *(
            (odd, HOST, BEARER)
            for odd in (
                LINE.replace("GET", "HEAD"),
                LINE.replace("GET", "get"),
                LINE.replace("1.1", "1.2"),
                LINE.replace("1.1", "2.0"),
                LINE.replace(" HTTP", "  HTTP"),
                LINE.replace("GET ", "GET http://box"),
                f" {LINE}",
                f"{LINE} ",
                f"\r\n{LINE}",
                LINE.removesuffix(" HTTP/1.1"),
            )
        ),
    ],
)
def test_any_other_head_is_left_alone(lines: tuple[str, ...]) -> None:
    assert read(*lines) is None


def test_behind_a_trusted_proxy_who_asks_is_not_for_the_lane_to_find_out() -> None:
    forwarded = (LINE, HOST, BEARER, "X-Forwarded-For: 203.0.113.9")
    assert read(*forwarded) == NOTHING
    assert read(*forwarded, behind_proxies=True) is None
    assert read(LINE, HOST, BEARER, behind_proxies=True) == NOTHING


@THOUSANDS
@given(
    odd=mutated(
        head(LINE, HOST, BEARER),
        head(line("?current=3&wait=50"), HOST, BEARER, "Edgegc-Applied: 3", 'If-None-Match: "3"'),
    ),
    behind_proxies=st.booleans(),
)
def test_any_head_is_read_or_left_alone(odd: bytes, behind_proxies: bool) -> None:
    found = version_head.read(odd, behind_proxies=behind_proxies)
    if found is not None:
        token, asked = found
        assert token.encode() in odd
        assert 0 <= asked.wait_s <= 110
