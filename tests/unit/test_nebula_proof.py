"""When a reload counts as proven, refused, or still under way."""

from __future__ import annotations

import pytest

from edgegc.nebula.executable import ApplyFailed
from edgegc.nebula.proof import missing

FINGERPRINT = "ab" * 32
HUP = 'level=info msg="Caught HUP, reloading config"'
CERTIFICATE = f'level=info msg="Client cert refreshed from disk" cert="Fingerprint: {FINGERPRINT}"'
NEWER = f'level=INFO msg="Client certificate(s) refreshed from disk" cert="[{{fingerprint:{FINGERPRINT}}}]"'
FIREWALL = 'level=info msg="New firewall has been installed" firewallHash=1'
EXPECTED = ("Caught HUP, reloading config", "New firewall has been installed")


def test_nothing_counts_before_nebula_says_that_it_reloads() -> None:
    assert missing([], EXPECTED, None) == "Caught HUP, reloading config"
    assert missing([CERTIFICATE, FIREWALL], EXPECTED, FINGERPRINT) == "Caught HUP, reloading config"


@pytest.mark.parametrize("certificate", [CERTIFICATE, NEWER])
def test_it_is_proven_when_every_line_and_the_fingerprint_were_seen(certificate: str) -> None:
    assert missing([HUP, certificate, FIREWALL], EXPECTED, FINGERPRINT) is None
    assert missing([HUP, FIREWALL, certificate], EXPECTED, FINGERPRINT) is None


def test_what_is_not_said_yet_is_named() -> None:
    assert missing([HUP, FIREWALL], EXPECTED, FINGERPRINT) == "refreshed from disk"
    assert missing([HUP, CERTIFICATE], EXPECTED, FINGERPRINT) == "New firewall has been installed"


def test_another_certificate_is_a_failure_whatever_else_was_said() -> None:
    with pytest.raises(ApplyFailed, match="another certificate"):
        missing([HUP, CERTIFICATE, FIREWALL], EXPECTED, "cd" * 32)


@pytest.mark.parametrize(
    "line",
    [
        'level=error msg="Error while creating firewall during reload" error="rule #0"',
        'level=ERROR msg="Error occurred while reloading config" error="rule #0"',
        'level=error msg="Failed to refresh trusted CA certificates" error="rule #0"',
    ],
)
def test_a_refused_section_is_a_failure_in_nebulas_words(line: str) -> None:
    with pytest.raises(ApplyFailed, match="rule #0"):
        missing([HUP, line, CERTIFICATE, FIREWALL], EXPECTED, FINGERPRINT)


def test_errors_about_other_things_or_before_the_reload_are_none() -> None:
    other = 'level=error msg="Failed to send handshake message" error="network is unreachable"'
    before = 'level=error msg="Error while creating firewall during reload" error="an old one"'
    assert missing([before, HUP, other, CERTIFICATE, FIREWALL], EXPECTED, FINGERPRINT) is None
