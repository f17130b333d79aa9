"""A report's file: its schema, what is refused, and that it is whole."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest

from edgegc.errors import Invalid, NotFound
from edgegc.perf import document
from tests.perf_reports import report

if TYPE_CHECKING:
    from pathlib import Path


def test_the_schema_in_the_package_is_that_of_the_structs() -> None:
    shipped = (files("edgegc.perf") / "schema.json").read_text("utf-8")
    assert shipped == document.schema_text(), "write document.schema_text() to edgegc/perf/schema.json"


@pytest.mark.parametrize("device", [False, True])
def test_a_report_is_valid_by_the_schema(device: bool) -> None:
    schema = json.loads((files("edgegc.perf") / "schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(document.encode(report(device=device))))


def test_the_schema_refuses_what_is_no_report() -> None:
    schema = json.loads((files("edgegc.perf") / "schema.json").read_text("utf-8"))
    broken = json.loads(document.encode(report()))
    del broken["host"]["fingerprint"]
    assert not jsonschema.Draft202012Validator(schema).is_valid(broken)


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    document.write(tmp_path / name, report())
    assert document.read(tmp_path / name) == report()
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_the_same_report_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.json.gz", "other.json.gz"):
        document.write(tmp_path / name, report())
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "other.json.gz").read_bytes()


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        document.read(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no report"),
        (b"PK\x03\x04", "no report"),
        (b"[]", "no report"),
        (b'{"schema": "edgegc.perf/9"}', "edgegc.perf/9"),
        (b'{"schema": "edgegc.perf/1"}', "no report"),
        (gzip.compress(b"{", mtime=0)[:-4], "no report"),
    ],
)
def test_what_is_no_report_is_refused_with_a_sentence(tmp_path: Path, body: bytes, words: str) -> None:
    (tmp_path / "r.json").write_bytes(body)
    with pytest.raises(Invalid, match=words):
        document.read(tmp_path / "r.json")


def test_a_report_with_fields_of_a_later_release_can_be_read() -> None:
    later = msgspec.json.decode(document.encode(report()))
    later["phase_of_the_moon"] = "waning"
    assert document.decode(msgspec.json.encode(later), name="r.json") == report()
