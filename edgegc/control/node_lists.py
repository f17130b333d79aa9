"""Lists of nodes: filters, order, pages and cursors. What changes every few seconds is taken from memory, not from rows."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgegc.control import existing
from edgegc.control.permissions import cluster_of
from edgegc.control.views import node_view
from edgegc.errors import Invalid
from edgegc.model.message import NodePage
from edgegc.model.node import Node
from edgegc.store import node_pages, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import NodeQuery

MAX_PAGE_SIZE = 500
MAX_PAGE = 1_000_000
SORTS = ("name", "created_at", "last_seen_at", "overlay_ip")
MAX_CURSOR_CHARACTERS = 512
MAX_CURSOR_NUMBER = 2**53

WRONG_CURSOR = "cursor: not one of ours for this order; take next_cursor from the page before"

_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "created_at": (int, str),
    "last_seen_at": (int, str),
    "overlay_ip": (int,),
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
    offset = 0 if after is not None else (query.page - 1) * query.page_size
    wanted = node_pages.Filter(
        cluster_id=found_id, name_prefix=query.name or None, group=query.group, role=query.role
    )
    in_state = None if query.state is None else control.fleet.in_state(found_id, query.state)
    last_seen = control.fleet.last_seen(found_id) if sort == "last_seen_at" else None

    def in_memory(connection: sqlite3.Connection, by: str) -> tuple[list[node_pages.Row], int]:
        """Order and filter by what no row holds: all rows' keys, in one pass."""
        rows = node_pages.page(connection, wanted, sort=by, descending=descending)
        if in_state is not None:
            rows = [row for row in rows if row[0] in in_state]
        if last_seen is not None:
            rows = [(id_, (last_seen.get(id_, 0), id_)) for id_, _ in rows]
            rows.sort(key=lambda row: row[1], reverse=descending)
        total = len(rows)
        if after is not None:
            rows = [row for row in rows if (row[1] < after if descending else row[1] > after)]
        return rows[offset : offset + query.page_size + 1], total

    def in_rows(connection: sqlite3.Connection, by: str) -> tuple[list[node_pages.Row], int]:
        rows = node_pages.page(
            connection,
            wanted,
            sort=by,
            descending=descending,
            # One more than asked for tells whether there is a next page.
            limit=query.page_size + 1,
            offset=offset,
            after=after,
        )
        return rows, node_pages.count(connection, wanted)

    def job(connection: sqlite3.Connection) -> _Found:
        cluster = existing.cluster(connection, found_id)
        # Nodes of an uploaded cluster have no address to sort by, and no row knows when a node was last heard of.
        by = "name" if sort == "last_seen_at" or (sort, cluster.mode) == ("overlay_ip", "uploaded") else sort
        if after is not None:
            _check_key(after, sort if sort == "last_seen_at" else by)
        select = in_rows if in_state is None and last_seen is None else in_memory
        rows, total = select(connection, by)
        shown = rows[: query.page_size]
        by_id = nodes.get_many(connection, [id_ for id_, _ in shown])
        return _Found(
            nodes=[by_id[id_] for id_, _ in shown],
            total=total,
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
    if len(text) > MAX_CURSOR_CHARACTERS or not text.isascii():
        raise Invalid(WRONG_CURSOR)
    try:
        padded = text + "=" * (-len(text) % 4)
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Cursor)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, ValueError):
        raise Invalid(WRONG_CURSOR) from None
    if cursor.sort != sort:
        raise Invalid(WRONG_CURSOR)
    return cursor.key


def _check_key(key: _Key, by: str) -> None:
    kinds = _KINDS[by]
    if len(key) != len(kinds) or not all(map(isinstance, key, kinds)):
        raise Invalid(WRONG_CURSOR)
