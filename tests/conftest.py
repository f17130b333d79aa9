"""Options and fixtures for every test: which tests run, and which nebula binaries they run with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("edgegc")
    group.addoption("--long", action="store_true", help="also run the tests marked long")
    group.addoption(
        "--nebula-dir",
        type=Path,
        default=os.environ.get("EDGEGC_NEBULA_DIR"),
        metavar="DIR",
        help="also run the tests of the fixture nebula with every nebula executable found under DIR (long)",
    )


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
