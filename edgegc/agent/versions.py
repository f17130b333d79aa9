"""The versions of one cluster on disk: one directory each, the keys they use, and ``current``, which says what is in force.

Knows no network and no processes. Blocking: fsync takes up to hundreds of milliseconds on an SD card. After a power
cut a version is either complete or not there, and ``current`` points to the old version or to the new one.

    <cluster>/keys/<first 16 hex of SHA-256 of the public key>.key
    <cluster>/versions/7/{config.yml ca.crt host.crt manifest.json nebula.yml}  host.key -> ../../keys/….key
    <cluster>/current -> versions/7

In an uploaded cluster the bundle may leave out ``host.crt`` and ``host.key``; then they are the machine's own, put by
whoever signs there beside ``host.pub``, the public half of the key that was made when the machine joined:

    <cluster>/{host.pub host.crt}  and, for a key that was made elsewhere, host.key
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from edgegc.agent import render
from edgegc.errors import Conflict, Error, Invalid, NotFound
from edgegc.model.manifest import Manifest
from edgegc.nebula import bundle, files, keys
from edgegc.nebula.certificate import Details, NebulaCertificate, parse_bundle_pem, parse_pem
from edgegc.nebula.config import dump

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgegc.agent.settings import Cluster

CURRENT: Final = "current"
RENDERED: Final = "nebula.yml"
PUBLIC_KEY: Final = "host.pub"
KEY_NAME_DIGITS: Final = 16

# The C parser takes 30 ms for a blocklist of 10,000, the Python one three seconds.
_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it lies on disk.

    ``config`` is the bundle's; ``authorities`` are the fingerprints in its ``ca.crt``; ``fingerprint`` and the rest
    are the host certificate's, ``details`` all that it says.
    """

    number: int
    config: dict[str, object]
    manifest: Manifest
    authorities: frozenset[str]
    fingerprint: str
    not_after: int
    public_key: bytes
    details: Details

    def renews(self, old: Version) -> bool:
        """Whether the certificate says what ``old``'s says, but for its time and who signed it."""
        return self.fingerprint != old.fingerprint and old.details == msgspec.structs.replace(
            self.details,
            not_before=old.details.not_before,
            not_after=old.details.not_after,
            issuer=old.details.issuer,
        )


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What nebula runs with when a version is in force; ``digest`` names all of it."""

    config: dict[str, object]
    digest: str


class Versions:
    """The directory of one cluster. Constructing it does nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def config_path(self) -> Path:
        """What nebula is started with: through ``current``, so that SIGHUP finds the version in force."""
        return self.directory / CURRENT / RENDERED

    def path(self, number: int) -> Path:
        """Return the directory of a version."""
        return self.directory / "versions" / str(number)

    def has(self, number: int) -> bool:
        """Whether a version is on disk, complete."""
        return self.path(number).is_dir()

    def current(self) -> int | None:
        """Return the version in force, or None."""
        try:
            name = (self.directory / CURRENT).readlink().name
        except OSError:
            return None
        return int(name) if name.isdecimal() and self.has(int(name)) else None

    def store(self, unpacked: bundle.Unpacked) -> None:
        """Lay a verified bundle down as a version; one that is there already with these contents is left alone."""
        path = self.path(unpacked.manifest.version)
        for directory in (self.directory, path.parent):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
                files.fsync_directory(directory.parent)
        try:
            bundle.lay_down(unpacked, path)
        except Conflict:
            # Of an earlier membership in this cluster, under whose node this machine is known no more.
            if self.current() == unpacked.manifest.version:
                raise
            shutil.rmtree(path)
            bundle.lay_down(unpacked, path)

    def load(self, number: int) -> Version:
        """Read a version; NotFound where there is none, Invalid naming what is wrong with it."""
        path = self.path(number)
        if not path.is_dir():
            raise NotFound(f"version {number} is not on this machine")
        try:
            config = yaml.load((path / bundle.CONFIG).read_bytes(), Loader=_YamlLoader)
        except yaml.YAMLError as error:
            raise Invalid(f"{bundle.CONFIG} is not YAML: {error}") from error
        if not isinstance(config, dict):
            raise Invalid(f"{bundle.CONFIG} is not a mapping")
        try:
            manifest = msgspec.json.decode((path / bundle.MANIFEST).read_bytes(), type=Manifest)
        except msgspec.DecodeError as error:
            raise Invalid(f"{bundle.MANIFEST} is not understood: {error}") from error
        own = self.certificate(number)
        return Version(
            number=number,
            config=config,
            manifest=manifest,
            authorities=_authorities(
                (path / bundle.AUTHORITIES).read_text("utf-8"), strict=bool(manifest.signers)
            ),
            fingerprint=own.fingerprint,
            not_after=own.details.not_after,
            public_key=own.details.public_key,
            details=own.details,
        )

    def certificate(self, number: int) -> NebulaCertificate:
        """Read the host certificate of a version, else the machine's own; Invalid naming what is wrong with it."""
        path, own = self.path(number) / bundle.CERTIFICATE, self.directory / bundle.CERTIFICATE
        try:
            # A link to the machine's own, once it was prepared.
            return parse_pem(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        try:
            return parse_pem(own.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Invalid(
                f"version {number} has no {bundle.CERTIFICATE}, and neither has this machine: "
                f"have {self.directory / PUBLIC_KEY} signed (nebula-cert sign -in-pub) and put the result at {own}"
            ) from None

    def own_files(self) -> object:
        """Return what differs once a certificate or key of the machine's own was replaced."""
        names = (bundle.CERTIFICATE, bundle.PRIVATE_KEY)
        return tuple(files.identity(self.directory / name) for name in names)

    def prepare(self, version: Version, cluster: Cluster) -> Prepared:
        """Give a version its key and its ``nebula.yml``, and return what nebula will run with.

        Done anew before each use: the machine's own settings may have changed. Writes nothing where nothing changed.
        """
        if bundle.CERTIFICATE not in version.manifest.files:
            self._link(self.path(version.number) / bundle.CERTIFICATE, f"../../{bundle.CERTIFICATE}")
        if bundle.PRIVATE_KEY not in version.manifest.files:
            self._link_key(version, cluster)
        config = self._nebula_config(version, cluster, self.directory / CURRENT)
        text = _dump(config)
        path = self.path(version.number) / RENDERED
        if not path.is_file() or path.read_bytes() != text:
            files.write_atomic(path, text)
        authorities = (self.path(version.number) / bundle.AUTHORITIES).read_bytes()
        digest = hashlib.sha256(text + authorities + version.fingerprint.encode()).hexdigest()
        return Prepared(config=config, digest=digest)

    def _link_key(self, version: Version, cluster: Cluster) -> None:
        key, own = self.key_path(version.public_key), self.directory / bundle.PRIVATE_KEY
        if key.is_file():
            target = f"../../keys/{key.name}"
        elif cluster.mode == "uploaded" and own.is_file():
            target = f"../../{own.name}"
        else:
            raise Error(
                f"the private key of the certificate of version {version.number} is not on this machine ({key})"
            )
        self._link(self.path(version.number) / bundle.PRIVATE_KEY, target)

    def write_twin(self, version: Version, cluster: Cluster) -> Path:
        """Write the ``-test`` twin of a prepared version, whose paths point into the version itself; return its path."""
        path = self.path(version.number)
        twin = path / "twin.yml"
        files.write_atomic(twin, _dump(self._nebula_config(version, cluster, path)))
        return twin

    def switch(self, number: int) -> None:
        """Put a version in force: one rename, durable when this returns."""
        self._link(self.directory / CURRENT, f"versions/{number}")

    def prune(self, keep: Iterable[int]) -> None:
        """Remove all versions but these and the one in force; what a crash left half done, too."""
        kept = {str(number) for number in (*keep, self.current())}
        for path in (self.directory / "versions").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    # Keys

    def key_path(self, public_key: bytes) -> Path:
        """Return where the private key of a public key (32 bytes) is."""
        return self.directory / "keys" / f"{hashlib.sha256(public_key).hexdigest()[:KEY_NAME_DIGITS]}.key"

    def save_key(self, pair: keys.KeyPair) -> Path:
        """Write a private key, durably, and return where. It must be there before anybody hears of the public one."""
        path = self.key_path(pair.public)
        for directory in (self.directory, path.parent):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
                files.fsync_directory(directory.parent)
        files.write_atomic(path, keys.pem_x25519_private(pair.private).encode())
        return path

    def _nebula_config(self, version: Version, cluster: Cluster, paths: Path) -> dict[str, object]:
        return render.nebula_config(
            version.config, cluster=cluster, listen_port=version.manifest.listen_port, files=paths
        )

    def _link(self, path: Path, target: str) -> None:
        try:
            if str(path.readlink()) == target:
                return
        except FileNotFoundError:
            pass
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        partial.symlink_to(target)
        partial.replace(path)
        files.fsync_directory(path.parent)


def _authorities(text: str, *, strict: bool) -> frozenset[str]:
    """Return what tells the authorities in a ``ca.crt`` apart: their fingerprints.

    Not ``strict``: of a kind that is not understood here (those of an uploaded bundle may be version 2) the text.
    """
    try:
        return frozenset(authority.fingerprint for authority in parse_bundle_pem(text))
    except Invalid:
        if strict:
            raise
        return frozenset(part.strip() for part in text.split("-----BEGIN")[1:])


def _dump(config: dict[str, object]) -> bytes:
    try:
        return dump(config)
    except TypeError as error:
        raise Invalid(
            f"{bundle.CONFIG} holds something that cannot be written for nebula: {error}"
        ) from error
