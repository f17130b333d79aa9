"""``cluster rotate-ca`` and ``clock``, as processes against a daemon."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.box import Box, running_box

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


async def edgegc(box: Box, *words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, "-m", "edgegc", *words, "--data-dir", str(box.data)],
        env={**os.environ, **environ},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_rotate_ca_shows_takes_refuses_and_forces(box: Box) -> None:
    cluster = await box.cluster("home")
    await box.enrolled(cluster["id"], "one")
    shown = await edgegc(box, "cluster", "rotate-ca", "home")
    assert shown.returncode == 0
    assert "phase" in shown.stdout.decode()
    before = await edgegc(box, "status")
    taken = await edgegc(box, "cluster", "rotate-ca", "home", "--step", "prepare", "-o", "json")
    assert json.loads(taken.stdout)["phase"] == "prepared"
    refused = await edgegc(box, "cluster", "rotate-ca", "--step", "issue")
    assert refused.returncode == 3
    assert "waiting for one, which would be cut off; --force does it" in refused.stderr.decode()
    assert b"rotation" not in before.stdout
    screen = await edgegc(box, "status")
    following = "waiting for one, then 'edgegc cluster rotate-ca home --step issue'"
    assert f"home: CA rotation, phase prepared: {following}" in " ".join(screen.stdout.decode().split())
    narrow = (await edgegc(box, "status", COLUMNS="40")).stdout.decode().splitlines()
    assert max(len(line) for line in narrow if not line.startswith("last backup")) <= 40
    late = await edgegc(box, "cluster", "rotate-ca", "--wait", "--timeout", "0.1")
    assert late.returncode == 1
    assert "1 have not applied this step" in late.stderr.decode()
    forced = await edgegc(box, "cluster", "rotate-ca", "--step", "issue", "--force", "--quiet")
    assert (forced.returncode, forced.stdout) == (0, b"issued\n")
    usage = await edgegc(box, "cluster", "rotate-ca", "--force")
    assert usage.returncode == 2


async def test_a_trusted_clock_is_said_to_be_and_needs_no_acceptance(box: Box) -> None:
    await box.cluster("home")
    for _ in range(100):
        if (await box.request("GET", "/health/ready")).json["checks"].get("clock") == "ok":
            break
        await trio.sleep(0.05)
    shown = await edgegc(box, "clock", "-o", "json")
    assert (shown.returncode, json.loads(shown.stdout)) == (0, {"clock": "ok"})
    accepted = await edgegc(box, "clock", "--accept")
    assert accepted.returncode == 0
    assert "trusted already" in accepted.stdout.decode()
