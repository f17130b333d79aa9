from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.errors import Error, Invalid, TooLarge, UnsupportedMedia
from edgegc.nebula import archive
from edgegc.nebula.archive import Limits
from tests import zoo
from tests.fuzz import THOUSANDS, mutated

MIB = 1024 * 1024


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(content)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar made by the standard library, as an operator's tools would make it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as target:
        for info, content in members:
            target.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(*members: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.USTAR_FORMAT) -> bytes:
    return gzip.compress(tar(*members, layout=layout))


def patched(raw: bytes, offset: int, value: bytes) -> bytes:
    """Change a header and mend its checksum."""
    header = bytearray(raw)
    header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


names = st.from_regex(r"[a-z][a-z0-9_.-]{0,30}", fullmatch=True)
contents = st.dictionaries(names, st.binary(max_size=2000), max_size=6)


@given(contents)
def test_what_was_packed_is_unpacked(files: dict[str, bytes]) -> None:
    assert archive.unpack(archive.pack(files)) == files


@given(contents)
def test_the_same_files_are_the_same_bytes(files: dict[str, bytes]) -> None:
    assert archive.pack(files) == archive.pack(files)


@given(st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=255))
def test_a_comment_is_read_without_opening_the_archive(comment: str) -> None:
    body = archive.pack({"a": b"x"}, comment=comment)
    assert archive.comment_of(body) == comment
    assert archive.unpack(body) == {"a": b"x"}


@given(st.binary())
def test_other_bytes_have_no_comment_or_a_harmless_one(noise: bytes) -> None:
    assert archive.comment_of(noise) is None
    comment = archive.comment_of(archive.pack({})[:10] + noise)
    assert comment is None or (comment.isascii() and len(comment) <= archive.MAX_COMMENT_BYTES)


@given(contents)
def test_other_tools_read_what_was_packed(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.pack(files)), mode="r:gz") as source:
        found = {}
        for info in source.getmembers():
            assert (info.mode, info.uid, info.mtime) == (0o600, 0, 0)
            content = source.extractfile(info)
            assert content is not None
            found[info.name] = content.read()
    assert found == files


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(files=contents)
def test_what_other_tools_pack_is_unpacked(layout: int, files: dict[str, bytes]) -> None:
    body = packed(*(member(name, content=content) for name, content in files.items()), layout=layout)
    assert archive.unpack(body) == files


def test_directories_are_skipped_and_a_leading_dot_is_dropped() -> None:
    body = packed(
        member("./", tarfile.DIRTYPE), member("./config.yml", content=b"a"), member("sub/x", content=b"b")
    )
    assert archive.unpack(body) == {"config.yml": b"a", "sub/x": b"b"}


def test_a_long_ustar_name_is_put_together_from_prefix_and_name() -> None:
    name = "d" * 90 + "/" + "f" * 90
    assert archive.unpack(packed(member(name, content=b"x"))) == {name: b"x"}


ONE = tar(member("a", content=b"hello"))
GOOD = gzip.compress(ONE)


