"""What happened, said after the commit. The control bus carries these; nothing else crosses between deliveries."""

from __future__ import annotations

import msgspec

from edgegc.model.node import Role


class NodeChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A node was made or changed: everything the in-memory roll needs of it."""

    node_id: str
    cluster_id: str
    role: Role
    token_digest: bytes
    own_version: int
    has_bundle: bool
    token_used: bool
    """Whether the token has been used; its first use is stored before it is answered."""


class NodeDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """A node is gone; its token authenticates nobody."""

    node_id: str
    cluster_id: str


class ClusterChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster was made, its settings changed, or a bump concerned all of it."""

    cluster_id: str
    wide_version: int


class ClusterDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster is gone, with all its nodes."""

    cluster_id: str


class RestartRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asked for a restart of the box's own lighthouse of a cluster."""

    cluster_id: str


class StopRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asked to end the box's own lighthouse process of a cluster, until the daemon starts again."""

    cluster_id: str


class TokenChanged(msgspec.Struct, frozen=True, kw_only=True):
    """An API token was made: everything needed to authenticate it."""

    token_id: str
    digest: bytes
    scopes: tuple[str, ...]
    expires_at: int | None


class TokenDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """An API token is gone."""

    token_id: str


Event = (
    NodeChanged
    | NodeDeleted
    | ClusterChanged
    | ClusterDeleted
    | TokenChanged
    | TokenDeleted
    | RestartRequested
    | StopRequested
)
