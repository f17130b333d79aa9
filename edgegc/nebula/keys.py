"""Key pairs and their PEM forms, as ``nebula-cert`` writes them. Knows no certificates, no files and no storage.

Hosts have X25519 keys, certificate authorities and bundle signers Ed25519 keys. No message of an error made
here ever shows key bytes.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgegc.errors import Invalid

KEY_BYTES = 32
"""An X25519 key of either kind, an Ed25519 public key, an Ed25519 seed."""
ED25519_PRIVATE_BYTES = 64
"""Nebula keeps Ed25519 private keys as Go does: the seed, then the public key."""
MAX_PEM_CHARACTERS = 1_048_576
"""No PEM text of ours comes near this: a bundle of authorities has a few hundred bytes for each."""

X25519_PRIVATE = "NEBULA X25519 PRIVATE KEY"
X25519_PUBLIC = "NEBULA X25519 PUBLIC KEY"
ED25519_PRIVATE = "NEBULA ED25519 PRIVATE KEY"
ED25519_PUBLIC = "NEBULA ED25519 PUBLIC KEY"

_X25519_PRIME = 2**255 - 19
_X25519_MASK = 2**255 - 1
_LOW_ORDER = frozenset(
    (
        0,
        1,
        _X25519_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)
"""The points of Curve25519 and its twist whose order divides eight: every private key takes them to zero. A look at the
list costs a hundredth of trying it, and every enrolment pays."""

_PEM_COLUMNS = 64
_PEM_BLOCK = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]{1,64})-----\n(?P<body>[A-Za-z0-9+/=\n]*)-----END (?P=label)-----(?:\n|\Z)"
)


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """Raw key bytes: X25519 32 and 32, Ed25519 64 (seed, then public key) and 32."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        """Show the public half only: a traceback or a log must not hold the other one."""
        return f"KeyPair(public={self.public.hex()})"


def generate_x25519() -> KeyPair:
    """Make a host's key pair."""
    key = X25519PrivateKey.generate()
    return KeyPair(private=key.private_bytes_raw(), public=key.public_key().public_bytes_raw())


def generate_ed25519() -> KeyPair:
    """Make the key pair of an authority or of a bundle signer."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return KeyPair(private=key.private_bytes_raw() + public, public=public)


def x25519_public_of(private: bytes) -> bytes:
    """Return the public key that belongs to an X25519 private key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# An authority signs with one key for years, and opening it costs as much as signing with it.
@functools.lru_cache(maxsize=16)
def ed25519_signing_key(private: bytes) -> Ed25519PrivateKey:
    """Return the signing object of a 64-byte Ed25519 private key; :class:`Invalid` if its halves disagree."""
    if len(private) != ED25519_PRIVATE_BYTES:
        raise Invalid(f"an Ed25519 private key has {ED25519_PRIVATE_BYTES} bytes, this one {len(private)}")
    key = Ed25519PrivateKey.from_private_bytes(private[:KEY_BYTES])
    if key.public_key().public_bytes_raw() != private[KEY_BYTES:]:
        raise Invalid("the Ed25519 private key does not hold the public key of its own seed")
    return key


def pem_x25519_private(private: bytes) -> str:
    """Return a host's private key as the text of a ``host.key``."""
    return encode_pem(X25519_PRIVATE, private)


def pem_x25519_public(public: bytes) -> str:
    """Return a host's public key as PEM, as a node sends it."""
    return encode_pem(X25519_PUBLIC, public)


def pem_ed25519_private(private: bytes) -> str:
    """Return an authority's private key as the text of a ``ca.key``."""
    return encode_pem(ED25519_PRIVATE, private)


def pem_ed25519_public(public: bytes) -> str:
    """Return an Ed25519 public key as PEM."""
    return encode_pem(ED25519_PUBLIC, public)


def parse_x25519_private(text: str) -> bytes:
    """Return the 32 bytes of a host's private key; :class:`Invalid` says what is wrong with the text."""
    return _parse_key(text, X25519_PRIVATE, KEY_BYTES)


def parse_x25519_public(text: str) -> bytes:
    """Return the 32 bytes of a host's public key; :class:`Invalid` says what is wrong with the text.

    Points of low order (zero among them) are refused: a tunnel with such a key has a secret everybody knows.
    """
    public = _parse_key(text, X25519_PUBLIC, KEY_BYTES)
    check_x25519_public(public)
    return public


def parse_ed25519_private(text: str) -> bytes:
    """Return the 64 bytes of an authority's private key; :class:`Invalid` says what is wrong with the text."""
    private = _parse_key(text, ED25519_PRIVATE, ED25519_PRIVATE_BYTES)
    ed25519_signing_key(private)
    return private


def parse_ed25519_public(text: str) -> bytes:
    """Return the 32 bytes of an Ed25519 public key; :class:`Invalid` says what is wrong with the text."""
    return _parse_key(text, ED25519_PUBLIC, KEY_BYTES)


def check_x25519_public(public: bytes) -> None:
    """Raise :class:`Invalid` unless these are 32 bytes of a usable X25519 public key."""
    if len(public) != KEY_BYTES:
        raise Invalid(f"an X25519 public key has {KEY_BYTES} bytes, this one {len(public)}")
    # Implementations ignore the top bit and reduce what is left, so the same point has several forms.
    if (int.from_bytes(public, "little") & _X25519_MASK) % _X25519_PRIME in _LOW_ORDER:
        raise Invalid("the X25519 public key is a point of low order: nothing sent to it would be secret")


def encode_pem(label: str, body: bytes) -> str:
    """Return a PEM block as Go's ``encoding/pem`` writes it: 64 columns, no headers, a final newline."""
    text = base64.b64encode(body).decode("ascii")
    lines = [text[start : start + _PEM_COLUMNS] for start in range(0, len(text), _PEM_COLUMNS)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def decode_pem_blocks(text: str) -> list[tuple[str, bytes]]:
    """Return label and content of every PEM block of a text in which there is nothing else but white space.

    Line ends may be those of Windows, lines of any length. Raises :class:`Invalid` for anything that is not PEM.
    """
    if len(text) > MAX_PEM_CHARACTERS:
        raise Invalid(f"the PEM text is longer than {MAX_PEM_CHARACTERS} characters")
    text = text.replace("\r\n", "\n").strip() + "\n"
    blocks: list[tuple[str, bytes]] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _PEM_BLOCK.match(text, position)
        if match is None:
            raise Invalid(
                "this is not PEM: expected -----BEGIN …-----, base64 and -----END …-----, nothing else"
            )
        try:
            body = base64.b64decode(match["body"].replace("\n", ""), validate=True)
        except binascii.Error:
            raise Invalid(f"the base64 inside the PEM block {match['label']} is broken") from None
        blocks.append((match["label"], body))
        position = match.end()
    return blocks


def _parse_key(text: str, label: str, size: int) -> bytes:
    blocks = decode_pem_blocks(text)
    if len(blocks) != 1:
        raise Invalid(f"expected exactly one PEM block {label}, found {len(blocks)}")
    found, body = blocks[0]
    if found != label:
        raise Invalid(f"expected the PEM block {label}, found {found}")
    if len(body) != size:
        raise Invalid(f"{label} holds {len(body)} bytes, {size} are right")
    return body
