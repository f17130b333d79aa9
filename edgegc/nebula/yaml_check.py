"""Whether a text is YAML that may be given to nodes: one mapping, of bounded size. Builds no document from it.

Loading a hostile text costs a thousand times its size in memory; following its events costs nothing. What it would
grow to, aliases written out, is counted on the way.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from edgegc.errors import Invalid

MAX_VALUES: Final = 100_000
"""Scalars, lists and mappings, aliases written out: a configuration that blocks 10,000 certificates has 10,100."""
MAX_DEPTH: Final = 64
"""Levels of nesting; nebula's own configuration has five."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_mapping(text: bytes, *, name: str) -> None:
    """Raise Invalid, beginning with ``name``, unless the text is one YAML document that is a mapping."""
    try:
        _follow(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise Invalid(f"{name} is not valid YAML{where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"{name} is not valid YAML: {' '.join(str(error).split())[:200]}") from None


def _follow(text: bytes, name: str) -> None:
    anchors: dict[str, int] = {}
    # Of each collection that is open: its anchor, and how many values it has so far.
    open_: list[tuple[str | None, int]] = []
    documents = total = 0
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise Invalid(f"{name} holds more than one YAML document")
                continue
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if not open_ and not isinstance(event, yaml.MappingStartEvent):
                    raise Invalid(f"{name} is not a YAML mapping")
                if len(open_) >= MAX_DEPTH:
                    raise Invalid(f"{name} is nested deeper than {MAX_DEPTH} levels")
                open_.append((event.anchor, 1))
                continue
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                anchor, size = open_.pop()
            case yaml.ScalarEvent():
                if not open_:
                    raise Invalid(f"{name} is not a YAML mapping")
                anchor, size = event.anchor, 1
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    # Also one inside of what it names: nobody could write that out.
                    raise Invalid(
                        f"{name} refers to the anchor {event.anchor!r}, which is not defined before"
                    )
                anchor, size = None, anchors[event.anchor]
            case _:
                continue
        if anchor is not None:
            anchors[anchor] = size
        if open_:
            outer, held = open_.pop()
            open_.append((outer, held + size))
            total = held + size
        else:
            total = size
        if total > MAX_VALUES:
            raise Invalid(f"{name} holds more than {MAX_VALUES} values, aliases written out")
    if not documents:
        raise Invalid(f"{name} is empty")
