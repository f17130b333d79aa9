"""The master key's file, sealed secrets, token digests."""

from __future__ import annotations

import hmac
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc import errors
from edgegc.store.vault import Mac, Vault, open_vault

VAULT = Vault(b"m" * 32)


def test_an_empty_directory_gets_a_private_key_that_stays(tmp_path: Path) -> None:
    box = open_vault(tmp_path).seal("ca", b"secret", context="id")
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600
    assert open_vault(tmp_path).unseal("ca", box, context="id") == b"secret"


def test_a_database_that_lost_its_key_is_refused_and_gets_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "edgegc.db").write_bytes(b"content")
    with pytest.raises(errors.NotFound, match=r"master\.key is missing"):
        open_vault(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["edgegc.db"]


def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    open_vault(tmp_path)
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(errors.Forbidden, match="chmod 600"):
        open_vault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 64, b"00" * 31 + b"\n", b"00" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(errors.Invalid, match="damaged"):
        open_vault(tmp_path)


def test_of_two_starts_at_once_the_second_takes_the_key_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_vault(tmp_path)
    # The second looked before the first had made it.
    monkeypatch.setattr(Path, "exists", lambda path: False)
    second = open_vault(tmp_path)
    assert first.token_digest("t") == second.token_digest("t")
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


@given(st.binary(max_size=300), st.text(max_size=40), st.text(max_size=40))
def test_what_is_sealed_comes_back(plaintext: bytes, purpose: str, context: str) -> None:
    box = VAULT.seal(purpose, plaintext, context=context)
    assert VAULT.unseal(purpose, box, context=context) == plaintext
    assert VAULT.seal(purpose, plaintext, context=context) != box


BOX = VAULT.seal("ca", b"secret", context="id")


@pytest.mark.parametrize(
    ("vault", "purpose", "box", "context"),
    [
        pytest.param(Vault(b"n" * 32), "ca", BOX, "id", id="another master key"),
        pytest.param(VAULT, "signer", BOX, "id", id="another purpose"),
        pytest.param(VAULT, "ca", BOX, "other id", id="another record"),
        pytest.param(VAULT, "ca", BOX[:-1], "id", id="cut short"),
        pytest.param(VAULT, "ca", BOX[:5], "id", id="cut within the nonce"),
        pytest.param(VAULT, "ca", b"", "id", id="empty"),
        pytest.param(VAULT, "ca", b"\x02" + BOX[1:], "id", id="another format"),
    ],
)
def test_a_box_opens_only_where_it_belongs(vault: Vault, purpose: str, box: bytes, context: str) -> None:
    with pytest.raises(errors.Error, match=r"can't be opened"):
        vault.unseal(purpose, box, context=context)


@given(st.integers(0, len(BOX) * 8 - 1))
def test_a_box_with_one_flipped_bit_does_not_open(bit: int) -> None:
    altered = bytearray(BOX)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(errors.Error):
        VAULT.unseal("ca", bytes(altered), context="id")


def test_token_digests_depend_on_the_token_and_the_key() -> None:
    assert VAULT.token_digest("a") == VAULT.token_digest("a")
    assert len({VAULT.token_digest("a"), VAULT.token_digest("b"), Vault(b"n" * 32).token_digest("a")}) == 3
    assert len(VAULT.token_digest("a")) == 32
    VAULT.token_digest("\udcff")


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_a_code_is_hmac_sha256(key: bytes, message: bytes) -> None:
    mac = Mac(key)
    assert mac.digest(message) == mac.digest(message) == hmac.digest(key, message, "sha256")


def test_derivation_is_the_same_in_every_release() -> None:
    """A changed derivation would lock every database that exists."""
    vault = Vault(bytes(32))
    box = bytes.fromhex("01000102030405060708090a0b91eda602f7aec067d7900d4dca2db5cd017ee6862848")
    assert vault.unseal("ca", box, context="id") == b"secret"
    assert vault.token_digest("egn_0_0").hex() == (
        "6b0ebb194bd967b361850cfedad86b313f77ef011f326c7f42355b5dfd53d66a"
    )
