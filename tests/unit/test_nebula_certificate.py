from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgegc.errors import Invalid
from edgegc.nebula import certificate as certificates
from edgegc.nebula import keys
from edgegc.nebula.certificate import Details, NebulaCertificate
from tests.fuzz import THOUSANDS, mutated, mutated_text

START, END = 1_700_000_000, 1_800_000_000
CA_KEY = keys.generate_ed25519()
CA = certificates.self_sign(name="test", key=CA_KEY, not_before=START, not_after=END)
HOST_KEY = keys.generate_x25519()


def signed(**changes: Any) -> NebulaCertificate:
    arguments: dict[str, Any] = {
        "ca": CA,
        "ca_private": CA_KEY.private,
        "name": "pi-7",
        "overlay": IPv4Interface("10.42.0.7/16"),
        "subnets": (IPv4Network("192.168.7.0/24"),),
        "groups": ("pi", "edge"),
        "not_before": START,
        "not_after": END,
        "public_key": HOST_KEY.public,
    }
    return certificates.sign(**(arguments | changes))


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, *varint(value >> 7)]) if value > 0x7F else bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


interfaces = st.builds(
    lambda address, length: IPv4Interface((address, length)), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
times = st.integers(0, 2**63 - 1)
hosts = st.builds(
    Details,
    name=names,
    ips=st.lists(interfaces, max_size=4).map(tuple),
    subnets=st.lists(interfaces.map(lambda each: each.network), max_size=4).map(tuple),
    groups=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4).map(tuple),
    not_before=times,
    not_after=times,
    public_key=st.binary(min_size=32, max_size=32),
    issuer=st.binary(min_size=32, max_size=32),
)
any_certificate = st.builds(NebulaCertificate, details=hosts, signature=st.binary(min_size=64, max_size=64))


@given(any_certificate)
def test_every_certificate_reads_back(certificate: NebulaCertificate) -> None:
    assert certificates.unmarshal(certificate.marshal()) == certificate
    assert certificates.parse_pem(certificate.pem()) == certificate


@THOUSANDS
@given(mutated(CA.marshal(), signed().marshal()) | st.binary(max_size=300))
def test_what_is_read_from_any_bytes_is_written_as_the_same_bytes(body: bytes) -> None:
    try:
        certificate = certificates.unmarshal(body)
    except Invalid:
        return
    assert certificate.marshal() == body


@THOUSANDS
@given(mutated_text(CA.pem(), signed().pem(), CA.pem() + "\n" + signed().pem()))
def test_what_is_read_from_any_text_is_one_certificate_or_several(text: str) -> None:
    with contextlib.suppress(Invalid):
        (only,) = certificates.parse_bundle_pem(certificates.parse_pem(text).pem())
        assert certificates.unmarshal(only.marshal()) == only
    with contextlib.suppress(Invalid):
        assert certificates.parse_bundle_pem(text)


@given(any_certificate, st.data())
def test_a_changed_byte_is_refused_or_changes_the_certificate(
    certificate: NebulaCertificate, data: st.DataObject
) -> None:
    body = bytearray(certificate.marshal())
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    try:
        changed = certificates.unmarshal(bytes(body))
    except Invalid:
        return
    assert changed != certificate
    assert changed.marshal() == bytes(body)


@given(any_certificate, st.data())
def test_every_truncation_is_refused(certificate: NebulaCertificate, data: st.DataObject) -> None:
    body = certificate.marshal()
    with pytest.raises(Invalid):
        certificates.unmarshal(body[: data.draw(st.integers(0, len(body) - 1))])


RAW = {
    1: b"h",
    5: START,
    6: END,
    7: b"k" * 32,
    9: b"i" * 32,
}


def raw(changes: dict[int, int | bytes] | None = None, *, suffix: bytes = b"") -> bytes:
    fields = dict(sorted((RAW | (changes or {})).items()))
    details = b"".join(field(number, value) for number, value in fields.items()) + suffix
    return field(1, details) + field(2, b"s" * 64)


def test_the_hand_made_certificate_of_the_next_test_is_right_itself() -> None:
    assert certificates.unmarshal(raw()).details.name == "h"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "has no details"),
        (raw() + field(3, b"x"), "certificate has the unknown field 3"),
        (raw() + field(2, b"s" * 64), "field 2 of the certificate is there twice"),
        (field(2, b"s" * 64) + field(1, b"d"), "field 1 of the certificate comes after field 2"),
        (raw()[:-1], "field 2 of the certificate is longer than what is left"),
        (raw()[:-66], "signature has 64 bytes, this one 0"),
        (raw({10: 1}), "details has the unknown field 10"),
        (raw(suffix=field(1, b"again")), "field 1 of the certificate's details comes after field 9"),
        (raw(suffix=field(9, b"i" * 32)), "field 9 of the certificate's details is there twice"),
        (raw({1: 3}), "field 1 of the certificate's details has the wrong type"),
        (raw({1: b""}), "field 1 of the certificate's details is written although it is empty"),
        (raw({5: 0}), "field 5 of the certificate's details is written although it is zero"),
        (raw({8: 2}), "neither true nor false"),
        (raw({8: 1}), "an authority with an issuer"),
        (raw({9: b"short"}), "issuer has 5 bytes, 32 are right"),
        (raw({7: b"short"}), "public key has 5 bytes, 32 are right"),
        (raw({6: 2**63}), "a time before 1970"),
        (raw({100: 1}), "not for Curve25519"),
        (raw({1: b"\xff"}), "name is not UTF-8"),
        (raw({4: b"\xff"}), "group is not UTF-8"),
        (raw({2: varint(1)}), "addresses are not pairs"),
        (raw({2: varint(2**32) + varint(0)}), "addresses have a number of more than 32 bits"),
        (
            raw({2: varint(1) + varint(0xFF00FF00)}),
            "addresses have a mask that is not a prefix: 255.0.255.0",
        ),
        (raw({3: varint(1) + varint(0xFFFFFF00)}), "subnet 0.0.0.1/24 has host bits set"),
        (raw({3: b"\x80"}), "subnets is cut off inside a number"),
        (raw(suffix=varint(100 << 3) + b"\x81\x00"), "not in its shortest form"),
        (raw(suffix=varint(100 << 3) + b"\xff" * 9 + b"\x7f"), "a number of more than 64 bits"),
        (raw(suffix=varint(100 << 3) + b"\xff" * 10), "a number of more than 10 bytes"),
        (b"x" * (certificates.MAX_CERTIFICATE_BYTES + 1), "at most 65536 bytes"),
    ],
)
def test_a_body_that_is_not_canonical_is_refused_with_its_own_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        certificates.unmarshal(body)


