"""Starting, as the laboratory measures it: real interpreters and servers, a single time each, and nothing is judged."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Unavailable
from edgegc.perf import cpus, page_cache, process
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.scenarios import idle, imports, start

if TYPE_CHECKING:
    from collections.abc import Iterator


def a_bench(directory: Path, scenario: str, *cases: str, command: tuple[str, ...] | None = None) -> Bench:
    laboratory = Laboratory(suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), command=command)
    return Bench(laboratory, scenario=scenario, cases=cases or ("",), repetition=0)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a name that leaves room for those of sockets."""
    with tempfile.TemporaryDirectory(prefix="perf-") as directory:
        yield Path(directory)


async def test_imports_are_told_apart_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "PACKAGES", {"python": "sys", "trio": "trio"})
    bench = a_bench(tmp_path, "start.import", "python", "trio")
    await imports.imports(bench)
    bare, trio_ = (bench.found[case].measurements[0] for case in ("python", "trio"))
    assert bare.requests == trio_.requests == 1
    assert trio_.figures["rss_added"].value > bare.figures["rss_added"].value + 1_000_000
    assert trio_.figures["private_total"].value > trio_.figures["private_added"].value


async def test_another_releases_packages_are_not_taken_for_ours(tmp_path: Path) -> None:
    bench = a_bench(tmp_path, "start.import", "python", command=("python", "other.pyz"))
    with pytest.raises(Unavailable, match="another release"):
        await imports.imports(bench)


async def test_what_cannot_unpack_itself_has_no_first_run(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"does not run from a \.pyz"):
        await start.pyz_first_run(a_bench(tmp_path, "start.pyz_first_run"))


async def test_warm_and_cold_starts_are_starts_of_a_server(short: Path) -> None:
    warm = a_bench(short, "start.warm")
    await start.warm(warm)
    (measured,) = warm.found[""].measurements
    assert measured.requests == 1
    assert measured.figures["first_answer"].value > 0.05
    assert [mark.what for mark in measured.marks] == ["restart"]
    cold = a_bench(short, "start.cold")
    # On a file system in memory nothing can be forgotten: there it is unavailable, and measures nothing.
    with suppress(Unavailable):
        await start.cold(cold)
        (measured,) = cold.found[""].measurements
        assert measured.figures["first_answer"].value > 0.05
        assert measured.figures["still_in_memory"].value <= start.MOSTLY_PERCENT


async def test_an_idle_server_is_measured_alone_polled_and_holding(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "QUICK_NODES", 20)
    monkeypatch.setattr(idle, "QUICK_WINDOW_S", 1.0)
    cases = ("registered", "polling", "longpoll")
    bench = a_bench(short, "start.idle_cost", *cases)
    await idle.idle_cost(bench)
    found = {case: bench.found[case].measurements[0] for case in cases}
    assert all(not each.errors for each in found.values())
    assert found["longpoll"].latency.counts == ()
    assert "flushed_per_hour" not in found["registered"].figures
    for case in ("polling", "longpoll"):
        figures = found[case].figures
        assert figures["written_per_hour"].value >= figures["flushed_per_hour"].value > 0
    assert found["registered"].figures["cpu_percent"].value >= 0
    assert "in 1 s" in found["registered"].figures["written_per_hour"].note


def test_what_a_process_has_mapped_can_be_found_in_memory() -> None:
    mapped = process.mapped_files(os.getpid())
    assert len(mapped) > 3
    assert set(page_cache.loaded(mapped[:3])) == set(mapped[:3])
