"""Where a request comes from: the socket's word, and a proxy's only as far as it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc import errors
from edgegc.api import auth
from tests.asking import asked

if TYPE_CHECKING:
    from edgegc.api.asked import Asked

PROXIES = auth.trusted(("10.0.0.0/8", "192.0.2.1"))


def request(client: str | None, *forwarded: str) -> Asked:
    return asked(client=client, headers=tuple(("x-forwarded-for", value) for value in forwarded))


@pytest.mark.parametrize(
    ("client", "forwarded", "source"),
    [
        (None, (), "socket"),
        ("198.51.100.7", (), "198.51.100.7"),
        ("198.51.100.7", ("203.0.113.1",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.1",), "203.0.113.1"),
        ("10.0.0.1", ("6.6.6.6, 203.0.113.1",), "203.0.113.1"),
        ("10.0.0.1", ("203.0.113.1", "10.0.0.2"), "203.0.113.1"),
        ("10.0.0.1", ("203.0.113.1, 192.0.2.1, 10.9.9.9",), "203.0.113.1"),
        ("10.0.0.1", ("nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
    ],
)
def test_the_source_is_the_last_hop_that_no_trusted_proxy_could_make_up(
    client: str | None, forwarded: tuple[str, ...], source: str
) -> None:
    assert auth.source_of(request(client, *forwarded), PROXIES) == source


def test_without_trusted_proxies_nobody_can_make_up_a_source() -> None:
    assert auth.source_of(request("10.0.0.1", "203.0.113.1"), ()) == "10.0.0.1"


def test_a_trusted_proxy_that_is_no_address_is_named() -> None:
    with pytest.raises(errors.Invalid, match="nonsense"):
        auth.trusted(("nonsense",))
