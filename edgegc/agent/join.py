"""How a machine becomes a node: a key pair made here, an enrolment, an entry in ``agent.toml``. Runs no nebula.

The order makes a lost answer harmless. The private key is on disk before anybody hears of the public one, and stays
there until the machine is a node; the same command, given again, asks with the same pair, which the control plane
takes for the same node.
"""

from __future__ import annotations

import hashlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.agent import settings
from edgegc.agent.versions import PUBLIC_KEY, Versions
from edgegc.client import Client, Unreachable
from edgegc.connection import parse_target, refuse_readable
from edgegc.errors import Conflict, Error, Invalid, TooMany, Unauthorized, Unavailable
from edgegc.model import message
from edgegc.model.manifest import Server
from edgegc.nebula import files, keys
from edgegc.nebula.executable import NebulaUnusable, find_nebula, nebula_version, version_text
from edgegc.nebula.process import in_thread

if TYPE_CHECKING:
    from pathlib import Path

RETRIES_S: Final = (1.0, 2.0, 4.0)
"""Waits between attempts after an answer was lost. Nobody listening at all is told at once instead."""
ALREADY_A_NODE: Final = "this machine is the node "
"""How the control plane begins to refuse a machine that is a node of the cluster already."""
PENDING: Final = "joining"
"""Directory of the keys whose enrolment is under way."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The new membership; ``warning`` is what the person should know, a sentence, or None."""

    cluster: settings.Cluster
    overlay_ip: str | None
    warning: str | None


async def join(
    directory: Path,
    *,
    url: str,
    pin: str | None,
    key: str,
    name: str | None,
    nebula: Path | None,
    replace: bool = False,
    insecure_http: bool = False,
) -> Joined:
    """Make this machine a node, and return what it became.

    ``key``: the enrolment key. ``name``: default the host's name. ``nebula``: the executable, None: look for it.
    ``replace``: where the machine is a node of the cluster already, it becomes another one. ``insecure_http``: tokens
    may cross the network readable. Raises what the control plane said, Unreachable, Untrusted, Invalid, NebulaUnusable
    for a ``nebula`` that is none, OSError. May be repeated after any of them, and after cancellation.
    """
    server = Server(url=url.rstrip("/"), pin=pin.lower() if pin else None)
    target = parse_target(server.url, pin=server.pin)
    if not insecure_http:
        refuse_readable(target)
    name = name or socket.gethostname().partition(".")[0]
    version, warning = await _look_at_nebula(nebula)
    await in_thread(partial(settings.make_directory, directory))
    # A file that cannot be read is told before the key is spent.
    before = settings.load(directory)
    known = [] if replace else _memberships(before, server)
    pending = directory / PENDING / f"{_fingerprint(key, name)}.key"
    pair = await in_thread(partial(_pending_pair, pending))
    enroll = message.Enroll(
        name=name,
        public_key=keys.pem_x25519_public(pair.public),
        nebula_version=version,
        known_as=tuple(cluster.node_id for cluster in known),
    )
    async with Client(server.url, token=key, pin=server.pin) as client:
        try:
            enrolled = await _enrol(client, enroll)
        except Unauthorized as error:
            # The server must not tell strangers more; the person here knows which credential it was.
            raise Unauthorized(
                "the control plane does not accept the enrolment key: it is unknown, used up, expired or revoked; "
                "'edgegc key create --show-join' there makes another"
            ) from error
        except Conflict as error:
            if error.message.startswith(ALREADY_A_NODE):
                raise Conflict(
                    f"{error.message}; edgegc agent status shows it, --replace makes it another node there"
                ) from error
            raise
    cluster = await in_thread(
        partial(
            _remember,
            directory,
            enrolled,
            pair=pair,
            name=name,
            server=server,
            nebula=nebula,
            insecure_http=insecure_http,
        )
    )
    await in_thread(partial(files.remove_durably, pending))
    old = before.cluster(cluster.id)
    if replace and old is not None:
        left = f"the node that this machine was, {old.node_name!r}, is still there: 'edgegc node delete {old.node_name}'"
        warning = f"{left}; {warning}" if warning else left
    return Joined(cluster=cluster, overlay_ip=enrolled.overlay_ip, warning=warning)


