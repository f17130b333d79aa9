"""Malformed bundles, each with the status and the words of its own refusal; and a bundle that is fine."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1024 * 1024
CA = b"-----BEGIN NEBULA CERTIFICATE-----\nCkMKEXRlc3Q=\n-----END NEBULA CERTIFICATE-----\n"
KEY = b"-----BEGIN NEBULA X25519 PRIVATE KEY-----\nCkMKEXRlc3Q=\n-----END NEBULA X25519 PRIVATE KEY-----\n"
CONFIG = b"lighthouse:\n  interval: 10\n"
GOOD = {"config.yml": CONFIG, "ca.crt": CA}

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def tar(members: Iterable[Member], *, layout: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as target:
        for info, content in members:
            target.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def bundle(files: dict[str, bytes] | None = None, *more: Member, layout: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar.gz of files, those of a good bundle unless others are given, with more members behind them."""
    return gzip.compress(
        tar([*(file(*each) for each in (GOOD if files is None else files).items()), *more], layout=layout)
    )


def with_files(**files: bytes) -> bytes:
    return bundle(GOOD | {name.replace("_", "."): content for name, content in files.items()})


def sized(size: int, seed: int = 0) -> bytes:
    """A good bundle of about ``size`` bytes that no compression makes smaller."""
    return bundle(GOOD | {"filler.bin": random.Random(seed).randbytes(size - 1024)})


