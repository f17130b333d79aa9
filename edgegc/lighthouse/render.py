"""A lighthouse's files: rendered from its specification and the operator's overrides, written so that a crash leaves no half.

Knows no processes. What is here is decided by content: unchanged files are not written again (flash wears out).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import yaml

from edgegc.nebula import files
from edgegc.nebula.config import dump

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgegc.model.lighthouse import LighthouseSpec

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
"""Root's, readable for the group of the lighthouse's user and nobody else: one of them is the private key."""

PARENT_MODE = 0o711
"""``lighthouses`` itself: the lighthouse's user passes through, and sees no other cluster."""

OVERRIDES = "overrides"
GOOD_OVERRIDES = "overrides.good.json"

OVERRIDE_LIMIT_BYTES = 1_048_576
"""Of one fragment."""

LOG_LEVELS = ("info", "debug", "trace")
"""At anything quieter nebula does not say that it is ready or has reloaded, so nothing could be proven."""


class Fragment(NamedTuple):
    """One file of overrides."""

    name: str
    content: dict[str, object]


class Overrides(NamedTuple):
    """All fragments, sorted by name; ``problems`` are sentences about those that can't be used as they are."""

    fragments: tuple[Fragment, ...]
    problems: tuple[str, ...]


class Rendered(NamedTuple):
    """What belongs on disk. ``digest`` names the content; it begins with the version."""

    config: dict[str, object]
    files: dict[str, bytes]
    digest: str
    probe: bool


def lighthouses_directory(data_dir: Path) -> Path:
    """Return where the lighthouses of a data directory are."""
    return data_dir / "lighthouses"


def lighthouse_directory(data_dir: Path, cluster_id: str) -> Path:
    """Return where the lighthouse of a cluster is."""
    return lighthouses_directory(data_dir) / cluster_id


def version_of(digest: str | None) -> int | None:
    """Return the version that a :attr:`Rendered.digest` begins with."""
    number = (digest or "").partition("-")[0]
    return int(number) if number.isdecimal() else None


def render(spec: LighthouseSpec, directory: Path, fragments: Sequence[Fragment]) -> Rendered:
    """Return the files of a lighthouse whose paths point into ``directory``. Pure.

    Fragments are merged over the specification in order: mappings deeply, anything else replaces. What makes it *this* lighthouse
    wins over both: its certificates, its port, and that it has no device (it has no privileges to make one).
    """
    config: dict[str, object] = merged({"listen": {"host": "0.0.0.0"}}, spec.config)
    for fragment in fragments:
        config = merged(config, fragment.content)
    config = merged(
        config,
        {
            "pki": {
                "ca": str(directory / "ca.crt"),
                "cert": str(directory / "host.crt"),
                "key": str(directory / "host.key"),
            },
            "listen": {"port": spec.port},
            "tun": {"disabled": True},
            "logging": _logging(config),
        },
    )
    contents = {
        "host.key": spec.key_pem.encode(),
        "host.crt": spec.certificate_pem.encode(),
        "ca.crt": spec.ca_pem.encode(),
        "config.yml": dump(config),
    }
    digest = hashlib.sha256()
    for name in ("config.yml", "ca.crt", "host.crt"):  # the certificate stands for the key
        digest.update(hashlib.sha256(contents[name]).digest())
    return Rendered(
        config=config,
        files=contents,
        digest=f"{spec.version}-{digest.hexdigest()[:32]}",
        probe=_section(config, "listen").get("send_recv_error") == "always",
    )


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return ``base`` with ``over`` on top: mappings are merged deeply, anything else replaces. Changes neither."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def read_overrides(directory: Path) -> Overrides:
    """Read the operator's fragments ``overrides/*.yml`` of a lighthouse. Blocking.

    One that can't be used is replaced by how it was when it was last good, if it ever was.
    """
    good = _read_good(directory)
    fragments, problems = [], []
    for path in sorted((directory / OVERRIDES).glob("*.yml")):
        try:
            fragments.append(Fragment(path.name, _read_fragment(path)))
        except _BadFragment as error:
            last = good.get(path.name)
            if last is not None:
                fragments.append(Fragment(path.name, last))
            kept = "its last good content stays" if last is not None else "it is ignored"
            problems.append(f"the override {OVERRIDES}/{path.name} is not usable, {kept}: {error}")
    return Overrides(tuple(fragments), tuple(problems))


def last_good(directory: Path) -> tuple[Fragment, ...]:
    """Return the fragments that were last proven good together. Blocking."""
    return tuple(Fragment(name, content) for name, content in sorted(_read_good(directory).items()))


