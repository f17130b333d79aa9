"""A report as a file: read with a sentence for whatever is wrong with it, written whole or not at all.

Knows what a report consists of only through its structs; nothing of how it is measured or shown.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgegc.errors import Invalid, NotFound
from edgegc.perf.result import SCHEMA, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

GZIP: Final = b"\x1f\x8b"
LARGEST_BYTES: Final = 256 << 20
"""Unpacked. A full suite with five repetitions is about 5 MiB; whatever is larger than this is no report."""


class _Head(msgspec.Struct):
    schema: str


def decode(body: bytes, *, name: str) -> Report:
    """Return the report that ``body`` is, plain or packed with gzip. Raises Invalid, whose sentence begins with ``name``."""
    try:
        if body.startswith(GZIP):
            body = _unpack(body)
        found = msgspec.json.decode(body, type=_Head).schema
        if found != SCHEMA:
            raise Invalid(f"{name}: is a '{found}' document, and this reads only '{SCHEMA}'")
        return msgspec.json.decode(body, type=Report)
    except (msgspec.DecodeError, OSError, EOFError) as error:
        raise Invalid(f"{name}: is no report of 'edgegc perf run --out': {error}") from error


def read(path: Path) -> Report:
    """Return the report in a file. Raises NotFound without one, Invalid for something else."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; 'edgegc perf run --out FILE' makes one") from None
    return decode(body, name=str(path))


def encode(report: Report) -> bytes:
    """Return a report as JSON with a line end."""
    return msgspec.json.encode(report) + b"\n"


def write(path: Path, report: Report) -> None:
    """Write a report so that the file is the old one or the new one, never half of it. A name in ``.gz`` is packed."""
    body = encode(report)
    replace(path, gzip.compress(body, mtime=0) if path.suffix == ".gz" else body)


def replace(path: Path, body: bytes) -> None:
    """Write a file so that it is the old one or the new one. It gets the rights of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(number, "wb") as file:
            os.fchmod(number, 0o666 & ~umask)
            file.write(body)
            file.flush()
            os.fsync(number)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def schema() -> Mapping[str, Any]:
    """Return the JSON Schema of a report, which ``schema.json`` in this package is the text of."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        **msgspec.json.schema(Report),
    }


def schema_text() -> str:
    """Return what ``schema.json`` must hold."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="sorted"), indent=2).decode() + "\n"


def _unpack(body: bytes) -> bytes:
    import io

    with gzip.open(io.BytesIO(body)) as file:
        unpacked = file.read(LARGEST_BYTES + 1)
    if len(unpacked) > LARGEST_BYTES:
        raise OSError(f"more than {LARGEST_BYTES >> 20} MiB")
    return unpacked