WRONG: list[tuple[bytes, type[Error], str]] = [
    (b"", UnsupportedMedia, "is not gzip"),
    (ONE, UnsupportedMedia, "is not gzip"),
    (GOOD[:-1], Invalid, "gzip stream is cut off"),
    (GOOD[:20], Invalid, "gzip stream is cut off"),
    (GOOD[:2], Invalid, "gzip stream is cut off"),
    (GOOD[:-6] + b"xx" + GOOD[-4:], Invalid, "gzip stream is damaged"),
    (GOOD + b"x", Invalid, "something behind its gzip stream"),
    (GOOD + GOOD, Invalid, "something behind its gzip stream"),
    (gzip.compress(b""), Invalid, "ends in the middle of an entry"),
    (gzip.compress(ONE[:1024]), Invalid, "ends in the middle of an entry"),
    (gzip.compress(ONE[:600]), Invalid, "ends in the middle of an entry"),
    (gzip.compress(ONE[:1536]), Invalid, "ends in the middle of an entry"),
    (gzip.compress(ONE[:1536] + ONE), Invalid, "end mark is half there"),
    (gzip.compress(ONE[:2048] + ONE), Invalid, "goes on after its end mark"),
    (gzip.compress(b"x" + ONE[1:]), Invalid, "header of the archive's entry 1 is damaged"),
    (packed(member("a"), member("./a")), Invalid, "holds 'a' twice"),
    (packed(member("/etc/passwd")), Invalid, "holds the absolute path '/etc/passwd'"),
    (packed(member("../x")), Invalid, "holds '../x', a path outside of itself"),
    (packed(member("a/../../x")), Invalid, "a path outside of itself"),
    (packed(member("..", tarfile.DIRTYPE)), Invalid, "a path outside of itself"),
    (packed(member("./")), Invalid, "a file without a name"),
    (packed(member("a\nb")), Invalid, "characters that can't be shown"),
    (packed(member("s", tarfile.SYMTYPE, link="/etc")), Invalid, "'s' is a link"),
    (packed(member("h", tarfile.LNKTYPE, link="a")), Invalid, "'h' is a link"),
    (packed(member("c", tarfile.CHRTYPE)), Invalid, "'c' is a device or a pipe"),
    (packed(member("b", tarfile.BLKTYPE)), Invalid, "'b' is a device or a pipe"),
    (packed(member("p", tarfile.FIFOTYPE)), Invalid, "'p' is a device or a pipe"),
    (packed(member("n" * 200), layout=tarfile.GNU_FORMAT), Invalid, "only plain files and directories"),
    (packed(member("n" * 200), layout=tarfile.PAX_FORMAT), Invalid, "only plain files and directories"),
    (gzip.compress(patched(ONE, 156, b"5")), Invalid, "directory 'a' has a content"),
    (
        gzip.compress(patched(ONE, 124, b"\x80" + b"\0" * 10 + b"\x01")),
        Invalid,
        "the size of 'a' that is no octal",
    ),
    (gzip.compress(patched(ONE, 124, b"-0000000001\0")), Invalid, "the size of 'a' that is no octal"),
    (gzip.compress(patched(ONE, 0, b"\xff")), Invalid, "a name that is not UTF-8"),
    (
        gzip.compress(patched(patched(ONE, 0, b"n" * 100), 345, b"p" * 155)),
        Invalid,
        "more than 255 bytes",
    ),
    (packed(*(member(str(number)) for number in range(201))), TooLarge, "more than 200 entries"),
    (gzip.compress(patched(ONE, 124, b"77777777777\0")), TooLarge, "unpacks to more than 52428800 bytes"),
    (gzip.compress(ONE + bytes(51 * MIB)), TooLarge, "unpacks to more than 52428800 bytes"),
    (archive.GZIP_MAGIC + os.urandom(10 * MIB), TooLarge, "has 10485762 bytes, 10485760 are allowed"),
]


# The ids are numbered sentences: a compressed body as an id would differ from one worker to the next by its
# time of packing.
@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [pytest.param(*case, id=f"{number}: {case[2]}") for number, case in enumerate(WRONG, 1)],
)
def test_what_is_wrong_with_an_archive_is_said_in_its_own_sentence(
    body: bytes, kind: type[Error], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        archive.unpack(body)


def test_a_bomb_is_never_inflated_past_the_limit() -> None:
    bomb = gzip.compress(tar(member("a", content=bytes(40 * MIB))))
    limits = Limits(unpacked_bytes=2 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            archive.unpack(bomb, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_exactly_the_allowed_size_is_taken() -> None:
    body = archive.pack({"a": bytes(5000)})
    whole = len(zlib.decompress(body, 31))
    assert archive.unpack(body, limits=Limits(unpacked_bytes=whole)) == {"a": bytes(5000)}
    with pytest.raises(TooLarge):
        archive.unpack(body, limits=Limits(unpacked_bytes=whole - 1))


@THOUSANDS
@given(st.binary(max_size=3000), st.integers(0, 2))
def test_no_bytes_make_the_reader_fail_in_another_way(noise: bytes, form: int) -> None:
    body = (noise, gzip.compress(noise), archive.GZIP_MAGIC + noise)[form]
    with contextlib.suppress(Error):
        archive.unpack(body)


FILES = {"config.yml": b"a: 1\n" * 20, "ca.crt": b"x" * 600, "host.crt": b""}
BODY = archive.pack(FILES, comment="for a node")


@THOUSANDS
@given(mutated(BODY))
def test_changed_bytes_never_crash_the_reader_nor_change_a_file(body: bytes) -> None:
    with contextlib.suppress(Error):
        assert archive.unpack(body) == FILES


@THOUSANDS
@given(
    mutated(zlib.decompress(BODY, 31), ONE, tar(member("n" * 120), layout=tarfile.PAX_FORMAT)), st.booleans()
)
def test_changed_bytes_inside_the_tar_never_crash_the_reader(raw: bytes, mend: bool) -> None:
    with contextlib.suppress(Error):
        archive.unpack(gzip.compress(zoo.mended(raw) if mend else raw, 1))
