import uuid

from hypothesis import given
from hypothesis import strategies as st

from edgegc.model.identifier import RANDOM_BITS, time_ordered

moments = st.integers(0, (1 << 48) - 1)
chances = st.integers(0, (1 << RANDOM_BITS) - 1)


@given(moments, chances)
def test_an_id_is_a_uuid_of_version_7_that_tells_its_moment(at_ms: int, chance: int) -> None:
    made = time_ordered(at_ms, chance)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == at_ms


@given(moments, moments, chances, chances)
def test_ids_of_different_moments_sort_as_text_by_when_they_were_made(
    one: int, other: int, chance: int, another: int
) -> None:
    if one != other:
        assert (str(time_ordered(one, chance)) < str(time_ordered(other, another))) == (one < other)


@given(moments, chances, chances)
def test_no_chance_is_lost(at_ms: int, chance: int, another: int) -> None:
    assert (time_ordered(at_ms, chance) == time_ordered(at_ms, another)) == (chance == another)
