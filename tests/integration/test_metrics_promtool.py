"""What ``/metrics`` says of a box with work, real lighthouse included, held against Prometheus's own linter."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.nebula import record
from tests.box import box_settings, running_box

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
LIMIT_S = 30.0

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory below one that the lighthouse's user passes through, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="edgegc-metrics-", dir="/tmp") as made:
        Path(made).chmod(0o711)
        yield Path(made) / "data"
        # Lighthouses outlive their box, as they should.
        for path in Path(made).glob("data/lighthouses/*/process.json"):
            known = record.load(path)
            if known is not None and known.pid is not None and record.names(known, known.pid):
                os.kill(known.pid, signal.SIGKILL)


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("0.0.0.0", 0))
        port: int = bound.getsockname()[1]
        return port


def complaints(exposition: bytes) -> tuple[int, str]:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=exposition, capture_output=True, check=False, timeout=LIMIT_S
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def test_the_linter_complains_of_what_is_wrong() -> None:
    code, said = complaints(b"# TYPE edgegc_time_ms counter\nedgegc_time_ms 1\n")
    assert code != 0
    assert "edgegc_time_ms" in said


async def test_promtool_finds_nothing_wrong_with_the_metrics_of_a_box_at_work(data: Path) -> None:
    port = free_udp_port()
    async with running_box(data, box_settings(data)) as box:
        home = await box.cluster(
            "home",
            provide_lighthouse=True,
            lighthouse_port=port,
            lighthouse_public_addresses=[f"192.0.2.1:{port}"],
        )
        await box.cluster("office", network_cidr="10.43.0.0/16", mode="uploaded")
        node = await box.enrolled(home["id"], "pi-1")
        await box.admin(home["id"])
        await box.made("/api/v1/maintenance/backup", None)
        headers = {"Edgegc-Applied": "1", "Edgegc-State": "failed", "Edgegc-Nebula": "nonsense \x7f"}
        await box.request("GET", "/api/v1/config/version", token=node["node_token"], headers=headers)
        assert (await box.request("GET", "/api/v1/config/bundle", token=node["node_token"])).status == 200
        assert (await box.request("GET", "/nowhere")).status == 404
        assert (await box.request("GET", "/api/v1/topology", token="egn_nobody")).status == 401
        with trio.fail_after(LIMIT_S):
            while True:
                exposition = (await box.request("GET", "/metrics")).body
                # The resident memory is there once the sampler has seen the process.
                if re.search(rb"^edgegc_lighthouse_rss_bytes\{", exposition, re.MULTILINE):
                    break
                await trio.sleep(0.1)
    assert await trio.to_thread.run_sync(complaints, exposition) == (0, "")
    families = re.findall(r"^# TYPE (\S+) ", exposition.decode(), re.MULTILINE)
    assert len(families) == len(set(families)) > 40
