"""The whole API against its own document: schemathesis, all its checks, real tokens, a daemon of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.settings import Nebula
from tests.box import box_settings, running_box

if TYPE_CHECKING:
    import pytest

TOP = Path(__file__).parents[2]
NETWORK = "10.42.0.0/16"
MAX_TIME_S = 60
"""What the run may take before it stops making up more; two minutes with all around it."""
LIMIT_S = 240


async def test_schemathesis_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False, "json_body_bytes": 1_048_576})
    settings = msgspec.structs.replace(settings, nebula=Nebula(path=tmp_path / "no-nebula"))
    with caplog.at_level(logging.ERROR):
        async with running_box(tmp_path / "data", settings) as box:
            cluster = await box.cluster(network_cidr=NETWORK)
            cluster_id = cluster["id"]
            operator = await box.made("/api/v1/api-tokens", {"scopes": ["operator"], "label": "the test"})
            node = await box.admin(cluster_id)
            key = await box.key(cluster_id, uses=None)
            key_id = str(uuid.UUID(key.split("_")[1]))
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(TOP),
                "EDGEGC_TEST_CLUSTER": cluster_id,
                "EDGEGC_TEST_KEPT": " ".join(
                    (cluster["tenant_id"], cluster_id, operator["id"], node["id"], key_id)
                ),
                "EDGEGC_TEST_NETWORK": NETWORK,
                "EDGEGC_TEST_OPERATOR": operator["token"],
                "EDGEGC_TEST_NODE": node["node_token"],
                "EDGEGC_TEST_KEY": key,
            }
            with trio.fail_after(LIMIT_S):
                ended = await trio.run_process(
                    [
                        *(sys.executable, "-m", "schemathesis.cli"),
                        *("--config-file", str(TOP / "tests/schemathesis/schemathesis.toml")),
                        *("run", f"http://127.0.0.1:{box.port}/openapi.json"),
                        *("--checks", "all", "--max-time", str(MAX_TIME_S)),
                    ],
                    cwd=tmp_path,
                    env=environment,
                    capture_stdout=True,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
    print(ended.stdout.decode())
    assert ended.returncode == 0
    # What no status shows. Lighthouses may well fail: here they have no nebula.
    told = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert not [one.getMessage() for one in told if not one.name.startswith("edgegc.lighthouse")]
