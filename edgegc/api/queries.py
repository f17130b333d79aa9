"""Query strings that more than one group of routes takes."""

from __future__ import annotations

from edgegc.model import message


class NoQuery(message.Request, frozen=True, kw_only=True):
    """For paths that take no query: whatever is given is a mistake worth telling."""


class CascadeQuery(message.Request, frozen=True, kw_only=True):
    """For deleting what has something in it: whether that goes too."""

    cascade: bool = False


class ClusterQuery(message.Request, frozen=True, kw_only=True):
    """For paths that are about "the cluster": which, where the caller's token does not say it."""

    cluster_id: message.Id | None = None