def patched(raw: bytes, offset: int, value: bytes) -> bytes:
    """Change the first header of a tar and mend its checksum."""
    header = bytearray(raw)
    header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def mended(raw: bytes) -> bytes:
    """A tar with right checksums in all that still looks like a header: what else is wrong with it is looked at then."""
    for at in range(0, len(raw) - 511, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            raw = raw[:at] + patched(raw[at:], 0, b"")
    return raw


def bomb(size: int) -> bytes:
    """A good bundle with ``size`` zeros behind, in a thousandth of the space."""
    raw = tar([*(file(*each) for each in GOOD.items())])[: 4 * 512]
    info = tarfile.TarInfo("zeros.bin")
    info.size = size
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [compressor.compress(raw + info.tobuf(tarfile.USTAR_FORMAT))]
    parts += [compressor.compress(bytes(MIB)) for _ in range(size // MIB + 1)]
    return b"".join((*parts, compressor.flush()))


_FINE = bundle()
_RAW = tar([file(*each) for each in GOOD.items()])

ZOO: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "empty": (lambda: b"", 415, "not gzip"),
    "text": (lambda: b"hello, this is no archive", 415, "not gzip"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), 415, "not gzip"),
    "tar without gzip": (lambda: _RAW, 415, "not gzip"),
    "gzip of nothing": (lambda: gzip.compress(b""), 400, "ends in the middle"),
    "gzip of text": (lambda: gzip.compress(b"x" * 2000), 400, "checksum"),
    "truncated gzip": (lambda: sized(100_000)[:50_000], 400, "cut off"),
    "gzip header alone": (lambda: _FINE[:10], 400, "cut off"),
    "gzip without its trailer": (lambda: _FINE[:-8], 400, "cut off"),
    "gzip with a wrong checksum": (lambda: _FINE[:-8] + bytes(4) + _FINE[-4:], 400, "damaged"),
    "noise in the gzip": (lambda: _FINE[:40] + b"\xff" * 20 + _FINE[60:], 400, "damaged"),
    "something behind the gzip": (lambda: _FINE + b"more", 400, "behind its gzip stream"),
    "two gzip members": (lambda: _FINE + _FINE, 400, "behind its gzip stream"),
    "tar cut off": (lambda: gzip.compress(_RAW[:700]), 400, "ends in the middle of an entry"),
    "header checksum wrong": (lambda: gzip.compress(b"X" + _RAW[1:]), 400, "is damaged"),
    "size that is no number": (lambda: gzip.compress(patched(_RAW, 124, b"zz")), 400, "no octal number"),
    "negative size": (lambda: gzip.compress(patched(_RAW, 124, b"\xff" * 12)), 400, "no octal number"),
    "size beyond the limit": (lambda: gzip.compress(patched(_RAW, 124, b"7" * 11)), 400, "unpacks to more"),
    "no config.yml": (lambda: bundle({"ca.crt": CA}), 400, "has no config.yml"),
    "no ca.crt": (lambda: bundle({"config.yml": CONFIG}), 400, "has no ca.crt"),
    "no file at all": (lambda: bundle({}), 400, "has no config.yml"),
    "config.yml in a directory": (
        lambda: bundle({"etc/config.yml": CONFIG, "ca.crt": CA}),
        400,
        "has no config.yml",
    ),
    "absolute path": (lambda: bundle(None, file("/etc/passwd")), 400, "'/etc/passwd'"),
    "path outside": (lambda: bundle(None, file("../evil")), 400, "'../evil'"),
    "path outside, hidden": (lambda: bundle(None, file("a/../../evil")), 400, "'a/../../evil'"),
    "name that can't be shown": (lambda: bundle(None, file("a\x1b[31m")), 400, "can't be shown"),
    "symbolic link": (
        lambda: bundle(None, file("l", kind=tarfile.SYMTYPE, link="/etc")),
        400,
        "'l' is a link",
    ),
    "hard link": (lambda: bundle(None, file("h", kind=tarfile.LNKTYPE, link="ca.crt")), 400, "'h' is a link"),
    "character device": (lambda: bundle(None, file("null", kind=tarfile.CHRTYPE)), 400, "'null' is a device"),
    "block device": (lambda: bundle(None, file("sda", kind=tarfile.BLKTYPE)), 400, "'sda' is a device"),
    "named pipe": (
        lambda: bundle(None, file("pipe", kind=tarfile.FIFOTYPE)),
        400,
        "'pipe' is a device or a pipe",
    ),
    "sparse file": (lambda: bundle(None, file("s", kind=tarfile.GNUTYPE_SPARSE)), 400, "kind b'S'"),
    "pax header": (
        lambda: bundle(None, file("ü" * 90), layout=tarfile.PAX_FORMAT),
        400,
        "tar --format=ustar",
    ),
    "the same name twice": (lambda: bundle(None, file("ca.crt", CA)), 400, "'ca.crt' twice"),
    "the same name, spelt otherwise": (lambda: bundle(None, file("./ca.crt", CA)), 400, "'ca.crt' twice"),
    "201 entries": (lambda: bundle(None, *(file(f"f{n}") for n in range(199))), 400, "more than 200 entries"),
    "bomb": (lambda: bomb(60 * MIB), 400, "unpacks to more than 52428800 bytes with 'zeros.bin'"),
    "bomb behind the end": (lambda: gzip.compress(_RAW + bytes(60 * MIB)), 400, "unpacks to more"),
    "something behind the end": (lambda: gzip.compress(_RAW + b"x" * 512), 400, "after its end mark"),
    "half an end mark": (
        lambda: gzip.compress(_RAW[: 4 * 512] + bytes(512) + b"x" * 512),
        400,
        "half there",
    ),
    "not YAML": (lambda: with_files(config_yml=b"a: [1,\n"), 400, "config.yml is not valid YAML in line"),
    "YAML with a control character": (
        lambda: with_files(config_yml=b"a: \x00"),
        400,
        "config.yml is not valid YAML",
    ),
    "YAML that is a list": (lambda: with_files(config_yml=b"- a\n"), 400, "config.yml is not a YAML mapping"),
    "YAML of two documents": (lambda: with_files(config_yml=b"a: 1\n---\nb: 2\n"), 400, "more than one YAML"),
    "empty YAML": (lambda: with_files(config_yml=b""), 400, "config.yml is empty"),
    "YAML of unknown anchors": (lambda: with_files(config_yml=b"a: *b\n"), 400, "anchor 'b'"),
    "YAML that holds itself": (lambda: with_files(config_yml=b"a: &a [*a]\n"), 400, "anchor 'a'"),
    "YAML bomb": (
        lambda: with_files(
            config_yml=b"a0: &a0 [x]\n"
            + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12))
        ),
        400,
        "more than 100000 values",
    ),
    "YAML too deep": (lambda: with_files(config_yml=b"a: " + b"[" * 5000), 400, "deeper than 64 levels"),
    "YAML of too many values": (
        lambda: with_files(config_yml=b"a:\n" + b"- x\n" * 200_000),
        400,
        "100000 values",
    ),
    "config.yml too large": (
        lambda: with_files(config_yml=b"a: " + b"x" * 3 * MIB),
        400,
        "config.yml has 3145731 bytes",
    ),
    "ca.crt that is none": (lambda: with_files(ca_crt=b"hello"), 400, "ca.crt holds no nebula certificate"),
    "ca.crt that is a key": (lambda: with_files(ca_crt=KEY), 400, "ca.crt holds no nebula certificate"),
    "host.crt that is none": (lambda: with_files(host_crt=b"x"), 400, "host.crt holds no nebula certificate"),
    "host.key that is none": (
        lambda: with_files(host_crt=CA, host_key=CA),
        400,
        "host.key holds no private key",
    ),
    "host.key alone": (lambda: with_files(host_key=KEY), 400, "no host.crt that it could belong to"),
    "manifest.json": (lambda: with_files(manifest_json=b"{}"), 400, "holds a manifest.json"),
    "too large": (lambda: sized(11 * MIB), 413, "10485760"),
}
