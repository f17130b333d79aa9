"""The server's own key and certificate."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgegc import errors
from edgegc.api import tls

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000
YEAR_S = 365 * 86_400


def test_the_first_start_makes_a_private_key_and_a_certificate_with_the_names(tmp_path: Path) -> None:
    made = tls.self_signed(tmp_path / "tls", names=("box.example", "192.0.2.1"), now=NOW)
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert made.key.parent.stat().st_mode & 0o777 == 0o700
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "box.example"}
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.1")]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert made.pin == hashlib.sha256(spki).hexdigest()


def test_a_later_start_changes_nothing(tmp_path: Path) -> None:
    first = tls.self_signed(tmp_path, names=("a.example",), now=NOW)
    content = first.certificate.read_bytes()
    second = tls.self_signed(tmp_path, names=("a.example",), now=NOW + YEAR_S)
    assert second == first
    assert second.certificate.read_bytes() == content


@pytest.mark.parametrize(
    ("names", "later_s"),
    [(("a.example",), 9 * YEAR_S + 86_400 * 10), (("b.example",), 0)],
    ids=["old", "names"],
)
def test_a_certificate_is_remade_under_the_same_pin(
    tmp_path: Path, names: tuple[str, ...], later_s: int
) -> None:
    first = tls.self_signed(tmp_path, names=("a.example",), now=NOW)
    content = first.certificate.read_bytes()
    second = tls.self_signed(tmp_path, names=names, now=NOW + later_s)
    assert second.pin == first.pin
    assert second.certificate.read_bytes() != content


@pytest.mark.parametrize("damage", [b"", b"not PEM"])
def test_a_damaged_certificate_is_remade(tmp_path: Path, damage: bytes) -> None:
    first = tls.self_signed(tmp_path, names=(), now=NOW)
    first.certificate.write_bytes(damage)
    assert tls.self_signed(tmp_path, names=(), now=NOW).pin == first.pin
    tls.context(first)


def test_a_damaged_key_is_never_overwritten_for_agents_have_pinned_it(tmp_path: Path) -> None:
    made = tls.self_signed(tmp_path, names=(), now=NOW)
    made.key.write_bytes(b"damaged")
    with pytest.raises(errors.Invalid, match=r"key\.pem"):
        tls.self_signed(tmp_path, names=(), now=NOW)
    assert made.key.read_bytes() == b"damaged"


def test_old_protocols_are_off(tmp_path: Path) -> None:
    context = tls.context(tls.self_signed(tmp_path, names=(), now=NOW))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_operators_own_files_have_a_pin_too(tmp_path: Path) -> None:
    made = tls.self_signed(tmp_path, names=(), now=NOW)
    assert tls.from_files(made.certificate, made.key) == made


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_files_that_are_not_there_are_named(tmp_path: Path, missing: str) -> None:
    made = tls.self_signed(tmp_path, names=(), now=NOW)
    getattr(made, missing).unlink()
    with pytest.raises(errors.Invalid, match=rf"{missing}\.pem"):
        tls.from_files(made.certificate, made.key)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one = tls.self_signed(tmp_path / "one", names=(), now=NOW)
    other = tls.self_signed(tmp_path / "other", names=(), now=NOW)
    with pytest.raises(errors.Invalid, match="can't be used"):
        tls.context(tls.from_files(one.certificate, other.key))


def test_a_pair_that_does_not_fit_leaves_the_one_in_force(tmp_path: Path) -> None:
    one = tls.self_signed(tmp_path / "one", names=(), now=NOW)
    other = tls.self_signed(tmp_path / "other", names=(), now=NOW)
    context = tls.context(one)
    with pytest.raises(errors.Invalid, match="can't be used"):
        tls.reload(context, tls.from_files(other.certificate, one.key))
    assert _served(context) == one.pin


def test_tls_1_1_is_refused_in_the_handshake(tmp_path: Path) -> None:
    context = tls.context(tls.self_signed(tmp_path, names=(), now=NOW))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        _handshake(context, client)


def _served(context: ssl.SSLContext) -> str:
    """Return the pin of what a server's context shows to a client."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    shown = _handshake(context, client).getpeercert(binary_form=True)
    assert shown is not None
    return tls.pin_of(x509.load_der_x509_certificate(shown))


def _handshake(context: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0]
