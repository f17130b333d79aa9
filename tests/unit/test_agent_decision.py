from __future__ import annotations

from itertools import pairwise

import pytest

from edgegc.agent.decision import (
    NEITHER,
    NO_LIGHTHOUSE,
    Former,
    Seen,
    Verdict,
    after_new,
    after_old,
    retry_delay_s,
    way_back,
)

RUNS_AND_REACHES = Seen(reached=True)
RUNS_UNASKED = Seen(reached=None)
RUNS_ALONE = Seen(reached=False)
REFUSED = Seen(refused="nebula -test refuses it")


@pytest.mark.parametrize("no_way_back", [None, "there is no earlier good version"])
@pytest.mark.parametrize("seen", [RUNS_AND_REACHES, RUNS_UNASKED])
def test_a_proven_version_stays(seen: Seen, no_way_back: str | None) -> None:
    assert after_new(seen, no_way_back=no_way_back).verdict is Verdict.ACCEPT


@pytest.mark.parametrize(("seen", "reason"), [(RUNS_ALONE, NO_LIGHTHOUSE), (REFUSED, REFUSED.refused)])
def test_an_unproven_version_goes_back_and_says_why(seen: Seen, reason: str) -> None:
    decided = after_new(seen, no_way_back=None)
    assert (decided.verdict, decided.reason) == (Verdict.GO_BACK, reason)


@pytest.mark.parametrize("seen", [RUNS_ALONE, REFUSED])
def test_without_a_way_back_the_new_version_stays_and_both_reasons_are_told(seen: Seen) -> None:
    decided = after_new(seen, no_way_back="the certificate of version 6 has expired")
    assert decided.verdict is Verdict.STAY
    assert decided.reason is not None
    assert decided.reason.endswith("; the certificate of version 6 has expired")


@pytest.mark.parametrize("old", [RUNS_AND_REACHES, RUNS_UNASKED])
@pytest.mark.parametrize("new_ran", [True, False])
def test_an_old_version_that_is_well_again_keeps_its_place(old: Seen, new_ran: bool) -> None:
    decided = after_old(old, new_ran=new_ran, reason=NO_LIGHTHOUSE)
    assert (decided.verdict, decided.reason) == (Verdict.BACK, NO_LIGHTHOUSE)


def test_where_neither_reaches_a_lighthouse_the_new_one_is_put_back() -> None:
    decided = after_old(RUNS_ALONE, new_ran=True, reason=NO_LIGHTHOUSE)
    assert (decided.verdict, decided.reason) == (Verdict.PUT_BACK, NEITHER)
    assert decided.reason == "no lighthouse reachable with either"


def test_where_only_the_new_version_runs_at_all_it_is_put_back() -> None:
    decided = after_old(REFUSED, new_ran=True, reason=NO_LIGHTHOUSE)
    assert decided.verdict is Verdict.PUT_BACK
    assert decided.reason is not None
    assert REFUSED.refused is not None
    assert REFUSED.refused in decided.reason


@pytest.mark.parametrize("old", [RUNS_ALONE, REFUSED])
def test_a_version_that_nebula_refused_is_never_put_back(old: Seen) -> None:
    decided = after_old(old, new_ran=False, reason="it broke")
    assert decided.verdict is Verdict.BACK
    assert decided.reason is not None
    assert decided.reason.startswith("it broke; back on the version before:")


FORMER = Former(version=6, fingerprint="ab", not_after=1000)


@pytest.mark.parametrize(
    ("former", "blocklist", "now", "why"),
    [
        (FORMER, (), 999, None),
        (FORMER, ("cd",), 999, None),
        (Former(version=6, fingerprint=None, not_after=None), ("ab",), 9999, None),
        (None, (), 0, "there is no earlier good version"),
        (FORMER, (), 1000, "the certificate of version 6 has expired"),
        (FORMER, ("ab",), 999, "the certificate of version 6 is blocklisted"),
    ],
)
def test_the_way_back_is_closed_by_an_expired_or_blocklisted_certificate(
    former: Former | None, blocklist: tuple[str, ...], now: int, why: str | None
) -> None:
    assert way_back(former, blocklist=blocklist, now=now) == why


def test_a_failed_version_is_tried_after_ten_minutes_doubling_to_six_hours() -> None:
    delays = [retry_delay_s(attempts) for attempts in range(1, 100)]
    assert delays[:4] == [600, 1200, 2400, 4800]
    assert delays[-1] == 6 * 3600
    assert all(earlier <= later for earlier, later in pairwise(delays))
