"""The Prometheus text, read back by Prometheus' own parser."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edgegc.api.exposition import Exposition, labels


def test_it_is_read_back_as_it_was_meant() -> None:
    out = Exposition()
    out.family("a_total", "counter", "About a.", [(labels(x="1"), 3), (labels(x="2"), None)])
    out.single("b", "gauge", "About b,\nwith \\ in it.", 0.5)
    out.family("c", "gauge", "Nothing of it.", [])
    out.histogram("d_seconds", "About d.", bounds=(0.1, 1.0), series=[({"route": "/x"}, (1, 2, 5), 7.25)])
    families = {family.name: family for family in text_string_to_metric_families(out.text().decode())}
    assert set(families) == {"a", "b", "d_seconds"}
    assert [(s.name, s.labels, s.value) for s in families["a"].samples] == [("a_total", {"x": "1"}, 3.0)]
    assert families["b"].documentation == "About b,\nwith \\ in it."
    assert [(s.name, s.labels.get("le"), s.value) for s in families["d_seconds"].samples] == [
        ("d_seconds_bucket", "0.1", 1.0),
        ("d_seconds_bucket", "1.0", 2.0),
        ("d_seconds_bucket", "+Inf", 5.0),
        ("d_seconds_sum", None, 7.25),
        ("d_seconds_count", None, 5.0),
    ]


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_any_number_survive(text: str, value: float) -> None:
    out = Exposition()
    out.family("a", "gauge", "About.", [(labels(x=text), value)])
    written = out.text().decode()
    assert written.count("\n") == 3
    if not set(text) & set(
        "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    ):  # its parser splits lines like str.splitlines
        (family,) = text_string_to_metric_families(written)
        (sample,) = family.samples
        assert sample.labels == {"x": text}
        assert sample.value == value or math.isclose(sample.value, value)
