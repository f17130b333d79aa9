"""Lists of nodes: filters, order, pages and cursors. What changes every few seconds is taken from memory, not from rows."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgegc.control.credentials import cluster_of
from edgegc.control.views import node_view
from edgegc.errors import Invalid, NotFound
from edgegc.model.message import NodePage
from edgegc.model.node import Node
from edgegc.store import clusters, node_pages, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.message import NodeQuery

MAX_PAGE_SIZE = 500
MAX_PAGE = 1_000_000
SORTS = ("name", "created_at", "last_seen_at", "overlay_ip")
MAX_CURSOR_CHARACTERS = 512
MAX_CURSOR_NUMBER = 2**53

_KINDS: dict[str, tuple[type | tuple[type, ...], ...]] = {
    "name": (str,),
    "created_at": (int, str),
    "last_seen_at": (int, str),
    "overlay_ip": ((int, str),),
}
"""What a cursor's key is made of, by order."""

_Key = tuple[str | Annotated[int, msgspec.Meta(ge=0, le=MAX_CURSOR_NUMBER)] | None, ...]


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins: after this key, in this order."""

    sort: str
    key: _Key


class _Found(msgspec.Struct, frozen=True):
    nodes: list[Node]
    total: int
    next_key: _Key | None
    network_cidr: str


async def list_(control: Control, caller: Caller, cluster_id: str | None, query: NodeQuery) -> NodePage:
    """Return a page of the cluster's nodes, with the total of all that match. Invalid names the parameter."""
    found_id = cluster_of(control, caller, cluster_id, "read")
    if not 1 <= query.page_size <= MAX_PAGE_SIZE:
        raise Invalid(f"page_size: must be from 1 to {MAX_PAGE_SIZE}, not {query.page_size}")
    if not 1 <= query.page <= MAX_PAGE:
        raise Invalid(f"page: must be from 1 to {MAX_PAGE}, not {query.page}")
    sort, descending = query.sort.removeprefix("-"), query.sort.startswith("-")
    if sort not in SORTS:
        raise Invalid(
            f"sort: must be one of {', '.join(SORTS)}, with - before it to reverse, not {query.sort!r}"
        )
    after = None if query.cursor is None else _read_cursor(query.cursor, query.sort)
    wanted = node_pages.Filter(
        cluster_id=found_id,
        name_prefix=query.name or None,
        group=query.group,
        role=query.role,
        ids=None if query.state is None else control.fleet.in_state(found_id, query.state),
    )
    offset = 0 if after is not None else (query.page - 1) * query.page_size
    # One more than asked for tells whether there is a next page.
    limit = query.page_size + 1

    last_seen = control.fleet.last_seen(found_id) if sort == "last_seen_at" else {}

    def page(connection: sqlite3.Connection, cluster: Cluster) -> list[tuple[str, _Key]]:
        if sort == "last_seen_at":
            keys = sorted(
                ((last_seen.get(id_, 0), id_) for id_ in node_pages.ids(connection, wanted)),
                reverse=descending,
            )
            if after is not None:
                keys = [key for key in keys if (key < after if descending else key > after)]
            return [(id_, (at, id_)) for at, id_ in keys[offset : offset + limit]]
        # Nodes of an uploaded cluster have no address to sort by.
        by = "name" if sort == "overlay_ip" and cluster.mode == "uploaded" else sort
        return node_pages.page(
            connection, wanted, sort=by, descending=descending, limit=limit, offset=offset, after=after
        )

    def job(connection: sqlite3.Connection) -> _Found:
        cluster = clusters.get(connection, found_id)
        if cluster is None:
            raise NotFound("no such cluster")
        rows = page(connection, cluster)
        shown = rows[: query.page_size]
        by_id = nodes.get_many(connection, [id_ for id_, _ in shown])
        return _Found(
            nodes=[by_id[id_] for id_, _ in shown],
            total=node_pages.count(connection, wanted),
            next_key=shown[-1][1] if len(rows) > len(shown) else None,
            network_cidr=cluster.network_cidr,
        )

    found = await control.database.read(job)
    return NodePage(
        nodes=tuple(node_view(control, node, network_cidr=found.network_cidr) for node in found.nodes),
        total=found.total,
        page=query.page,
        page_size=query.page_size,
        next_cursor=None if found.next_key is None else _write_cursor(query.sort, found.next_key),
    )


def _write_cursor(sort: str, key: _Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Cursor(sort, key))).rstrip(b"=").decode()


def _read_cursor(text: str, sort: str) -> _Key:
    wrong = Invalid("cursor: not one of ours for this order; take next_cursor from the page before")
    if len(text) > MAX_CURSOR_CHARACTERS or not text.isascii():
        raise wrong
    try:
        padded = text + "=" * (-len(text) % 4)
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Cursor)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, ValueError):
        raise wrong from None
    kinds = _KINDS[sort.removeprefix("-")]
    if cursor.sort != sort or len(cursor.key) != len(kinds):
        raise wrong
    if not all(isinstance(value, kind) for value, kind in zip(cursor.key, kinds, strict=True)):
        raise wrong
    return cursor.key