def test_signing_is_deterministic() -> None:
    assert signed().marshal() == signed().marshal()


def test_a_signed_certificate_is_accepted_from_its_first_second_to_its_last() -> None:
    certificate = signed(not_before=START + 10, not_after=END - 10)
    certificates.verify(certificate, authorities=[CA], at=START + 10)
    certificates.verify(certificate, authorities=[CA], at=END - 10)
    for at in (START + 9, END - 9):
        with pytest.raises(Invalid, match="expired or not yet valid"):
            certificates.verify(certificate, authorities=[CA], at=at)


def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    other = certificates.self_sign(name="other", key=keys.generate_ed25519(), not_before=START, not_after=END)
    with pytest.raises(Invalid, match="not trusted here"):
        certificates.verify(signed(), authorities=[other], at=START)


def test_a_forged_signature_is_refused() -> None:
    certificate = msgspec.structs.replace(signed(), signature=b"\x00" * 64)
    with pytest.raises(Invalid, match="signature of the certificate of 'pi-7' is wrong"):
        certificates.verify(certificate, authorities=[CA], at=START)


def test_a_changed_name_breaks_the_signature() -> None:
    good = signed()
    forged = msgspec.structs.replace(good, details=msgspec.structs.replace(good.details, name="pi-8"))
    with pytest.raises(Invalid, match="signature"):
        certificates.verify(forged, authorities=[CA], at=START)


def test_an_authority_does_not_pass_for_a_host() -> None:
    with pytest.raises(Invalid, match="not of a host"):
        certificates.verify(CA, authorities=[CA], at=START)


def test_an_expired_authority_is_said_to_be_the_reason() -> None:
    with pytest.raises(Invalid, match="the authority 'test' is expired"):
        certificates.verify(signed(), authorities=[CA], at=END + 1)


def constrained(**changes: Any) -> NebulaCertificate:
    """An authority made by other tools may be limited; ours never is."""
    details = msgspec.structs.replace(CA.details, **changes)
    key = keys.ed25519_signing_key(CA_KEY.private)
    return NebulaCertificate(details=details, signature=key.sign(details.marshal()))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"not_after": END + 1}, "would outlive its authority"),
        ({"not_before": START - 1}, "would begin before its authority"),
        ({"not_after": START - 1, "not_before": START}, "end before it begins"),
        ({"name": ""}, "name can't be empty"),
        ({"name": "\ud800"}, "name is not valid Unicode"),
        ({"groups": ("",)}, "group can't be empty"),
        ({"public_key": bytes(32)}, "low order"),
        ({"public_key": b"short"}, "32 bytes, this one 5"),
        ({"ca_private": keys.generate_ed25519().private}, "not that of the authority"),
        ({"ca_private": b"short"}, "64 bytes, this one 5"),
        ({"ca": constrained(groups=("pi",))}, "does not allow the group 'edge'"),
        (
            {"ca": constrained(ips=(IPv4Interface("10.43.0.0/16"),))},
            "does not allow the network 10.42.0.0/16",
        ),
        ({"ca": constrained(subnets=(IPv4Network("10.0.0.0/8"),))}, "not allow the network 192.168.7.0/24"),
        ({"ca": constrained(is_ca=False)}, "is not an authority"),
    ],
)
def test_what_nebula_would_refuse_is_not_signed(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        signed(**changes)


def test_a_limited_authority_signs_what_is_inside_its_limits() -> None:
    authority = constrained(
        groups=("edge", "pi"), ips=(IPv4Interface("10.0.0.0/8"),), subnets=(IPv4Network("192.168.0.0/16"),)
    )
    certificates.verify(signed(ca=authority), authorities=[authority], at=START)


def test_the_pem_of_several_authorities_reads_as_a_list() -> None:
    assert certificates.parse_bundle_pem(CA.pem() + signed().pem()) == [CA, signed()]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no PEM block NEBULA CERTIFICATE"),
        (CA.pem() + CA.pem(), "expected exactly one certificate, found 2"),
        (
            keys.pem_x25519_public(HOST_KEY.public),
            "expected the PEM block NEBULA CERTIFICATE, found NEBULA X25519",
        ),
    ],
)
def test_a_text_without_exactly_one_certificate_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        certificates.parse_pem(text)


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_a_host_keeps_its_host_bits(length: int, address: int) -> None:
    assume(length)
    overlay = IPv4Interface((address, length))
    assert certificates.unmarshal(signed(overlay=overlay).marshal()).details.ips == (overlay,)
    assert overlay.ip == IPv4Address(address)
