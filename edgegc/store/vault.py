"""Owns the master key and what is derived from it: sealed secrets and token digests. Knows no table.

The key lies beside the database, not in it: a database that gets lost, without ``master.key``, gives away no CA
key, no signing key and no token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgegc import errors
from edgegc.store.snapshot import fsync

if TYPE_CHECKING:
    from pathlib import Path

MASTER_KEY_FILE = "master.key"
DATABASE_FILE = "edgegc.db"

_KEY_BYTES = 32
_BLOCK_BYTES = 64
"""Of SHA-256."""
_NONCE_BYTES = 12
"""Random nonces are safe for 2^32 boxes per purpose (NIST SP 800-38D, 8.3); a box seals a few thousand."""
_FORMAT = b"\x01"
"""First byte of every box: ChaCha20-Poly1305 (fast and constant-time on boards without AES instructions), keys
by HKDF-SHA256. Another value is how another algorithm would come in."""


class Mac:
    """HMAC-SHA256 (RFC 2104) with one key, whose two blocks are hashed once: every request of a node needs one, and a fifth
    of the time of ``hmac.digest``, in which OpenSSL looks its algorithm up each time, is what remains.
    """

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")
        if len(block) > _BLOCK_BYTES:
            raise ValueError(f"a key has at most {_BLOCK_BYTES} bytes here")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        """Return the code of a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Vault:
    """Seals and unseals with keys derived from a master key; made by :func:`open_vault`."""

    def __init__(self, master: bytes) -> None:
        if len(master) != _KEY_BYTES:
            raise ValueError(f"a master key has {_KEY_BYTES} bytes")
        self._master = master
        self._token_mac = Mac(self._derive("token-digest"))
        self._ciphers: dict[str, ChaCha20Poly1305] = {}

    def seal(self, purpose: str, plaintext: bytes, *, context: str) -> bytes:
        """Encrypt ``plaintext``; only :meth:`unseal` with the same purpose and context gets it back.

        ``purpose`` is one of a few constants and selects the key; ``context`` names the record it belongs to (its
        id), so that a box moved to another row does not open there.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher(purpose).encrypt(nonce, plaintext, context.encode())

    def unseal(self, purpose: str, box: bytes, *, context: str) -> bytes:
        """Return what was sealed. Raises Error (internal) for another master key, or a box that was altered."""
        return self._open(self._cipher(purpose), purpose, box, context)

    def seal_for(self, secret: str, purpose: str, plaintext: bytes, *, context: str) -> bytes:
        """Encrypt as :meth:`seal`, but so that opening also takes ``secret``, which is stored nowhere."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = ChaCha20Poly1305(self._derive(f"seal {purpose}", salt=secret.encode()))
        return _FORMAT + nonce + cipher.encrypt(nonce, plaintext, context.encode())

    def unseal_for(self, secret: str, purpose: str, box: bytes, *, context: str) -> bytes:
        """Return what :meth:`seal_for` sealed. Raises Error (internal) as :meth:`unseal` does."""
        cipher = ChaCha20Poly1305(self._derive(f"seal {purpose}", salt=secret.encode()))
        return self._open(cipher, purpose, box, context)

    def digest(self, purpose: str, text: str) -> bytes:
        """Return an HMAC-SHA256 by which a text is found again without being stored."""
        return hmac.digest(self._derive(f"digest {purpose}"), text.encode(), hashlib.sha256)

    def token_digest(self, token: str) -> bytes:
        """Return the HMAC-SHA256 that is stored instead of a token; compare with ``hmac.compare_digest``."""
        # surrogatepass: a header with stray bytes is a wrong token, not a crash.
        return self._token_mac.digest(token.encode("utf-8", "surrogatepass"))

    def fingerprint(self) -> str:
        """Return what tells this master key from another, and gives nothing of it away: it may be stored beside data."""
        return self._derive("fingerprint").hex()

    def _cipher(self, purpose: str) -> ChaCha20Poly1305:
        cipher = self._ciphers.get(purpose)
        if cipher is None:
            cipher = self._ciphers[purpose] = ChaCha20Poly1305(self._derive(f"seal {purpose}"))
        return cipher

    def _open(self, cipher: ChaCha20Poly1305, purpose: str, box: bytes, context: str) -> bytes:
        nonce, sealed = box[1 : 1 + _NONCE_BYTES], box[1 + _NONCE_BYTES :]
        try:
            if box[:1] != _FORMAT or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            return cipher.decrypt(nonce, sealed, context.encode())
        except InvalidTag:
            raise errors.Error(
                f"a stored secret ({purpose}) can't be opened: {MASTER_KEY_FILE} is not the one it was sealed with, "
                "or the database was altered"
            ) from None

    def _derive(self, use: str, *, salt: bytes | None = None) -> bytes:
        # No salt as a rule: the master key is uniformly random, HKDF only separates the uses (RFC 5869, 3.1).
        return HKDF(SHA256(), _KEY_BYTES, salt=salt, info=f"edgegc v1 {use}".encode()).derive(self._master)


def open_vault(directory: Path) -> Vault:
    """Read ``master.key`` of a data directory; make it (0600, fsynced) where there is neither key nor database.

    Call it before the database is made. Raises NotFound where a database has lost its key: a new key would open
    none of its secrets and accept none of its tokens. Raises Forbidden when others may read the key, Invalid when
    it is not one.
    """
    path = directory / MASTER_KEY_FILE
    try:
        if not path.exists():
            if _has_content(directory / DATABASE_FILE):
                raise errors.NotFound(
                    f"{path} is missing, and {DATABASE_FILE} can't be used without it: "
                    "put it back from a backup; nothing was changed"
                )
            _make_key(path)
        return Vault(_read_key(path))
    except OSError as error:
        raise errors.Forbidden(f"{path} can't be read or written: {error.strerror}") from error


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read(1024)
    if mode & 0o077:
        raise errors.Forbidden(f"{path} may be read by others (mode {mode & 0o777:04o}): chmod 600 {path}")
    return parse_key(text, name=str(path))


def parse_key(text: bytes, *, name: str) -> bytes:
    """Return the key that a ``master.key`` holds; ``name`` is for the error. Raises Invalid."""
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise errors.Invalid(f"{name} is damaged: it must hold {_KEY_BYTES * 2} hexadecimal digits")
    return key


def _make_key(path: Path) -> None:
    """Make the key file: complete and on the disk, or not at all; two starts at once agree on one key."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        try:
            # Hexadecimal text: it can be printed and typed in again.
            os.write(descriptor, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # link, not rename: the second of two starts must take the first one's key, not replace it.
        try:
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        partial.unlink(missing_ok=True)
    fsync(path.parent)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
