from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.errors import Invalid
from edgegc.nebula import keys


def test_an_x25519_pair_is_32_and_32_bytes_and_belongs_together() -> None:
    pair = keys.generate_x25519()
    assert (len(pair.private), len(pair.public)) == (32, 32)
    assert keys.x25519_public_of(pair.private) == pair.public


def test_an_ed25519_private_key_is_the_seed_and_then_the_public_key() -> None:
    pair = keys.generate_ed25519()
    assert (len(pair.private), len(pair.public)) == (64, 32)
    assert pair.private[32:] == pair.public


def test_pem_reads_back_what_it_wrote() -> None:
    host, authority = keys.generate_x25519(), keys.generate_ed25519()
    assert keys.parse_x25519_private(keys.pem_x25519_private(host.private)) == host.private
    assert keys.parse_x25519_public(keys.pem_x25519_public(host.public)) == host.public
    assert keys.parse_ed25519_private(keys.pem_ed25519_private(authority.private)) == authority.private
    assert keys.parse_ed25519_public(keys.pem_ed25519_public(authority.public)) == authority.public


def test_a_pair_does_not_show_its_private_half() -> None:
    pair = keys.generate_x25519()
    assert repr(pair) == f"KeyPair(public={pair.public.hex()})"


LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
"""The points of low order of Curve25519, as listed in libsodium."""


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_public_key_of_low_order_is_refused(point: str) -> None:
    with pytest.raises(Invalid, match="low order"):
        keys.parse_x25519_public(keys.pem_x25519_public(bytes.fromhex(point)))


GOOD = keys.pem_x25519_public(keys.generate_x25519().public)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected exactly one PEM block NEBULA X25519 PUBLIC KEY, found 0"),
        (GOOD + GOOD, "expected exactly one PEM block NEBULA X25519 PUBLIC KEY, found 2"),
        (
            keys.pem_ed25519_public(b"1" * 32),
            "expected the PEM block NEBULA X25519 PUBLIC KEY, found NEBULA ED25519",
        ),
        (
            keys.encode_pem(keys.X25519_PUBLIC, b"short"),
            "NEBULA X25519 PUBLIC KEY holds 5 bytes, 32 are right",
        ),
        ("hello\n" + GOOD, "not PEM"),
        (GOOD + "hello", "not PEM"),
        (GOOD.replace("-----END NEBULA X25519", "-----END NEBULA X25520"), "not PEM"),
        (
            "-----BEGIN NEBULA X25519 PUBLIC KEY-----\nabc\n-----END NEBULA X25519 PUBLIC KEY-----\n",
            "base64 inside the PEM",
        ),
        (" " * (keys.MAX_PEM_CHARACTERS + 1), "longer than"),
    ],
)
def test_a_broken_public_key_is_refused_with_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        keys.parse_x25519_public(text)


def test_windows_line_ends_are_taken() -> None:
    assert keys.parse_x25519_public(GOOD.replace("\n", "\r\n")) == keys.parse_x25519_public(GOOD)


def test_an_ed25519_private_key_with_the_public_half_of_another_is_refused() -> None:
    broken = keys.generate_ed25519().private[:32] + keys.generate_ed25519().public
    with pytest.raises(Invalid, match="its own seed"):
        keys.parse_ed25519_private(keys.pem_ed25519_private(broken))


@given(st.text())
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    with contextlib.suppress(Invalid):
        keys.decode_pem_blocks(text)


@given(st.lists(st.tuples(st.from_regex(r"[A-Z0-9 ]{1,20}", fullmatch=True), st.binary()), max_size=4))
def test_any_sequence_of_blocks_reads_back(blocks: list[tuple[str, bytes]]) -> None:
    text = "".join(keys.encode_pem(label, body) for label, body in blocks)
    assert keys.decode_pem_blocks(text) == blocks
