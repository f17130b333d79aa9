"""Which scenarios there are, and which of them a run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Invalid, NotFound
from edgegc.perf import scenario
from edgegc.perf.run import lacks
from edgegc.perf.scenarios import mix

if TYPE_CHECKING:
    from pathlib import Path

QUICK_S = 60
"""What the quick suite may take here, with everything around it."""


def names(*only: str, suite: str = "full", also: tuple[scenario.Scenario, ...] = ()) -> set[str]:
    return {each.name for each in scenario.chosen(suite=suite, only=only, also=also)}  # type: ignore[arg-type]


def test_each_scenario_says_what_it_proves_how_long_it_takes_and_how_much_memory() -> None:
    known = scenario.every()
    assert len({each.name for each in known}) == len(known)
    for each in known:
        group, _, name = each.name.partition(".")
        assert group in scenario.GROUPS
        assert name
        assert each.proves[0].islower() or each.proves[0].isdigit(), each.name
        assert not each.proves.endswith(".")
        assert each.cases
        assert len(set(each.cases)) == len(each.cases)
        assert each.full_s > 0
        assert each.ram_bytes > 0


def test_the_quick_suite_is_a_part_of_the_full_one_and_is_quick() -> None:
    quick, full = names(suite="quick"), names()
    assert quick < full
    assert sum(each.quick_s for each in scenario.every() if each.name in quick) < QUICK_S


def test_a_pattern_chooses_from_all_there_are() -> None:
    assert {"api.version", "api.node_list"} <= names("api.*") <= names()
    assert "mix.polling" in names("mix.*")


def test_what_is_in_no_suite_is_chosen_by_name() -> None:
    assert names("load.soak_hour") == {"load.soak_hour"}
    assert "load.soak" in names("load.*")
    assert "load.soak_hour" not in names("load.*")


def test_a_scenario_is_not_tried_where_what_it_needs_is_not_there() -> None:
    assert lacks((), nebula=None, ram_bytes=100, free_bytes=100) == ""
    why = lacks((), nebula=None, ram_bytes=300 << 20, free_bytes=200 << 20)
    assert why == "it takes some 300 MiB of memory, and 200 MiB are free"
    assert "--nebula PATH" in lacks(("nebula",), nebula=None, ram_bytes=1, free_bytes=1)


def test_mixes_are_in_no_suite() -> None:
    assert not any(each.startswith("mix.") for each in names())


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(NotFound, match=r"no scenario matches 'api\.verison'"):
        names("api.*", "api.verison")


def test_a_mix_of_ones_own_is_measured_alone_or_beside_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text('proves = "that it works"\nconnections = 3\n[[ask]]\nwhat = "version"\n')
    own = mix.load(path)
    assert own.name == "mix.ours"
    assert names(also=(own,)) == {"mix.ours"}
    assert names("api.version", also=(own,)) == {"api.version", "mix.ours"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("proves = ", "Invalid value"),
        ('proves = "x"', "missing required field `ask`"),
        ('proves = "x"\n[[ask]]\nwhat = "fly"', "Invalid enum value 'fly'"),
        ('proves = "x"\nspeed = 3\n[[ask]]\nwhat = "version"', "unknown field `speed`"),
        ('proves = "x"\nconnections = 0\n[[ask]]\nwhat = "version"', r"connections"),
    ],
)
def test_a_mix_that_is_none_is_refused_with_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text)
    with pytest.raises(Invalid, match=f"mix ours.*{why}"):
        mix.load(path)
