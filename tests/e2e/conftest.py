"""Fixtures of the end-to-end tests: the program under test, and a network of namespaces for each test."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.network import Network, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
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
def program(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The command under test: the file at ``EDGEGC_PYZ``, else one built for this run; ``source`` means the source tree."""
    given = os.environ.get("EDGEGC_PYZ")
    if given == "source":
        return (sys.executable, "-m", "edgegc")
    return (str(Path(given).resolve() if given else request.getfixturevalue("pyz")),)


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
