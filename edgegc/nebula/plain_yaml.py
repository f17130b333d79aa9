"""Writes YAML, always the same bytes for the same content. Knows nothing of what it writes.

A library is not used on purpose. The digest of a bundle is remembered by agents, so the text must not change
with a library's version, nor between its C and Python emitters. And PyYAML leaves strings such as ``1e3`` bare, which
Go's YAML reads as a number: a firewall group of that name would not match, or make nebula panic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_BARE = re.compile(r"[a-z][a-z_]*\Z")
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
"""Between quotes these stand for themselves: printable ASCII without the quote and the backslash."""
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+\Z")
_NOT_STRINGS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Bare words that are something other than strings in YAML 1.1, which nebula's parser reads up to 1.9."""
_INDENT = "  "
# What nearly everything is comes first below: a cluster's bundles are a hundred strings each, all rendered at once.
_USUAL_SCALARS = (str, bytes, int)


def dump(document: Mapping[str, object]) -> bytes:
    """Return the text of a document made of mappings, sequences, strings, numbers, booleans and None.

    Order is kept. Raises :class:`TypeError` for anything else, and for numbers without a form that all readers share.
    """
    if not document:
        return b"{}\n"
    lines: list[str] = []
    _mapping(document, "", lines)
    return ("\n".join(lines) + "\n").encode("ascii")


def _mapping(mapping: Mapping[str, object], indent: str, lines: list[str]) -> None:
    for key, value in mapping.items():
        head = f"{indent}{_string(key)}:"
        if _is_empty_or_scalar(value):
            lines.append(f"{head} {_inline(value)}")
        else:
            lines.append(head)
            _block(value, indent + _INDENT, lines)


def _sequence(sequence: Sequence[object], indent: str, lines: list[str]) -> None:
    for value in sequence:
        if _is_empty_or_scalar(value):
            lines.append(f"{indent}- {_inline(value)}")
        else:
            # The first line of the nested block moves up behind the dash, which is as wide as the indentation.
            start = len(lines)
            _block(value, indent + _INDENT, lines)
            lines[start] = f"{indent}- {lines[start][len(indent) + len(_INDENT) :]}"


def _block(value: object, indent: str, lines: list[str]) -> None:
    if isinstance(value, Mapping):
        _mapping(value, indent, lines)
    else:
        assert isinstance(value, Sequence)  # _is_empty_or_scalar let nothing else through
        _sequence(value, indent, lines)


def _is_empty_or_scalar(value: object) -> bool:
    return not value or isinstance(value, _USUAL_SCALARS) or not isinstance(value, Mapping | Sequence)


def _inline(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and _DECIMAL.match(repr(value)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "[]"
    raise TypeError(f"{type(value).__name__} has no plain YAML form")


def _string(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"keys are strings, not {type(text).__name__}")
    if _BARE.match(text) and text not in _NOT_STRINGS:
        return text
    if _PLAIN.match(text):
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
