"""Many nodes made at once: all of them or none, in one write and one version. Knows no rule that one node alone has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import existing, node_creation
from edgegc.control.credentials import NODE, mint
from edgegc.control.nodes import public_key_of
from edgegc.control.permissions import cluster_of
from edgegc.control.repetition import once
from edgegc.control.views import new_node_views
from edgegc.control.write import new_id
from edgegc.errors import Conflict, Invalid
from edgegc.model.message import NodesCreated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.errors import Error
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.message import NodeBatch, NodeCreate
    from edgegc.model.node import Node

MAX_NAMED = 20
"""Failing items that one answer names; looking for more of them would only hold up other writers."""


_UNNAMED = {"a node named": "name", "no free address": "overlay_ip"}
"""Sentences about one node that name no field, as they begin, and the field that each is about."""


class _Item(msgspec.Struct, frozen=True):
    wanted: node_creation.Wanted
    node_id: str
    token: str


async def create(
    control: Control, caller: Caller, cluster_id: str | None, request: NodeBatch
) -> NodesCreated:
    """Make nodes; their views, in the same order, carry their tokens, once.

    Invalid or Conflict when any of them can't be: the sentence names each by index and field (``nodes[3].name: …``), up
    to :data:`MAX_NAMED`, and none was made. Unavailable while the clock is wrong.
    """
    found = cluster_of(control, caller, cluster_id)
    items = _read(request.nodes)
    digests = [control.vault.token_digest(item.token) for item in items]

    def job(write: Write) -> NodesCreated:
        cluster = existing.cluster(write.connection, found)
        made = _make(write, cluster, items, digests)
        write.audit("node.create", *(node.id for node in made))
        tokens = [item.token for item in items]
        return NodesCreated(
            nodes=new_node_views(write.connection, cluster, list(zip(made, tokens, strict=True)))
        )

    return await control.write(caller, lambda write: once(write, NodesCreated, job))


def _read(requests: Sequence[NodeCreate]) -> list[_Item]:
    """Read what can be read without the store. Invalid, Conflict for the same name twice."""
    items: list[_Item] = []
    wrong: list[tuple[int, Error]] = []
    first_of_name: dict[str, int] = {}
    for index, request in enumerate(requests):
        if len(wrong) == MAX_NAMED:
            break
        public_key = None
        first = first_of_name.setdefault(request.name, index)
        try:
            if first != index:
                raise Conflict(f"name: {request.name!r} is the name of nodes[{first}] too")
            if request.public_key is not None:
                public_key = public_key_of(request.public_key)
        except (Invalid, Conflict) as error:
            wrong.append((index, error))
            continue
        wanted = node_creation.Wanted(
            name=request.name,
            role=request.role,
            mtu=request.mtu,
            groups=request.groups,
            overlay_ip=request.overlay_ip,
            listen_port=request.listen_port,
            public_key=public_key,
        )
        node_id = new_id()
        items.append(_Item(wanted, node_id, mint(NODE, node_id)))
    _refuse(wrong)
    return items


def _make(write: Write, cluster: Cluster, items: Sequence[_Item], digests: Sequence[bytes]) -> list[Node]:
    """Make the nodes; return them in the order of the items."""
    making = node_creation.Making(write, cluster, [item.wanted for item in items])
    wrong: list[tuple[int, Error]] = []
    # Addresses that are asked for come first, or one that is given out could be another item's wish.
    order = sorted(range(len(items)), key=lambda index: items[index].wanted.overlay_ip is None)
    for index in order:
        if len(wrong) == MAX_NAMED:
            break
        item = items[index]
        try:
            making.add(item.wanted, node_id=item.node_id, token_digest=digests[index])
        except (Invalid, Conflict) as error:
            wrong.append((index, error))
    _refuse(wrong)
    made = dict(zip(order, making.finish(), strict=True))
    return [made[index] for index in range(len(items))]


def _refuse(wrong: list[tuple[int, Error]]) -> None:
    """Raise one error for all, if there are any: as Invalid where one of them can never be, else as Conflict."""
    if not wrong:
        return
    sentences = [_placed(index, error.message) for index, error in sorted(wrong, key=lambda each: each[0])]
    more = "; there may be more" if len(wrong) == MAX_NAMED else ""
    kind = Invalid if any(isinstance(error, Invalid) for _, error in wrong) else Conflict
    raise kind(f"{'; '.join(sentences)}{more}; no node was made")


def _placed(index: int, sentence: str) -> str:
    """Return a sentence about an item with the item's index, and with the field where it names none itself."""
    if sentence.partition(":")[0].isidentifier():
        return f"nodes[{index}].{sentence}"
    field = next((f".{name}" for begin, name in _UNNAMED.items() if sentence.startswith(begin)), "")
    return f"nodes[{index}]{field}: {sentence}"
