"""Whether a version stays, from what was seen of it. Pure: here "it never cuts your network by itself" is kept.

Knows no files, processes or time: ``apply.py`` does what is decided here, and says what it then saw.

A trial goes like this, and each arrow is one function below:

    no lighthouse answered before ──┐
    new version loaded, reached ────┴─────────────► ACCEPT   it is the last good version now
    new version refused, or reached nobody
      ├─ no way back ─────────────────────────────► STAY     on the new one, failed
      └─ GO_BACK to the last good version
           ├─ it is back ─────────────────────────► BACK     on the old one, failed
           └─ the new one ran, and the old one is no better
                                                  ► PUT_BACK the new one: the fault is not the version's; failed
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

FIRST_RETRY_S: Final = 600.0
"""A failed version restarts nebula each time it is tried: not before something may have changed."""
LONGEST_RETRY_S: Final = 21_600.0
"""Four restarts a day at most, for a version that nobody mends."""

NO_LIGHTHOUSE: Final = "no lighthouse answers with this version"
NEITHER: Final = "no lighthouse reachable with either"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a version in force.

    ``refused``: why nebula does not run it, None where it provably does. ``reached``: whether a lighthouse answered;
    None where that was not asked, because none had answered before.
    """

    refused: str | None = None
    reached: bool | None = None

    @property
    def proven(self) -> bool:
        """Whether everything that was asked of the version was seen."""
        return self.refused is None and self.reached is not False


class Verdict(enum.Enum):
    """What becomes of the trial."""

    ACCEPT = "accept"
    STAY = "stay"
    GO_BACK = "go back"
    BACK = "back"
    PUT_BACK = "put back"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and for all but ACCEPT the reason, as a sentence for people."""

    verdict: Verdict
    reason: str | None = None


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """The version that one could go back to; ``fingerprint`` and ``not_after`` are its certificate's (None: none)."""

    version: int
    fingerprint: str | None
    not_after: int | None


def way_back(former: Former | None, *, blocklist: Collection[str], now: int) -> str | None:
    """Return None where ``former`` may be gone back to, else why not.

    ``blocklist`` is the new version's: with a certificate on it every peer refuses us. ``now`` in Unix seconds.
    """
    if former is None:
        return "there is no earlier good version"
    if former.not_after is not None and former.not_after <= now:
        return f"the certificate of version {former.version} has expired"
    if former.fingerprint is not None and former.fingerprint in blocklist:
        return f"the certificate of version {former.version} is blocklisted"
    return None


def after_new(seen: Seen, *, no_way_back: str | None) -> Decision:
    """Decide when the new version has been put in force and looked at."""
    if seen.proven:
        return Decision(verdict=Verdict.ACCEPT)
    reason = seen.refused or NO_LIGHTHOUSE
    if no_way_back is None:
        return Decision(verdict=Verdict.GO_BACK, reason=reason)
    return Decision(verdict=Verdict.STAY, reason=f"{reason}; {no_way_back}")


def after_old(seen: Seen, *, new_ran: bool, reason: str) -> Decision:
    """Decide when the old version is in force again and was looked at.

    ``new_ran``: the new version loaded and only reached no lighthouse. If the old one reaches none either, or does
    not even load, then going back has mended nothing, and the newer one is what the control plane wants.
    """
    if seen.proven:
        return Decision(verdict=Verdict.BACK, reason=reason)
    if new_ran and seen.refused is None:
        return Decision(verdict=Verdict.PUT_BACK, reason=NEITHER)
    if new_ran:
        return Decision(verdict=Verdict.PUT_BACK, reason=f"{reason}; the version before: {seen.refused}")
    unwell = seen.refused or "no lighthouse answers"
    return Decision(verdict=Verdict.BACK, reason=f"{reason}; back on the version before: {unwell}")


def retry_delay_s(attempts: int) -> float:
    """Return after how many seconds a version that failed ``attempts`` times is tried again: 10 min, doubling to 6 h."""
    doublings = min(max(attempts, 1) - 1, 16)
    return min(FIRST_RETRY_S * 2.0**doublings, LONGEST_RETRY_S)
