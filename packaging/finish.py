"""The step after shiv: byte code, trimming, our own ``__main__``, and the same bytes for the same input.

    finish.py ARCHIVE --python 3.11 --platform linux_x86_64

Adds an unchecked-hash ``.pyc`` beside every module, so that nothing is compiled on the device and nothing is
compared at import; ``--compile-pyc`` of shiv compiles on the device at the first run, which takes minutes of a
small board's CPU. Entries are sorted, with one time and one of two modes, and nothing of the build's paths is left.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import py_compile
import re
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CODE = "site-packages/"
TRIMMED = re.compile(
    r"^site-packages/("
    r"bin/.*"  # scripts that start with the path of the Python that built
    r"|[^/]+\.dist-info/(RECORD|direct_url\.json|REQUESTED|INSTALLER)"  # what pip notes of the build
    r"|.*/_?tests?/.*|.*\.(pyi|pyx|pxd|c|h)"
    r"|pygments/(lexers|formatters|styles)/.*"  # 600 files for colouring source code, which rich could and we don't
    r")$"
)
"""Not needed to run, or different for every build."""


def finish(path: Path, *, python: tuple[int, int], platform: str) -> str:
    """Rewrite the archive in place and return its SHA-256."""
    with zipfile.ZipFile(path) as archive:
        entries = {
            name: archive.read(name)
            for name in archive.namelist()
            if not TRIMMED.match(name) and not name.endswith("/")
        }
        date_time = archive.getinfo("environment.json").date_time
        shared_objects = {name for name in entries if re.search(r"\.so(\.|$)", name)}
    entries |= {
        _cached(name): _byte_code(name, source)
        for name, source in entries.items()
        if name.startswith(CODE) and name.endswith(".py")
    }
    entries["__main__.py"] = _main_module(python, platform)
    entries["_unpack.py"] = (HERE / "pyz_unpack.py").read_bytes()
    entries["environment.json"] = _environment(entries)

    shebang = b"#!/usr/bin/env python3\n"
    with path.open("wb") as file:
        file.write(shebang)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(entries):
                info = zipfile.ZipInfo(name, date_time)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system = 3  # Unix, whatever the build runs on
                info.external_attr = (0o100755 if name in shared_objects else 0o100644) << 16
                archive.writestr(info, entries[name])
    path.chmod(0o755)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _cached(name: str) -> str:
    cached = importlib.util.cache_from_source(name)
    return cached.replace("\\", "/")


def _byte_code(name: str, source: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "module.py"
        path.write_bytes(source)
        # The importer puts the real path in when it loads the code.
        compiled = py_compile.compile(
            str(path),
            dfile=name,
            doraise=True,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        assert compiled is not None, "doraise"
        return Path(compiled).read_bytes()


def _main_module(python: tuple[int, int], platform: str) -> bytes:
    text = (HERE / "pyz_main.py").read_text(encoding="utf-8")
    text = re.sub(r"^NEEDS = .*$", f"NEEDS = {python!r}", text, flags=re.MULTILINE)
    text = re.sub(r"^PLATFORM = .*$", f'PLATFORM = "{platform}"', text, flags=re.MULTILINE)
    return text.encode()


def _environment(entries: dict[str, bytes]) -> bytes:
    """Return shiv's metadata with a build id that covers everything that is unpacked."""
    content = hashlib.sha256()
    for name in sorted(entries):
        if name.startswith(CODE):
            content.update(name.encode() + b"\0" + hashlib.sha256(entries[name]).digest())
    environment = json.loads(entries["environment.json"])
    environment["build_id"] = content.hexdigest()[:32]  # file systems limit a name to 255 bytes
    environment["compile_pyc"] = False
    return json.dumps(environment, sort_keys=True).encode()


def main() -> None:
    """Finish the archive that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--python", required=True, help="the minor version it runs on")
    parser.add_argument("--platform", required=True, help="the platform it runs on")
    given = parser.parse_args()
    major, minor = map(int, given.python.split("."))
    if (major, minor) != sys.version_info[:2]:
        sys.exit(f"byte code for Python {given.python} can only be made by Python {given.python}")
    print(finish(given.archive, python=(major, minor), platform=given.platform))


if __name__ == "__main__":
    main()
