"""Requests for comparison with other tools: the same load as the scenario's."""

from __future__ import annotations

from typing import Literal

import pytest

from edgegc import errors
from edgegc.perf import asking, requests
from edgegc.perf.histogram import Counts
from edgegc.perf.plan import Answered, Load, Plan, Target

URL = "http://127.0.0.1:8080"


def plan(
    *,
    url: str = URL,
    tokens: tuple[str, ...] = ("egn_a", "egn_b"),
    what: Literal["version", "topology"] = "version",
    closing: bool = False,
) -> Plan:
    return asking.plan(
        url, tokens, what=what, connections=64, duration_s=5, warmup_s=1, closing=closing, cpu=0
    )


def test_each_token_asks_for_its_version_in_turn_as_fast_as_it_is_answered() -> None:
    made = plan()

    assert made.target == Target(host="127.0.0.1", port=8080)
    assert made.rate_per_s is None
    assert made.asks[0].requests == (requests.version("egn_a"), requests.version("egn_b"))


def test_the_topology_is_asked_for_alike() -> None:
    made = plan(what="topology")

    assert made.asks[0].requests == (requests.topology("egn_a"), requests.topology("egn_b"))
    assert (made.rate_per_s, made.connections) == (None, 64)


def test_a_connection_for_each_request_is_asked_for_in_the_request() -> None:
    (check, _) = plan(closing=True).asks[0].requests

    head, end = requests.version("egn_a").removesuffix(b"\r\n"), b"\r\n"
    assert check == head + b"Connection: close" + end + end


@pytest.mark.parametrize("url", ["unix:///run/edgegc.sock", "http://127.0.0.1:8080/prefix"])
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(errors.Invalid, match="HOST:PORT"):
        plan(url=url)


def test_without_a_token_nothing_is_asked() -> None:
    with pytest.raises(errors.Invalid, match="a token"):
        plan(tokens=())


def test_all_errors_count_those_of_connections_too() -> None:
    answered = Answered(
        name="version", requests=10_000, errors={"status 503": 2}, latency=Counts(), bytes_read=0
    )
    load = Load(
        began_at=0.0,
        duration_s=5.0,
        asks=(answered,),
        errors={"refused": 3},
        lag=Counts(),
        per_second=(),
        connect=Counts(),
        cpu_s=1.0,
        dropped=0,
        reconnects=7,
    )

    assert asking.found(load, cpu=1) == asking.Found(
        per_s=2000.0, errors=5, reconnects=7, cpu=1, cpu_share=0.2
    )
