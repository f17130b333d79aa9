"""Made-up input for whoever reads what others send: how much of it, and real input with a few changes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

THOUSANDS = settings(max_examples=2000, deadline=None)
"""For every reader of what anybody may send: a few seconds each."""

Change = tuple[str, int, bytes, int]

_CHANGES: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "insert", "remove", "repeat", "cut"]),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=8),
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=4,
)


def mutated(*originals: bytes) -> st.SearchStrategy[bytes]:
    """One of the originals with one to four changes: noise gets past the first check of hardly any reader, this does."""
    return st.builds(_changed, st.sampled_from(originals), _CHANGES)


def mutated_text(*originals: str) -> st.SearchStrategy[str]:
    """As :func:`mutated`, for what is read as text."""
    return mutated(*(text.encode() for text in originals)).map(lambda body: body.decode("utf-8", "replace"))


def _changed(original: bytes, changes: list[Change]) -> bytes:
    body = bytearray(original)
    for kind, place, new, length in changes:
        at = place % (len(body) + 1)
        match kind:
            case "set":
                body[at : at + len(new)] = new
            case "flip":
                body[at : at + 1] = bytes(each ^ new[0] for each in body[at : at + 1])
            case "insert":
                body[at:at] = new
            case "remove":
                del body[at : at + length]
            case "repeat":
                body[at:at] = body[at : at + length]
            case "cut":
                del body[at:]
    return bytes(body)
