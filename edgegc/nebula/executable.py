"""The nebula executable: where it is, which version, what it says about a configuration. Runs it only briefly.

The processes that stay are ``process.py``'s.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import trio

from edgegc.errors import Error
from edgegc.nebula import files, logfile

if TYPE_CHECKING:
    from collections.abc import Mapping

Version = tuple[int, int, int]

MINIMUM_VERSION: Version = (1, 6, 0)
"""Older ones have no relays and log no certificate fingerprint at a reload."""

RUN_LIMIT_S = 30.0
"""For ``-version`` and ``-test``: 8 ms on a PC, seconds from a cold SD card."""

USUAL_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/nebula", "/opt/bin")

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
"""All that a nebula gets of an environment: ours may hold credentials."""

_OUTPUT_LIMIT_BYTES = 1_048_576


class ApplyFailed(Error):
    """A configuration was not proven to work; the sentence says why, in nebula's own words where it has some."""

    code = "unavailable"


class NebulaUnusable(ApplyFailed):
    """There is no nebula here, or one that we can't work with; the sentence ends with the remedy."""


class Account(NamedTuple):
    """Who a child runs as."""

    name: str
    uid: int
    gid: int


def account(user: str | None) -> Account | None:
    """Return whom to become for ``user``: None means stay who we are (no user given, or we are not root).

    Raises :class:`NebulaUnusable` if there is no such user.
    """
    if user is None or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise NebulaUnusable(
            f"the user {user!r} that nebula should run as does not exist: "
            f"create it (useradd --system --shell /usr/sbin/nologin {user}) or change lighthouse.user"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def as_account(who: Account | None) -> dict[str, Any]:
    """Return the arguments of :class:`subprocess.Popen` that make a child run as ``who``."""
    return {} if who is None else {"user": who.uid, "group": who.gid, "extra_groups": []}


def find_nebula(path: Path | None = None, *, named: str = "nebula.path") -> Path:
    """Return the absolute path of the nebula executable: ``path`` if given, else in PATH and the usual places.

    ``named``: how the person who gave the path gave it. Raises :class:`NebulaUnusable` with the remedy.
    """
    if path is not None:
        absolute = path.absolute()
        if not absolute.is_file():
            raise NebulaUnusable(f"there is no nebula at {path}: correct {named}, or install nebula")
        if not os.access(absolute, os.X_OK):
            raise NebulaUnusable(f"{path} is not executable: chmod +x it, or correct {named}")
        return absolute
    # Services often have a PATH without sbin and local directories.
    places = os.pathsep.join([os.environ.get("PATH", ""), *USUAL_PLACES])
    found = shutil.which("nebula", path=places)
    if found is None:
        raise NebulaUnusable(
            f"nebula is not installed: install it (Debian: apt install nebula), or name the executable in {named}"
        )
    return Path(found).absolute()


def version_text(version: Version) -> str:
    """Return ``1.9.3`` for (1, 9, 3)."""
    return ".".join(map(str, version))


async def nebula_version(executable: Path, *, named: str = "nebula.path") -> Version:
    """Return what ``nebula -version`` says. Cancellation ends the process.

    ``named``: as for :func:`find_nebula`. Raises :class:`NebulaUnusable` if it does not run, says something else, or is older than MINIMUM_VERSION.
    """
    code, output = await _run([str(executable), "-version"], None)
    found = re.search(r"Version:\s*v?(\d+)\.(\d+)(?:\.(\d+))?", output)
    if code != 0 or found is None:
        raise NebulaUnusable(
            f"{executable} -version does not answer like nebula (exit code {code}): "
            f"install nebula again, or name the right executable in {named}"
        )
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    if version < MINIMUM_VERSION:
        raise NebulaUnusable(
            f"nebula {version_text(version)} at {executable} is too old: "
            f"at least {version_text(MINIMUM_VERSION)} is needed, please upgrade it"
        )
    return version


async def test_config(executable: Path, config_path: Path, *, user: str | None) -> None:
    """Let ``nebula -test`` read a configuration, as ``user`` when we are root. Cancellation ends the process.

    Raises :class:`ApplyFailed` with nebula's own sentence. Does not catch unknown keys, a certificate of the
    wrong CA, bad unsafe_routes or ports in use; what it prints (private keys may be inline) is not kept.
    """
    code, output = await _run([str(executable), "-test", "-config", str(config_path)], account(user))
    if code != 0:
        complaint = logfile.complaint(output.splitlines()) or f"exit code {code}"
        raise ApplyFailed(f"nebula -test refuses the configuration: {complaint}")


# pytest would collect it wherever it is imported.
test_config.__test__ = False  # type: ignore[attr-defined]


async def _run(argv: list[str], who: Account | None) -> tuple[int, str]:
    with trio.move_on_after(RUN_LIMIT_S):
        try:
            completed = await trio.run_process(
                argv,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd="/",
                env=dict(ENVIRONMENT),
                start_new_session=True,
                **as_account(who),
            )
        except OSError as error:
            raise NebulaUnusable(f"{argv[0]} can't be run: {error.strerror}: install nebula again") from error
        output = completed.stdout[:_OUTPUT_LIMIT_BYTES] + b"\n" + completed.stderr[:_OUTPUT_LIMIT_BYTES]
        return completed.returncode, output.decode("utf-8", "replace")
    raise NebulaUnusable(
        f"{argv[0]} {argv[1]} did not end within {RUN_LIMIT_S:.0f} s: "
        "install nebula again, or name the right executable in nebula.path"
    )


class Nebula(Protocol):
    """The nebula of this machine, as a seam."""

    @property
    def generation(self) -> int:
        """Another number after :meth:`find` found another file than before: what failed with the old one may work now."""

    async def find(self) -> tuple[Path, Version]:
        """Return where it is and its version. Raises :class:`NebulaUnusable` with the remedy."""

    async def test(self, config_path: Path, *, user: str | None) -> None:
        """Let it judge a configuration. Raises :class:`ApplyFailed`."""


class InstalledNebula:
    """The real one: at ``path``, or found (None). Asked again for its version only when the file has changed."""

    def __init__(self, path: Path | None) -> None:
        self.generation = 0
        self._path = path
        self._known: tuple[Path, tuple[int, int, int] | None, Version] | None = None

    async def find(self) -> tuple[Path, Version]:
        """Return where it is and its version; costs a ``stat`` when nothing changed. Raises NebulaUnusable."""
        try:
            executable = find_nebula(self._path)
        except NebulaUnusable:
            self._known = None  # when it is back it counts as another one, whoever of several saw it missing
            raise
        identity = files.identity(executable)
        if self._known is None or self._known[:2] != (executable, identity):
            version = await nebula_version(executable)
            # Several may have asked at once; they found the same.
            if self._known is None or self._known[:2] != (executable, identity):
                self._known = (executable, identity, version)
                self.generation += 1
        return executable, self._known[2]

    async def test(self, config_path: Path, *, user: str | None) -> None:
        """Run ``nebula -test``."""
        executable, _ = await self.find()
        await test_config(executable, config_path, user=user)
