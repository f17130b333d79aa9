"""``agent.toml``: the clusters that this machine is a node of, and who it is there. Knows no network and no process.

Three write it: ``edgegc join``, ``edgegc agent set-server``, and the agent when a proven version moves the control
plane or its signers. Each changes it under a lock, on what is there then, so none undoes another's change.
"""

from __future__ import annotations

import fcntl
import os
import re
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import tomli_w
from msgspec import Meta

from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.model.cluster import Mode
from edgegc.model.manifest import Server
from edgegc.nebula import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DEFAULT_DIRECTORY: Final = Path("/var/lib/edgegc-agent")
FILE_NAME: Final = "agent.toml"
MAX_DEVICE_CHARACTERS: Final = 15
"""IFNAMSIZ less the final NUL."""
DEVICE_PREFIX: Final = "egc-"

Device = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.-]{{1,{MAX_DEVICE_CHARACTERS}}}$")]


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this machine is in one cluster, and what is its own business there.

    ``servers`` are tried in order. ``fallback`` is the server that was good before ``servers`` were replaced; it is
    tried last, and dropped when one of them has answered: a wrong address in the control plane's settings must not
    cut a node off for ever. ``listen_port`` counts where the bundle leaves it open; 0: any free one. ``nebula``:
    the executable; None looks in the usual places. ``insecure_http``: whether the token may go to a server beyond this
    machine in clear text, which only a person may say: not the control plane, by naming such an address.
    """

    id: str
    name: str
    tenant_id: str
    node_id: str
    node_name: str
    node_token: str
    mode: Mode
    servers: tuple[Server, ...]
    signers: tuple[str, ...]
    tun_device: Device
    fallback: Server | None = None
    insecure_http: bool = False
    listen_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    nebula: Path | None = None
    log_level: Literal["debug", "info"] = "info"
    """Of nebula. Nothing quieter: what it says at ``info`` is the proof that it took a change."""

    def __repr__(self) -> str:
        return f"Cluster(id={self.id!r}, name={self.name!r}, node_id={self.node_id!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of ``agent.toml``."""

    clusters: tuple[Cluster, ...] = ()

    def cluster(self, cluster_id: str) -> Cluster | None:
        """Return the cluster with this id, or None."""
        return next((cluster for cluster in self.clusters if cluster.id == cluster_id), None)

    def named(self, name_or_id: str) -> Cluster:
        """Return the cluster with this id or name; NotFound, or Conflict where a name fits two."""
        found = [cluster for cluster in self.clusters if name_or_id in (cluster.id, cluster.name)]
        if len(found) > 1:
            raise Conflict(f"two clusters are named {name_or_id!r}: give the id")
        if not found:
            known = ", ".join(cluster.name for cluster in self.clusters) or "none"
            raise NotFound(f"this machine is in no cluster {name_or_id!r} (it is in: {known})")
        return found[0]

    def with_cluster(self, changed: Cluster) -> Settings:
        """Return these settings with a cluster added, or replaced where it is there."""
        others = [cluster for cluster in self.clusters if cluster.id != changed.id]
        if any(cluster.tun_device == changed.tun_device for cluster in others):
            raise Conflict(f"tun_device {changed.tun_device!r} is another cluster's")
        if self.cluster(changed.id) is None:
            return Settings(clusters=(*self.clusters, changed))
        return Settings(clusters=tuple(changed if own.id == changed.id else own for own in self.clusters))


def load(directory: Path) -> Settings:
    """Return the settings of a directory; without a file there are no clusters. Invalid names the key that is wrong."""
    path = directory / FILE_NAME
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}") from error
    try:
        settings = msgspec.convert(document, Settings, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise Invalid(f"{path}: {error}") from error
    devices = [cluster.tun_device for cluster in settings.clusters]
    ids = [cluster.id for cluster in settings.clusters]
    for key, values in (("tun_device", devices), ("id", ids)):
        if len(set(values)) < len(values):
            raise Invalid(f"{path}: two clusters have the same {key}")
    return settings


def edit(directory: Path, change: Callable[[Settings], Settings]) -> Settings:
    """Replace the settings by what ``change`` makes of them, durably; return the new ones.

    Blocking: it waits for whoever else is changing them (milliseconds). An error of ``change`` changes nothing.
    """
    make_directory(directory)
    with _locked(directory):
        old = load(directory)
        new = change(old)
        if new != old:
            document = tomli_w.dumps(_without_none(msgspec.to_builtins(new, enc_hook=str)))
            files.write_atomic(directory / FILE_NAME, document.encode(), mode=0o600)
    return new


def adopt(
    own: Cluster, *, servers: tuple[Server, ...], signers: tuple[str, ...], good: Server | None
) -> Cluster:
    """Return a cluster with the servers and signers that a proven version names; what it leaves out stays as it is.

    ``good``: the server that answered last. Where it is not among the new ones it is kept until one of them answers.
    """
    if not servers or servers == own.servers:
        return msgspec.structs.replace(own, signers=signers or own.signers)
    fallback = good if good is not None and good not in servers else None
    return msgspec.structs.replace(own, servers=servers, signers=signers or own.signers, fallback=fallback)


def without_fallback(own: Cluster, good: Server) -> Cluster:
    """Return a cluster without its fallback, if ``good``, which has answered, is among its proper servers."""
    return msgspec.structs.replace(own, fallback=None) if good in own.servers else own


def make_directory(directory: Path) -> None:
    """Make a directory of ours (0700) and its parents, durably."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.fsync_directory(directory.parent)


def free_device(cluster_name: str, taken: Iterable[str]) -> str:
    """Return a device name that tells which cluster it is, and is nobody else's."""
    taken = set(taken)
    slug = re.sub(r"[^a-z0-9]+", "-", cluster_name.lower()).strip("-") or "net"
    for number in range(1, 10_000):
        suffix = "" if number == 1 else str(number)
        device = (DEVICE_PREFIX + slug)[: MAX_DEVICE_CHARACTERS - len(suffix)] + suffix
        if device not in taken:
            return device
    raise Conflict(f"no free device name for cluster {cluster_name!r}")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    # The directory itself is locked: the file is replaced, so a lock on it would be one on the old file.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _path(kind: type, value: Any) -> Any:
    """Read what msgspec does not know by itself, which is paths."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"expected a path, got {value!r}")


def _without_none(value: Any) -> Any:
    """Leave out what is None, which TOML cannot say."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value
