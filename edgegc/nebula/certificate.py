"""Nebula's version 1 certificates: the canonical codec, signing and verifying. Knows no files and no storage.

The format is a small protobuf message (``cert.proto`` of slackhq/nebula). It is written by hand here because a
verifier re-marshals what it read: only the one canonical form has a valid signature and a stable fingerprint.
So the encoder writes exactly what ``nebula-cert`` writes (fields ascending, zero values omitted), and the
decoder takes nothing else; each refusal has its own sentence.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgegc.errors import Invalid
from edgegc.nebula import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PEM_LABEL = "NEBULA CERTIFICATE"
MAX_CERTIFICATE_BYTES = 65_536
"""Nebula's own limit since 1.10. A handshake packet holds far less."""
FINGERPRINT_BYTES = 32
SIGNATURE_BYTES = 64

_MAX_VARINT_BYTES = 10
_MAX_INT64 = 2**63 - 1
_MAX_UINT32 = 2**32 - 1
_VARINT, _BYTES = 0, 2
"""The two protobuf wire types that the format uses."""
_CURVE25519 = 0
"""The only curve that every nebula speaks; as a zero value it is not written at all."""


class Details(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a certificate says and its signature covers. Times are Unix seconds, both inclusive.

    ``ips`` keep their host bits. ``issuer`` is the SHA-256 of the authority's certificate, empty in an authority.
    """

    name: str
    ips: tuple[IPv4Interface, ...] = ()
    subnets: tuple[IPv4Network, ...] = ()
    groups: tuple[str, ...] = ()
    not_before: int
    not_after: int
    public_key: bytes
    is_ca: bool = False
    issuer: bytes = b""

    def marshal(self) -> bytes:
        """Return the canonical form, which is what the signature covers."""
        return self._marshalled

    # Kept: signing, fingerprint and PEM text each need it.
    @cached_property
    def _marshalled(self) -> bytes:
        return b"".join(
            (
                _field_bytes(1, self.name.encode()),
                _field_bytes(2, _pack_pairs(self.ips)),
                _field_bytes(3, _pack_pairs(self.subnets)),
                *(_field_bytes(4, group.encode(), keep_empty=True) for group in self.groups),
                _field_varint(5, self.not_before),
                _field_varint(6, self.not_after),
                _field_bytes(7, self.public_key),
                _field_varint(8, int(self.is_ca)),
                _field_bytes(9, self.issuer),
            )
        )


class NebulaCertificate(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A signed certificate, of a host or of an authority."""

    details: Details
    signature: bytes

    @cached_property
    def fingerprint(self) -> str:
        """Lower-case hex SHA-256 of the whole certificate: its name in blocklists, logs and ``issuer`` fields."""
        return hashlib.sha256(self.marshal()).hexdigest()

    def marshal(self) -> bytes:
        """Return the canonical form."""
        return _field_bytes(1, self.details.marshal()) + _field_bytes(2, self.signature)

    def pem(self) -> str:
        """Return the text of a ``host.crt`` or ``ca.crt``."""
        return keys.encode_pem(PEM_LABEL, self.marshal())


def self_sign(*, name: str, key: keys.KeyPair, not_before: int, not_after: int) -> NebulaCertificate:
    """Make the certificate of a new authority from its Ed25519 key pair. Times in Unix seconds.

    It constrains neither addresses nor groups: the control plane decides about those, per node.
    Raises :class:`Invalid` for an empty name, times out of order or a key that is not a pair.
    """
    details = Details(
        name=name, not_before=not_before, not_after=not_after, public_key=key.public, is_ca=True
    )
    _check_times(details)
    _check_text("name", name)
    signing_key = keys.ed25519_signing_key(key.private)
    if key.private[keys.KEY_BYTES :] != key.public:
        raise Invalid("the public key is not that of the private key")
    return NebulaCertificate(details=details, signature=signing_key.sign(details.marshal()))


def sign(
    *,
    ca: NebulaCertificate,
    ca_private: bytes,
    name: str,
    overlay: IPv4Interface,
    subnets: Sequence[IPv4Network],
    groups: Sequence[str],
    not_before: int,
    not_after: int,
    public_key: bytes,
) -> NebulaCertificate:
    """Make a host's certificate. Ed25519 is deterministic: equal arguments give equal bytes.

    ``overlay`` is the host's address with the network's prefix length. ``subnets`` and ``groups`` keep their order.
    Times in Unix seconds. Raises :class:`Invalid` where nebula would refuse the outcome: outside of the
    authority's time, addresses or groups, an unusable public key, an authority that is none.
    """
    details = Details(
        name=name,
        ips=(overlay,),
        subnets=tuple(subnets),
        groups=tuple(groups),
        not_before=not_before,
        not_after=not_after,
        public_key=public_key,
        issuer=bytes.fromhex(ca.fingerprint),
    )
    _check_times(details)
    _check_text("name", name)
    for group in details.groups:
        _check_text("group", group)
    keys.check_x25519_public(public_key)
    signing_key = keys.ed25519_signing_key(ca_private)
    if ca_private[keys.KEY_BYTES :] != ca.details.public_key:
        raise Invalid("the private key is not that of the authority's certificate")
    _check_constraints(details, ca.details)
    return NebulaCertificate(details=details, signature=signing_key.sign(details.marshal()))


def verify(certificate: NebulaCertificate, *, authorities: Sequence[NebulaCertificate], at: int) -> None:
    """Raise :class:`Invalid` unless nebula would accept a host's certificate at a time (Unix seconds).

    ``authorities`` is the content of a ``ca.crt``. Checked as nebula does: issuer known, both in their time, signature,
    and the constraints of the authority.
    """
    details = certificate.details
    if details.is_ca:
        raise Invalid("this is the certificate of an authority, not of a host")
    issuer = details.issuer.hex()
    authority = next((each for each in authorities if each.fingerprint == issuer), None)
    if authority is None:
        raise Invalid(
            f"the certificate of {details.name!r} was made by an authority that is not trusted here"
        )
    if not authority.details.not_before <= at <= authority.details.not_after:
        raise Invalid(f"the authority {authority.details.name!r} is expired or not yet valid")
    if not details.not_before <= at <= details.not_after:
        raise Invalid(f"the certificate of {details.name!r} is expired or not yet valid")
    try:
        Ed25519PublicKey.from_public_bytes(authority.details.public_key).verify(
            certificate.signature, details.marshal()
        )
    except InvalidSignature:
        raise Invalid(f"the signature of the certificate of {details.name!r} is wrong") from None
    _check_constraints(details, authority.details)


def parse_pem(text: str) -> NebulaCertificate:
    """Read a text with exactly one certificate; :class:`Invalid` says what is wrong with it."""
    found = parse_bundle_pem(text)
    if len(found) != 1:
        raise Invalid(f"expected exactly one certificate, found {len(found)}")
    return found[0]


def parse_bundle_pem(text: str) -> list[NebulaCertificate]:
    """Read a text with at least one certificate (a ``ca.crt``); :class:`Invalid` says what is wrong with it."""
    certificates: list[NebulaCertificate] = []
    for label, body in keys.decode_pem_blocks(text):
        if label != PEM_LABEL:
            raise Invalid(f"expected the PEM block {PEM_LABEL}, found {label}")
        certificates.append(unmarshal(body))
    if not certificates:
        raise Invalid(f"there is no PEM block {PEM_LABEL}")
    return certificates


def unmarshal(body: bytes) -> NebulaCertificate:
    """Read the canonical form; :class:`Invalid` for anything else, so that ``unmarshal(b).marshal() == b`` always."""
    if len(body) > MAX_CERTIFICATE_BYTES:
        raise Invalid(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes, this one {len(body)}")
    details: Details | None = None
    signature = b""
    for number, value in _fields(body, "certificate", {1: _BYTES, 2: _BYTES}):
        if number == 1:
            details = _unmarshal_details(_as_bytes(value))
        else:
            signature = _as_bytes(value)
    if details is None:
        raise Invalid("the certificate has no details")
    if len(signature) != SIGNATURE_BYTES:
        raise Invalid(f"a certificate's signature has {SIGNATURE_BYTES} bytes, this one {len(signature)}")
    return NebulaCertificate(details=details, signature=signature)


_DETAIL_FIELDS = {
    1: _BYTES,
    2: _BYTES,
    3: _BYTES,
    4: _BYTES,
    5: _VARINT,
    6: _VARINT,
    7: _BYTES,
    8: _VARINT,
    9: _BYTES,
    100: _VARINT,
}
_GROUPS_FIELD = 4


def _unmarshal_details(body: bytes) -> Details:
    found: dict[int, int | bytes] = {}
    groups: list[str] = []
    for number, value in _fields(body, "certificate's details", _DETAIL_FIELDS, repeated=_GROUPS_FIELD):
        if number == _GROUPS_FIELD:
            groups.append(_text(_as_bytes(value), "group"))
        else:
            found[number] = value
    if found.get(100, _CURVE25519) != _CURVE25519:
        raise Invalid("the certificate is not for Curve25519, the only curve supported")
    is_ca = _as_int(found.get(8, 0))
    if is_ca > 1:
        raise Invalid("the certificate's CA mark is neither true nor false")
    issuer = _as_bytes(found.get(9, b""))
    if is_ca and issuer:
        raise Invalid("the certificate is an authority with an issuer: authorities are self-signed")
    if not is_ca and len(issuer) != FINGERPRINT_BYTES:
        raise Invalid(f"the certificate's issuer has {len(issuer)} bytes, {FINGERPRINT_BYTES} are right")
    public_key = _as_bytes(found.get(7, b""))
    if len(public_key) != keys.KEY_BYTES:
        raise Invalid(f"the certificate's public key has {len(public_key)} bytes, {keys.KEY_BYTES} are right")
    details = Details(
        name=_text(_as_bytes(found.get(1, b"")), "name"),
        ips=tuple(_unpack_interfaces(_as_bytes(found.get(2, b"")))),
        subnets=tuple(_unpack_networks(_as_bytes(found.get(3, b"")))),
        groups=tuple(groups),
        not_before=_as_int(found.get(5, 0)),
        not_after=_as_int(found.get(6, 0)),
        public_key=public_key,
        is_ca=bool(is_ca),
        issuer=issuer,
    )
    if max(details.not_before, details.not_after) > _MAX_INT64:
        raise Invalid("the certificate has a time before 1970")
    return details


def _check_times(details: Details) -> None:
    if not 0 <= details.not_before <= details.not_after <= _MAX_INT64:
        raise Invalid("the certificate would end before it begins, or before 1970")


def _check_text(what: str, text: str) -> None:
    if not text:
        raise Invalid(f"a certificate's {what} can't be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(f"a certificate's {what} is not valid Unicode") from None


def _check_constraints(details: Details, authority: Details) -> None:
    """Nebula's ``CheckRootConstrains``: what an authority leaves open, the host may have."""
    if not authority.is_ca:
        raise Invalid(f"{authority.name!r} is not an authority")
    if details.not_after > authority.not_after:
        raise Invalid(f"the certificate of {details.name!r} would outlive its authority")
    if details.not_before < authority.not_before:
        raise Invalid(f"the certificate of {details.name!r} would begin before its authority")
    if authority.groups and (beyond := sorted(set(details.groups) - set(authority.groups))):
        raise Invalid(f"the authority does not allow the group {beyond[0]!r}")
    for allowed, wanted in (
        ([each.network for each in authority.ips], [each.network for each in details.ips]),
        (list(authority.subnets), list(details.subnets)),
    ):
        for network in wanted:
            if allowed and not any(network.subnet_of(each) for each in allowed):
                raise Invalid(f"the authority does not allow the network {network}")


# The wire format.


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field_varint(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _field_bytes(number: int, value: bytes, *, keep_empty: bool = False) -> bytes:
    """Encode a field; a zero value is omitted, except in a repeated field, where its place counts."""
    if not value and not keep_empty:
        return b""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _pack_pairs(networks: Iterable[IPv4Interface | IPv4Network]) -> bytes:
    packed = bytearray()
    for each in networks:
        address = each.ip if isinstance(each, IPv4Interface) else each.network_address
        packed += _varint(int(address)) + _varint(int(each.netmask))
    return bytes(packed)


def _unpack_pairs(body: bytes, what: str) -> Iterator[tuple[int, int]]:
    numbers: list[int] = []
    position = 0
    while position < len(body):
        value, position = _read_varint(body, position, f"certificate's {what}")
        if value > _MAX_UINT32:
            raise Invalid(f"the certificate's {what} have a number of more than 32 bits")
        numbers.append(value)
    if len(numbers) % 2:
        raise Invalid(f"the certificate's {what} are not pairs of address and mask")
    for address, mask in zip(numbers[::2], numbers[1::2], strict=True):
        inverse = mask ^ _MAX_UINT32
        if inverse & (inverse + 1):
            raise Invalid(f"the certificate's {what} have a mask that is not a prefix: {IPv4Address(mask)}")
        yield address, 32 - inverse.bit_length()


def _unpack_interfaces(body: bytes) -> Iterator[IPv4Interface]:
    for address, length in _unpack_pairs(body, "addresses"):
        yield IPv4Interface((address, length))


def _unpack_networks(body: bytes) -> Iterator[IPv4Network]:
    for address, length in _unpack_pairs(body, "subnets"):
        network = IPv4Network((address, length), strict=False)
        if int(network.network_address) != address:
            raise Invalid(f"the certificate's subnet {IPv4Address(address)}/{length} has host bits set")
        yield network


def _read_varint(body: bytes, start: int, what: str) -> tuple[int, int]:
    """Return a number and the position after it; only the shortest form of at most 64 bits is taken."""
    value = 0
    for count, byte in enumerate(body[start : start + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if byte == 0 and count:
                raise Invalid(f"the {what} holds a number that is not in its shortest form")
            if value >= 2**64:
                raise Invalid(f"the {what} holds a number of more than 64 bits")
            return value, start + count + 1
    if len(body) - start >= _MAX_VARINT_BYTES:
        raise Invalid(f"the {what} holds a number of more than {_MAX_VARINT_BYTES} bytes")
    raise Invalid(f"the {what} is cut off inside a number")


def _fields(
    body: bytes, what: str, known: dict[int, int], *, repeated: int | None = None
) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message; each one known, of its type, in ascending order, and not a zero value."""
    position = 0
    previous = 0
    while position < len(body):
        tag, position = _read_varint(body, position, what)
        number, wire_type = tag >> 3, tag & 7
        if number not in known:
            raise Invalid(f"the {what} has the unknown field {number}")
        if wire_type != known[number]:
            raise Invalid(f"field {number} of the {what} has the wrong type")
        if number == previous and number != repeated:
            raise Invalid(f"field {number} of the {what} is there twice")
        if number < previous:
            raise Invalid(f"field {number} of the {what} comes after field {previous}")
        previous = number
        value, position = _read_varint(body, position, what)
        if wire_type == _VARINT:
            if value == 0:
                raise Invalid(f"field {number} of the {what} is written although it is zero")
            yield number, value
            continue
        if value > len(body) - position:
            raise Invalid(f"field {number} of the {what} is longer than what is left")
        if value == 0 and number != repeated:
            raise Invalid(f"field {number} of the {what} is written although it is empty")
        yield number, body[position : position + value]
        position += value


def _as_bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)  # _fields checked the wire type
    return value


def _as_int(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the certificate's {what} is not UTF-8") from None
