"""Which processor the server gets, and which one the generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.perf.cpus import cpus, parse_list

if TYPE_CHECKING:
    from pathlib import Path


def machine(top: Path, siblings: dict[int, str], capacities: dict[int, int] | None = None) -> Path:
    for cpu, text in siblings.items():
        topology = top / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{text}\n")
    for cpu, value in (capacities or {}).items():
        (top / f"cpu{cpu}" / "cpu_capacity").write_text(f"{value}\n")
    return top


def test_two_cores_are_one_each(tmp_path: Path) -> None:
    chosen = cpus(allowed=[0, 1], system=machine(tmp_path, {0: "0", 1: "1"}))
    assert (chosen.server, chosen.generator, chosen.warning) == (1, 0, None)


def test_threads_of_one_core_are_avoided(tmp_path: Path) -> None:
    chosen = cpus(allowed=range(4), system=machine(tmp_path, {0: "0,3", 1: "1-2", 2: "1-2", 3: "0,3"}))
    assert (chosen.server, chosen.generator, chosen.warning) == (3, 1, None)


def test_a_small_core_does_not_measure_a_large_one(tmp_path: Path) -> None:
    system = machine(tmp_path, {n: str(n) for n in range(4)}, {0: 400, 1: 400, 2: 1024, 3: 1024})
    assert cpus(allowed=range(4), system=system).generator == 2


def test_one_processor_is_shared_with_a_warning(tmp_path: Path) -> None:
    chosen = cpus(allowed=[5], system=tmp_path)
    assert (chosen.server, chosen.generator) == (5, 5)
    assert chosen.warning is not None
    assert "one processor" in chosen.warning


def test_two_threads_of_the_only_core_are_used_with_a_warning(tmp_path: Path) -> None:
    chosen = cpus(allowed=[0, 1], system=machine(tmp_path, {0: "0-1", 1: "0-1"}))
    assert chosen.server != chosen.generator
    assert chosen.warning is not None
    assert "threads of one core" in chosen.warning


@pytest.mark.parametrize(("text", "numbers"), [("0\n", [0]), ("0-2,5\n", [0, 1, 2, 5]), ("\n", [])])
def test_lists_are_read_as_the_kernel_writes_them(text: str, numbers: list[int]) -> None:
    assert parse_list(text) == numbers
