"""Kept answers: for a day, a bounded number of them, and opened only with the sender's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.control import housekeeping, repetition, tenants
from edgegc.errors import Conflict, Error
from edgegc.model import message
from edgegc.model.credential import Repeatable
from edgegc.store.vault import Vault
from tests.control_plane import MASTER, OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    import sqlite3


async def create(plane: Plane, name: str, *, key: str = "key", body: bytes = b"body") -> message.TenantView:
    asked = Repeatable(key=key, scope="POST /api/v1/tenants", body_digest=body)
    caller = msgspec.structs.replace(OPERATOR, repeatable=asked)
    return await tenants.create(plane.control, caller, message.TenantCreate(name=name))


async def kept(plane: Plane) -> int:
    def job(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT COUNT(*) FROM kept_answers").fetchone()[0])

    return await plane.control.database.read(job)


async def test_an_answer_is_kept_for_a_day_and_then_trimmed() -> None:
    async with control_plane() as plane:
        made = await create(plane, "one")
        plane.clock.at += repetition.KEPT_S - 1
        assert await create(plane, "one") == made
        plane.clock.at += 1
        with pytest.raises(Conflict, match="already exists"):
            await create(plane, "one")
        other = await create(plane, "two", body=b"other")
        assert other.id != made.id
        await create(plane, "three", key="third")
        plane.clock.at += repetition.KEPT_S
        await housekeeping.trim(plane.control)
        assert await kept(plane) == 0


async def test_of_too_many_answers_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "MOST_KEPT", 3)
    async with control_plane() as plane:
        for number in range(5):
            await create(plane, f"t-{number}", key=f"key-{number}")
        assert await kept(plane) == 3
        with pytest.raises(Conflict, match="already exists"):
            await create(plane, "t-0", key="key-0")
        assert (await create(plane, "t-4", key="key-4")).name == "t-4"


def test_what_is_sealed_for_a_secret_opens_only_with_it() -> None:
    vault = Vault(MASTER)
    box = vault.seal_for("secret", "purpose", b"plain", context="row")
    assert vault.unseal_for("secret", "purpose", box, context="row") == b"plain"
    for secret, purpose, context in (
        ("other", "purpose", "row"),
        ("secret", "x", "row"),
        ("secret", "purpose", "x"),
    ):
        with pytest.raises(Error, match="can't be opened"):
            vault.unseal_for(secret, purpose, box, context=context)
    with pytest.raises(Error, match="can't be opened"):
        vault.unseal("purpose", box, context="row")
    with pytest.raises(Error, match="can't be opened"):
        Vault(bytes(32)).unseal_for("secret", "purpose", box, context="row")
