"""Who lighthouses run as."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgegc.lighthouse import account

if TYPE_CHECKING:
    import pytest


def test_without_root_lighthouses_run_as_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.choose("edgegc-nebula") == (None, None, None)


def test_a_missing_user_falls_back_to_nobody_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    chosen = account.choose("no-such-user")
    assert chosen.user == "nobody"
    assert chosen.warning is not None
    assert "useradd --system" in chosen.warning
    assert account.choose("nobody").warning is None
