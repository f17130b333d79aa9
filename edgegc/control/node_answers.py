"""What callers read of nodes, as the bytes that they get: the same ones while nothing changes.

Knows no rows: what is not kept is made by ``nodes.py`` and ``node_lists.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import node_lists, nodes
from edgegc.control.answer_cache import Basis
from edgegc.control.permissions import cluster_of, require

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import NodeQuery

_encode = msgspec.json.Encoder().encode


async def node(control: Control, caller: Caller, node_id: str) -> bytes:
    """Return a node, as :func:`nodes.get` does. NotFound."""
    entry = control.roll.entry(node_id)
    require(control, caller, None if entry is None else entry.cluster_id, "read", what="node")
    basis = Basis(entry, control.roll.effective(node_id))
    body = await control.answers.get(node_id, basis)
    if body is None:
        body = _encode(await nodes.get(control, caller, node_id))
        control.answers.keep(node_id, basis, body, node_ids=(node_id,))
    return body


async def page(control: Control, caller: Caller, cluster_id: str | None, query: NodeQuery) -> bytes:
    """Return a page of the cluster's nodes, as :func:`node_lists.list_` does. Invalid names the parameter."""
    found = cluster_of(control, caller, cluster_id, "read")
    # Whom a page shows then depends on what nodes say that it does not show.
    if query.state is not None or query.sort.endswith("last_seen_at"):
        return _encode(await node_lists.list_(control, caller, found, query))
    asked, basis = (found, query), Basis(control.roll.cluster(found), control.roll.revision(found))
    body = await control.answers.get(asked, basis)
    if body is None:
        made = await node_lists.list_(control, caller, found, query)
        body = _encode(made)
        control.answers.keep(asked, basis, body, node_ids=tuple(each.id for each in made.nodes))
    return body
