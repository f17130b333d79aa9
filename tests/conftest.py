"""Options and fixtures for every test: which tests run, and which nebula binaries they run with."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


# A shell's background jobs ignore SIGINT, and what they start inherits that. Tests interrupt processes, wherever they run.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edgegc")
    group.addoption("--long", action="store_true", help="also run the tests marked long")
    group.addoption(
        "--nebula-dir",
        type=Path,
        metavar="DIR",
        help="also run the tests of the fixture nebula with every nebula executable found under DIR (long)",
    )

    group.addoption(
        "--no-skips", action="store_true", help="a skipped test fails: everything is installed here"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "nebula" not in metafunc.fixturenames:
        return
    system = shutil.which("nebula", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/bin")
    missing = pytest.mark.skipif(system is None, reason="nebula is not installed")
    variants = [pytest.param(Path(system or "nebula"), id="system", marks=missing)]
    directory = metafunc.config.getoption("--nebula-dir")
    if directory is not None:
        root = Path(directory).resolve()
        variants += [
            pytest.param(path, id=path.relative_to(root).parts[0], marks=pytest.mark.long)
            for path in sorted(root.rglob("nebula"))
            if path.is_file() and os.access(path, os.X_OK)
        ]
    metafunc.parametrize("nebula", variants)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .pyz of this checkout, built once for all workers of a run."""
    top = Path(__file__).parent.parent
    workers_share = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if workers_share else base) / "dist"
    out.mkdir(exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = list(out.glob("*.pyz"))
        if not built:
            done = subprocess.run(
                [top / "packaging" / "build", "--out", out],
                env={**os.environ, "PACKAGING_PYTHON": sys.executable},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            built = [Path(done.stdout.strip())]
    return built[0]
