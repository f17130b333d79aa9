"""Fixtures of the end-to-end tests: the program under test, and a network of namespaces for each test."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.network import Network, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BUILD_LIMIT_S = 600
TOOLS = ("ip", "nsenter", "ping", "nebula")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    reason = "needs root" if os.geteuid() != 0 else f"needs {', '.join(missing)}" if missing else None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of every log of the network beside a failure."""
    report = yield
    network = getattr(item, "funcargs", {}).get("network")
    if report.failed and isinstance(network, Network):
        report.sections.extend((f"log {name}", text) for name, text in network.logs())
    return report


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command under test: ``EDGEGC_PYZ``, else one built for this run, or with ``EDGEGC_PYZ=source`` the source tree."""
    given = os.environ.get("EDGEGC_PYZ")
    if given == "source":
        return (sys.executable, "-m", "edgegc")
    if given:
        return (str(Path(given).resolve()),)
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "program"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        # Workers of one run share the file: the first one in builds it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(shared.glob("*.pyz")):
            done = subprocess.run(
                [ROOT / "packaging" / "build", "--out", shared],
                capture_output=True,
                text=True,
                check=False,
                timeout=BUILD_LIMIT_S,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    (built,) = shared.glob("*.pyz")
    return (str(built),)


@pytest.fixture(scope="session")
def _swept() -> None:
    sweep()


@pytest.fixture
def network(_swept: None, program: tuple[str, ...]) -> Iterator[Network]:
    """An empty network; hosts are plugged in by the test."""
    environment = {
        "PYTHONPATH": str(ROOT) if program[0] == sys.executable else "",
        "NO_COLOR": "1",
        # Unpacked once for all tests of a run, beside the file.
        "SHIV_ROOT": str(Path(program[0]).parent / "shiv"),
    }
    with Network(environment=environment) as network:
        yield network
