"""Fixtures of tests that need more than a function call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.api import plain, tls

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.api.tls import Identity


@pytest.fixture(params=["inline", "general"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests answered inline, or take all of them for odd, so that Hypercorn's protocol answers them."""
    if request.param == "general":
        monkeypatch.setattr(plain, "read", lambda _received, limit: plain.Unfit.ODD)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """Return a certificate and key of the server's own."""
    return tls.self_signed(tmp_path / "tls", names=("127.0.0.1",), now=1_800_000_000)
