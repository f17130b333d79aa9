"""``nebula-cert`` is the oracle: what we sign is what it would have signed, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegc.nebula import certificate as certificates
from edgegc.nebula import keys

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("nebula-cert") is None, reason="nebula-cert is not installed")

HOUR_S = 3600
# A process per example: few examples, and no deadline on a busy machine.
oracle = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}", fullmatch=True)
addresses = st.integers(1, 2**32 - 2)
overlays = st.builds(lambda a, n: IPv4Interface((a, n)), addresses, st.integers(8, 32))
networks = st.builds(
    lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


def nebula_cert(*arguments: object) -> str:
    command = ["nebula-cert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh(directory: Path, *names: str) -> list[Path]:
    paths = [directory / name for name in names]
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


@oracle
@given(
    name=words,
    overlay=overlays,
    subnets=st.lists(networks, max_size=4, unique=True),
    groups=st.lists(words, max_size=4, unique=True),
    duration_s=st.integers(60, 360 * 24 * HOUR_S),
)
def test_a_certificate_is_byte_identical_to_what_nebula_cert_signs(
    tmp_path: Path,
    name: str,
    overlay: IPv4Interface,
    subnets: list[IPv4Network],
    groups: list[str],
    duration_s: int,
) -> None:
    authority_key, host_key = keys.generate_ed25519(), keys.generate_x25519()
    now = int(time.time())
    authority = certificates.self_sign(
        name="oracle", key=authority_key, not_before=now - HOUR_S, not_after=now + 400 * 24 * HOUR_S
    )
    ca_crt, ca_key, public, out = fresh(tmp_path, "ca.crt", "ca.key", "host.pub", "host.crt")
    ca_crt.write_text(authority.pem())
    ca_key.write_text(keys.pem_ed25519_private(authority_key.private))
    public.write_text(keys.pem_x25519_public(host_key.public))
    options: list[object] = ["-name", name, "-ip", overlay, "-duration", f"{duration_s}s"]
    if subnets:
        options += ["-subnets", ",".join(map(str, subnets))]
    if groups:
        options += ["-groups", ",".join(groups)]
    nebula_cert("sign", "-ca-crt", ca_crt, "-ca-key", ca_key, "-in-pub", public, "-out-crt", out, *options)

    theirs = certificates.parse_pem(out.read_text())
    ours = certificates.sign(
        ca=authority,
        ca_private=authority_key.private,
        name=name,
        overlay=overlay,
        subnets=subnets,
        groups=groups,
        not_before=theirs.details.not_before,
        not_after=theirs.details.not_after,
        public_key=host_key.public,
    )

    assert ours.pem() == out.read_text()


@oracle
@given(
    name=words,
    overlay=overlays,
    subnets=st.lists(networks, max_size=4),
    groups=st.lists(words, max_size=4),
)
def test_nebula_cert_verifies_and_prints_what_we_sign(
    tmp_path: Path, name: str, overlay: IPv4Interface, subnets: list[IPv4Network], groups: list[str]
) -> None:
    authority_key, host_key = keys.generate_ed25519(), keys.generate_x25519()
    now = int(time.time())
    authority = certificates.self_sign(
        name="oracle", key=authority_key, not_before=now - HOUR_S, not_after=now + HOUR_S
    )
    certificate = certificates.sign(
        ca=authority,
        ca_private=authority_key.private,
        name=name,
        overlay=overlay,
        subnets=subnets,
        groups=groups,
        not_before=now - HOUR_S,
        not_after=now + HOUR_S,
        public_key=host_key.public,
    )
    ca_crt, crt = fresh(tmp_path, "ca.crt", "host.crt")
    ca_crt.write_text(authority.pem())
    crt.write_text(certificate.pem())

    nebula_cert("verify", "-ca", ca_crt, "-crt", crt)
    printed: dict[str, Any] = json.loads(nebula_cert("print", "-json", "-path", crt))

    assert printed["fingerprint"] == certificate.fingerprint
    assert printed["signature"] == certificate.signature.hex()
    assert printed["details"] | {"notBefore": None, "notAfter": None} == {
        "name": name,
        "ips": [str(overlay)],
        "subnets": [str(each) for each in subnets],
        "groups": groups,
        "isCa": False,
        "issuer": authority.fingerprint,
        "publicKey": host_key.public.hex(),
        "notBefore": None,
        "notAfter": None,
    }


def test_an_authority_is_byte_identical_to_what_nebula_cert_makes(tmp_path: Path) -> None:
    ca_crt, ca_key = tmp_path / "ca.crt", tmp_path / "ca.key"
    nebula_cert("ca", "-name", "Oracle, Inc.", "-duration", "87600h", "-out-crt", ca_crt, "-out-key", ca_key)
    theirs = certificates.parse_pem(ca_crt.read_text())
    private = keys.parse_ed25519_private(ca_key.read_text())

    ours = certificates.self_sign(
        name="Oracle, Inc.",
        key=keys.KeyPair(private=private, public=private[keys.KEY_BYTES :]),
        not_before=theirs.details.not_before,
        not_after=theirs.details.not_after,
    )

    assert ours.pem() == ca_crt.read_text()
    assert json.loads(nebula_cert("print", "-json", "-path", ca_crt))["fingerprint"] == ours.fingerprint


def test_keys_are_read_and_written_as_nebula_cert_writes_them(tmp_path: Path) -> None:
    key, public = tmp_path / "host.key", tmp_path / "host.pub"
    nebula_cert("keygen", "-out-key", key, "-out-pub", public)
    private = keys.parse_x25519_private(key.read_text())
    assert keys.pem_x25519_private(private) == key.read_text()
    assert keys.pem_x25519_public(keys.x25519_public_of(private)) == public.read_text()


def test_nebula_cert_refuses_what_verify_refuses(tmp_path: Path) -> None:
    """The twin of the first two tests: the oracle does say no."""
    authority_key = keys.generate_ed25519()
    now = int(time.time())
    authority = certificates.self_sign(
        name="oracle", key=authority_key, not_before=now - HOUR_S, not_after=now + HOUR_S
    )
    other = certificates.self_sign(
        name="other", key=keys.generate_ed25519(), not_before=now - HOUR_S, not_after=now + HOUR_S
    )
    certificate = certificates.sign(
        ca=authority,
        ca_private=authority_key.private,
        name="host",
        overlay=IPv4Interface("10.0.0.1/24"),
        subnets=(),
        groups=(),
        not_before=now - HOUR_S,
        not_after=now,
        public_key=keys.generate_x25519().public,
    )
    ca_crt, crt = tmp_path / "ca.crt", tmp_path / "host.crt"
    ca_crt.write_text(other.pem())
    crt.write_text(certificate.pem())
    done = subprocess.run(
        ["nebula-cert", "verify", "-ca", str(ca_crt), "-crt", str(crt)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