def keep_good(directory: Path, fragments: Sequence[Fragment]) -> None:
    """Remember fragments that were proven good together. Blocking."""
    content = {fragment.name: fragment.content for fragment in fragments}
    if content != _read_good(directory):
        files.write_atomic(directory / GOOD_OVERRIDES, msgspec.json.encode(content))


def prepare(data_dir: Path, cluster_id: str, *, gid: int | None) -> Path:
    """Make a lighthouse's directories, readable for the group; return its own. Blocking. Raises OSError."""
    parent = lighthouses_directory(data_dir)
    if not parent.is_dir():
        parent.mkdir(mode=PARENT_MODE)
        parent.chmod(PARENT_MODE)  # whatever the umask
    directory = parent / cluster_id
    for each in (directory, directory / OVERRIDES):
        each.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        _own(each, DIRECTORY_MODE, gid)
    return directory


def write(directory: Path, contents: Mapping[str, bytes], *, gid: int | None) -> list[str]:
    """Bring the files of a lighthouse to these contents, each atomically. Returns what changed. Blocking. Raises OSError.

    Between two files a crash leaves a mixture, which only matters if nebula starts just then; the next render mends it.
    """
    changed = []
    for name, content in contents.items():
        path = directory / name
        if not _is(path, content):
            files.write_atomic(path, content, mode=FILE_MODE, gid=gid)
            changed.append(name)
        else:
            _own(path, FILE_MODE, gid)
    return changed


def write_candidate(
    data_dir: Path, spec: LighthouseSpec, fragments: Sequence[Fragment], *, gid: int | None
) -> Path:
    """Write a twin whose paths point to itself, for ``nebula -test``; return its config. Blocking. Raises OSError.

    Beside the lighthouse's directory, not in it: that one is watched.
    """
    directory = candidate_directory(data_dir, spec.cluster_id)
    discard_candidate(data_dir, spec.cluster_id)
    directory.mkdir(mode=0o700)
    for name, content in render(spec, directory, fragments).files.items():
        path = directory / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        _own(path, FILE_MODE, gid)
    _own(directory, DIRECTORY_MODE, gid)
    return directory / "config.yml"


def candidate_directory(data_dir: Path, cluster_id: str) -> Path:
    """Return where the twin of a lighthouse is while it is tested."""
    return lighthouses_directory(data_dir) / f".{cluster_id}.candidate"


def discard_candidate(data_dir: Path, cluster_id: str) -> None:
    """Remove the twin. Blocking."""
    shutil.rmtree(candidate_directory(data_dir, cluster_id), ignore_errors=True)


def remove(data_dir: Path, cluster_id: str) -> None:
    """Remove what was rendered of a lighthouse that is gone; keep the operator's overrides, if there are any. Blocking."""
    directory = lighthouse_directory(data_dir, cluster_id)
    discard_candidate(data_dir, cluster_id)
    if not any((directory / OVERRIDES).glob("*")):
        shutil.rmtree(directory, ignore_errors=True)
        return
    for path in directory.iterdir():
        if path.name != OVERRIDES:
            path.unlink(missing_ok=True)


class _BadFragment(Exception):
    """Why a fragment can't be used."""


def _read_fragment(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > OVERRIDE_LIMIT_BYTES:
            raise _BadFragment(f"it is larger than {OVERRIDE_LIMIT_BYTES} bytes")
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise _BadFragment(error.strerror or str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _BadFragment(" ".join(str(error).split())) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _BadFragment("it is not a mapping of nebula's configuration keys")
    try:
        dump(content)
    except (TypeError, RecursionError) as error:
        raise _BadFragment(str(error)) from None
    return content


def _read_good(directory: Path) -> dict[str, dict[str, object]]:
    try:
        return msgspec.json.decode(
            (directory / GOOD_OVERRIDES).read_bytes(), type=dict[str, dict[str, object]]
        )
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _logging(config: Mapping[str, object]) -> dict[str, object]:
    section = _section(config, "logging")
    level = section.get("level")
    return {"level": level if level in LOG_LEVELS else "info", "format": section.get("format", "text")}


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _is(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _own(path: Path, mode: int, gid: int | None) -> None:
    status = path.stat()
    if gid is not None and status.st_gid != gid:
        os.chown(path, -1, gid)
        status = path.stat()
    if status.st_mode & 0o7777 != mode:
        path.chmod(mode)
