"""perf/compare-tools: what other tools print is understood, and who agrees with us is told apart from who can't tell."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "perf/compare-tools"

WRK = """Running 5s test @ http://127.0.0.1:20601/api/v1/config/version
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    30.13ms    2.51ms  62.08ms   91.36%
    Req/Sec     2.13k    98.32     2.27k    86.00%
  10620 requests in 5.01s, 3.29MB read
Requests/sec:   2120.31
Transfer/sec:    672.12KB
"""
WRK_TROUBLE = """
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 100
Requests/sec:   2120.31
"""
HEY = """
Summary:
  Total:\t5.0301 secs
  Slowest:\t0.0731 secs
  Requests/sec:\t2089.2195

Latency distribution:
  10% in 0.0287 secs

Status code distribution:
  [200]\t10509 responses

"""
HEY_TROUBLE = """
  Requests/sec:\t2089.2195

Status code distribution:
  [200]\t10000 responses
  [429]\t500 responses

Error distribution:
  [9]\tGet "http://127.0.0.1:20601/api/v1/config/version": dial tcp 127.0.0.1:20601: connect: connection refused
"""
AB = """
Concurrency Level:      64
Time taken for tests:   5.000 seconds
Complete requests:      9000
Failed requests:        0
Keep-Alive requests:    0
Requests per second:    1799.95 [#/sec] (mean)
Time per request:       35.557 [ms] (mean)
"""
AB_TROUBLE = """
Failed requests:        7
   (Connect: 0, Receive: 0, Length: 7, Exceptions: 0)
Non-2xx responses:      5
Requests per second:    1799.95 [#/sec] (mean)
"""


@pytest.fixture(scope="module")
def script() -> Any:
    loader = SourceFileLoader("compare_tools", str(SCRIPT))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module  # its dataclasses look there for what their annotations mean
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("wrk", WRK, (2120.31, 0)),
        ("wrk", WRK_TROUBLE, (2120.31, 110)),
        ("hey", HEY, (2089.2195, 0)),
        ("hey", HEY_TROUBLE, (2089.2195, 509)),
        ("ab", AB, (1799.95, 0)),
        ("ab", AB_TROUBLE, (1799.95, 12)),
    ],
)
def test_a_tools_rate_and_errors_are_read_from_what_it_prints(
    script: Any, name: str, text: str, found: tuple[float, int]
) -> None:
    assert script.FOUND[name](text) == found


@pytest.mark.parametrize("name", ["wrk", "hey", "ab"])
def test_an_output_without_a_rate_is_no_rate(script: Any, name: str) -> None:
    with pytest.raises(script.CannotCompareError, match="Cannot assign"):
        script.FOUND[name]("Failed requests: 0\nCannot assign requested address")


def compared(script: Any, theirs: list[float], ours: list[float], **ran: Any) -> Any:
    row = script.Compared("hey", script.Manner("one"))
    for into, rates in ((row.theirs, theirs), (row.ours, ours)):
        for per_s in rates:
            into.append(script.Ran(per_s, **{"errors": 0, "cpu_share": 0.3, "server_share": 1.0, **ran}))
    return row


def test_rates_within_15_percent_agree_by_the_median_of_the_rounds(script: Any) -> None:
    row = compared(script, [900, 100, 1100], [1000, 1000, 1000])

    assert row.ratio == 0.9
    assert row.verdict == (True, "agrees")
    assert script.exit_code([row]) == 0


def test_rates_further_apart_differ(script: Any) -> None:
    slower, faster = compared(script, [800], [1000]), compared(script, [1200], [1000])

    assert slower.verdict == faster.verdict == (False, "DIFFERS")
    assert script.exit_code([compared(script, [1000], [1000]), slower]) == 1


def test_a_tool_that_was_at_its_own_limit_says_nothing_of_the_server(script: Any) -> None:
    row = compared(script, [700], [1000], cpu_share=0.99)

    assert row.verdict == (None, "can't tell: hey used 99% of its processor")
    assert script.exit_code([row]) == 5


def test_only_who_was_at_its_own_limit_asks_for_the_topology_too(script: Any) -> None:
    limited = compared(script, [700], [1000], cpu_share=0.99)
    others = [
        compared(script, [1000], [1000], cpu_share=0.99),
        compared(script, [700], [1000]),
        compared(script, [1300], [1000], cpu_share=0.99),
        compared(script, [700], [1000], cpu_share=0.99, others_share=0.4),
    ]

    [again] = script.once_more([*others, limited])

    assert (again.name, again.manner, again.what) == (limited.name, limited.manner, "topology")
    assert again.theirs == []
    # Once: what is at its limit there, too, stays untold.
    again.theirs, again.ours = limited.theirs, limited.ours
    assert again.at_its_limit
    assert script.once_more([again]) == []


def test_a_round_in_which_the_machine_was_busy_counts_for_nothing(script: Any) -> None:
    row = compared(script, [1000, 400], [1000, 1000])
    row.theirs[1] = script.Ran(400, 0, 0.3, 0.5, 0.4)

    assert row.ratio == 1.0
    assert row.verdict == (True, "agrees")


def test_where_the_machine_was_always_busy_nothing_is_told(script: Any) -> None:
    row = compared(script, [400], [1000], others_share=0.4)

    assert row.verdict == (None, "can't tell: the host was busy, other processes used 40% of its processors")
    assert script.exit_code([row]) == 5


def test_a_rate_of_errors_agrees_with_nothing(script: Any) -> None:
    row = compared(script, [1000], [1000], errors=3)

    assert row.verdict == (False, "6 errors")


def test_the_table_has_a_line_for_each_tool(script: Any) -> None:
    lines = script.table([compared(script, [1012], [1000])]).splitlines()

    assert lines[0].split() == [
        "TOOL",
        "ASKS",
        "FOR",
        "WITH",
        "PER",
        "S",
        "EDGEGC",
        "PERF",
        "RATIO",
        "ITS",
        "CPU",
        "SERVER",
        "VERDICT",
    ]
    assert lines[1].split() == [
        "hey",
        "version",
        "one",
        "token",
        "1,012",
        "1,000",
        "1.01",
        "30%",
        "100%",
        "agrees",
    ]


def test_no_tool_asks_for_longer_than_it_is_told(script: Any) -> None:
    server = script.Server(url="http://127.0.0.1:1", tokens=("egn_a", "egn_b"), pid=1)

    def argv(name: str, what: str = "version") -> str:
        return " ".join(
            script.command(name, server, what=what, connections=16, seconds=5, script=Path("t.lua"))
        )

    assert argv("wrk") == "wrk -t1 -c16 -d5s -s t.lua http://127.0.0.1:1/api/v1/config/version"
    assert " -z 5s " in argv("hey")
    assert argv("hey", "topology").endswith(" http://127.0.0.1:1/api/v1/topology")
    assert " -c 16 -t 5 -n 1000000 " in argv("ab")  # in this order: -t alone sets -n to 50,000
    assert "Authorization: Bearer egn_a" in argv("ab")
