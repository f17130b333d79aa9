from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgegc.nebula import plain_yaml

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-999, 999).map(lambda n: n / 8), text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(text, values, max_size=5))
def test_a_yaml_library_reads_what_was_written(document: dict[str, Any]) -> None:
    body = plain_yaml.dump(document)
    assert yaml.safe_load(body) == document
    assert list(yaml.safe_load(body)) == list(document)


@pytest.mark.parametrize(
    "word", ["1e3", "0x1F", "12:30", "yes", "No", "~", "null", "1_000", "", "- a", "a: b", "*x", "10.42.0.1"]
)
def test_a_string_that_some_reader_takes_for_something_else_is_quoted(word: str) -> None:
    assert plain_yaml.dump({"groups": [word]}) == f'groups:\n  - "{word}"\n'.encode()


def test_words_stay_legible() -> None:
    document = {
        "relay": {"am_relay": False, "relays": []},
        "inbound": [{"port": "any", "proto": "icmp"}, {"port": "443"}],
    }
    assert plain_yaml.dump(document).decode().splitlines() == [
        "relay:",
        "  am_relay: false",
        "  relays: []",
        "inbound:",
        "  - port: any",
        "    proto: icmp",
        '  - port: "443"',
    ]


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan"), b"bytes", b"", {1}, object(), {1: "a"}])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        plain_yaml.dump({"key": value})


def test_an_empty_document_is_an_empty_mapping() -> None:
    assert yaml.safe_load(plain_yaml.dump({})) == {}
