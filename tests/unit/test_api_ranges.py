"""Entity tags and byte ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.api import ranges

LENGTH = 1000


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=900-", (900, 1000)),
        ("bytes=900-5000", (900, 1000)),
        ("bytes=-100", (900, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("BYTES = 1 - 2", (1, 3)),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("lines=0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_one_well_formed_range_is_a_part_and_anything_else_the_whole(
    header: str | None, part: tuple[int, int] | None
) -> None:
    assert ranges.part(header, LENGTH) == part


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_beyond_the_body_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(ranges.Unsatisfiable):
        ranges.part(header, LENGTH)


@given(st.text(alphabet='bytes=-,0123456789 x"W/*', max_size=40))
def test_no_header_is_a_crash(header: str) -> None:
    ranges.tags(header)
    try:
        part = ranges.part(header, LENGTH)
    except ranges.Unsatisfiable:
        return
    assert part is None or 0 <= part[0] < part[1] <= LENGTH


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ('"7"', True),
        ('W/"7"', True),
        ('"6", "7"', True),
        ("*", True),
        ('"77"', False),
        ("7", False),
        ("", False),
    ],
)
def test_if_none_match_is_compared_weakly(header: str | None, matches: bool) -> None:
    assert ranges.none_match(header, "7") is matches
