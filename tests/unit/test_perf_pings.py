"""ICMP echo requests and answers as bytes."""

from __future__ import annotations

from edgegc.perf import pings

MARK = b"12345678"
IP_HEADER = bytes([0x45]) + bytes(19)


def reply_to(request: bytes) -> bytes:
    return IP_HEADER + bytes([pings.REPLY]) + request[1:]


def test_the_answer_to_a_request_tells_its_number_beyond_sixteen_bits() -> None:
    request = pings.echo_request(70_000, MARK)
    assert pings.number_of(reply_to(request), MARK) == 70_000


def test_a_request_sums_up_to_nothing_as_its_checksum_wants() -> None:
    assert pings._checksum(pings.echo_request(7, MARK)) == 0


def test_what_is_no_answer_of_ours_has_no_number() -> None:
    request = pings.echo_request(7, MARK)
    assert pings.number_of(IP_HEADER + request, MARK) is None
    assert pings.number_of(reply_to(request), b"87654321") is None
    assert pings.number_of(reply_to(request)[:-1], MARK) is None
    assert pings.number_of(b"", MARK) is None
