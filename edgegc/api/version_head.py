"""The plain heads of version checks: from bytes to what they ask, or to nothing where a byte is odd. Pure.

It is no HTTP parser: what it takes, every parser reads in the same way, and what it does not take goes to one. It knows
the form of a token, not whether it is good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from edgegc.api import version_check
from edgegc.control.polls import MAX_WAIT_S

BEGINNING: Final = b"GET " + version_check.PATH.encode()
"""What every such head begins with, and hardly anything else does."""
END: Final = b"\r\n\r\n"

_Forms = Mapping[bytes, Callable[[bytes], object]]


def _form(pattern: bytes) -> Callable[[bytes], object]:
    return re.compile(pattern).fullmatch


_LINE: Final = re.compile(re.escape(BEGINNING) + rb"(?:\?([!-~]+))? HTTP/1\.([01])")
_QUERY: Final[_Forms] = {
    b"current": _form(rb"0|[1-9][0-9]{0,14}"),  # so many digits are below version_check.MAX_VERSION
    b"wait": _form(rb"(?:0|[1-9][0-9]{0,2})(?:\.[0-9]{1,20})?"),
}
_HARMLESS: Final = (
    b"accept accept-encoding accept-language cache-control content-type dnt forwarded idempotency-key origin pragma "
    b"priority referer traceparent tracestate user-agent via x-forwarded-for x-forwarded-host x-forwarded-port "
    b"x-forwarded-proto x-real-ip"
).split()
"""Headers at which the route does not look, nor anything below it. What is not listed may mean anything: a body, an answer
before the answer, another protocol, the end of the connection.
"""
_REPORT: Final = (b"edgegc-applied", b"edgegc-nebula", b"edgegc-state")
_HEADERS: Final[_Forms] = {
    **dict.fromkeys((*_HARMLESS, *_REPORT, b"if-none-match"), _form(rb"[!-~](?:[ -~]*[!-~])?")),
    b"authorization": _form(rb"[Bb]earer egn_[0-9a-f]{32}_[A-Za-z0-9_-]{43}"),
    b"connection": _form(rb"(?i:keep-alive)"),
    b"host": _form(
        rb"(?:(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    ),
    b"x-request-id": _form(rb"[A-Za-z0-9._-]{1,64}"),
}


class Report(msgspec.Struct, frozen=True):
    """What rides along, as sent."""

    applied: str | None
    state: str | None
    nebula: str | None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a version check asks. It may be kept: the token is no part of it."""

    current: int | None
    awaited: int | None
    """See :func:`version_check.awaited`."""
    wait_s: float
    if_none_match: str | None
    report: Report | None
    request_id: str | None
    says_kept: bool
    """An HTTP/1.0 client wants the connection kept, and must be told that it is."""


def read(head: bytes, *, behind_proxies: bool) -> tuple[str, Asked] | None:
    """Return the token of a head, from :data:`BEGINNING` to :data:`END`, and what it asks; None where it is not plain.

    Plain is: the headers known, each once, with one blank before the value and none after it; HTTP/1.0 only with
    ``Connection: keep-alive``.

    :param behind_proxies: some proxy is trusted, so ``X-Forwarded-For`` may say where a request comes from.
    """
    first, *lines = head[: -len(END)].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        return None
    query = _fields((each.partition(b"=") for each in line[1].split(b"&")) if line[1] else (), _QUERY)
    headers = _fields(
        ((name.lower(), blank, value) for name, blank, value in (each.partition(b": ") for each in lines)),
        _HEADERS,
    )
    if query is None or headers is None or "host" not in headers or "authorization" not in headers:
        return None
    wait_s = float(query.get("wait", 0))
    says_kept = line[2] == b"0"
    if (
        wait_s > MAX_WAIT_S
        or (says_kept and "connection" not in headers)
        or (behind_proxies and "x-forwarded-for" in headers)
    ):
        return None
    current = int(query["current"]) if "current" in query else None
    if_none_match = headers.get("if-none-match")
    report = Report(*(headers.get(f"edgegc-{name}") for name in Report.__struct_fields__))
    return headers["authorization"].partition(" ")[2], Asked(
        current=current,
        awaited=version_check.awaited(current, if_none_match),
        wait_s=wait_s,
        if_none_match=if_none_match,
        report=report if report != Report(None, None, None) else None,
        request_id=headers.get("x-request-id"),
        says_kept=says_kept,
    )


def _fields(parts: Iterable[tuple[bytes, bytes, bytes]], forms: _Forms) -> dict[str, str] | None:
    """Return the values by name; None where one is unknown, given twice, or not in its plain form."""
    found: dict[str, str] = {}
    for name, _, value in parts:
        form = forms.get(name)
        if form is None or form(value) is None or (known := name.decode()) in found:
            return None
        found[known] = value.decode()
    return found