async def _look_at_nebula(nebula: Path | None) -> tuple[str | None, str | None]:
    """Return nebula's version, and what is wrong with it: joining needs none, only running does.

    One that was named must be one: the name would be kept.
    """
    try:
        found = find_nebula(nebula, named="--nebula")
        return version_text(await nebula_version(found, named="--nebula")), None
    except NebulaUnusable as error:
        if nebula is not None:
            raise
        return None, error.message


async def _enrol(client: Client, enroll: message.Enroll) -> message.Enrolled:
    for wait_s in (*RETRIES_S, None):
        try:
            return await client.enroll(enroll)
        except (Unreachable, Unavailable, TooMany) as error:
            if isinstance(error, Unreachable) and not error.sent:
                raise
            if wait_s is None:
                if isinstance(error, TooMany):
                    raise
                raise Unreachable(
                    f"{error.message}; give the same command again: it goes on where it stopped"
                ) from error
            await trio.sleep(max(wait_s, min(error.retry_after_s or 0, 30)))
    raise AssertionError("unreachable")


def _memberships(all_: settings.Settings, server: Server) -> list[settings.Cluster]:
    """Return what this machine is under that control plane already: no other is told."""
    return [cluster for cluster in all_.clusters if server.url in {each.url for each in cluster.servers}]


def _fingerprint(key: str, name: str) -> str:
    """Return what tells one enrolment from another without telling its key."""
    return hashlib.sha256(f"edgegc-join\n{key}\n{name}\n".encode()).hexdigest()[:16]


def _pending_pair(path: Path) -> keys.KeyPair:
    """Return the pair of an enrolment under way, made and fsynced if there is none. Blocking."""
    settings.make_directory(path.parent)
    try:
        private = keys.parse_x25519_private(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        pair = keys.generate_x25519()
        files.write_atomic(path, keys.pem_x25519_private(pair.private).encode())
        return pair
    except (Invalid, UnicodeDecodeError) as error:
        raise Error(f"{path} is damaged: remove it and join again") from error
    return keys.KeyPair(private=private, public=keys.x25519_public_of(private))


def _remember(
    directory: Path,
    enrolled: message.Enrolled,
    *,
    pair: keys.KeyPair,
    name: str,
    server: Server,
    nebula: Path | None,
    insecure_http: bool,
) -> settings.Cluster:
    """Put the key where its cluster looks for it, then the cluster into ``agent.toml``, each durably. Blocking."""
    versions = Versions(directory / enrolled.cluster_id)
    versions.save_key(pair)
    if enrolled.overlay_ip is None:
        # Nobody signs it here: whoever does needs the file.
        files.write_atomic(
            versions.directory / PUBLIC_KEY, keys.pem_x25519_public(pair.public).encode(), mode=0o644
        )
    servers = enrolled.servers or (server,)
    devices = {device for _, device in socket.if_nameindex()}

    def add(all_: settings.Settings) -> settings.Settings:
        # A machine that joins a cluster again (restored, or deleted there) is a new node with the old device.
        old = all_.cluster(enrolled.cluster_id)
        taken = devices | {cluster.tun_device for cluster in all_.clusters}
        return all_.with_cluster(
            settings.Cluster(
                id=enrolled.cluster_id,
                name=enrolled.cluster_name,
                tenant_id=enrolled.tenant_id,
                node_id=enrolled.node_id,
                node_name=name,
                node_token=enrolled.node_token,
                mode="managed" if enrolled.overlay_ip is not None else "uploaded",
                servers=servers,
                fallback=None if server in servers else server,
                insecure_http=insecure_http,
                signers=enrolled.signers,
                tun_device=old.tun_device if old else settings.free_device(enrolled.cluster_name, taken),
                listen_port=old.listen_port if old else 0,
                nebula=nebula.absolute() if nebula else old.nebula if old else None,
                log_level=old.log_level if old else "info",
            )
        )

    after = settings.edit(directory, add).cluster(enrolled.cluster_id)
    assert after is not None
    return after
