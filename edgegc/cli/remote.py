"""How a command asks a server: over the admin socket or a URL, and how names become ids. Knows no command's output."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from msgspec import UNSET

from edgegc import errors
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.progress import spinner
from edgegc.client import Client
from edgegc.connection import refuse_readable
from edgegc.model import message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edgegc.cli.options import Common

T = TypeVar("T")

ADMIN_SOCKET = "admin.sock"
MOST_PER_PAGE = 500
WAITING = "waiting for the server"


def open_client(common: Common) -> Client:
    """Return a client of the server that the command line names. Raises Failure where nothing can be there.

    Invalid for clear text beyond this machine, unless ``--insecure-http`` was given.
    """
    if common.url is not None:
        client = Client(common.url, token=common.token, pin=common.pin)
        if not common.insecure_http:
            refuse_readable(client.target)
        return client
    socket = common.data_dir.absolute() / ADMIN_SOCKET
    try:
        there = socket.is_socket()
    except PermissionError:
        there = True  # the connection will say why not
    if not there:
        raise Failure(
            f"nothing serves {common.data_dir}: start it with 'edgegc serve', name its directory with --data-dir, "
            "or a server elsewhere with --url, --token and --pin",
            Exit.UNREACHABLE,
        )
    return Client(f"unix://{socket}")


def ask(
    common: Common,
    question: Callable[[Client], Awaitable[T]],
    *,
    doing: str | None = WAITING,
) -> T:
    """Run ``question`` with a client of the server, and return what it returns. Raises its errors.

    ``doing``: what to show where it takes long; None where ``question`` shows how far it is.
    """

    async def main() -> T:
        async with open_client(common) as client:
            return await question(client)

    with nullcontext() if doing is None else spinner(common, doing):
        return trio.run(main)


def given(optional: Mapping[str, Any], *, none_means: str | None = None) -> dict[str, Any]:
    """Return the options that were given, as fields of a body.

    An option that was not is None; ``none_means`` names the one whose None says something, and it is UNSET.
    """
    return {
        name: value
        for name, value in optional.items()
        if value is not UNSET and (value is not None or name == none_means)
    }


def is_id(text: str) -> bool:
    """Return whether ``text`` is an id rather than a name."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


async def find_tenant(client: Client, wanted: str | None) -> str:
    """Return the id of the tenant of that name or id; of the only one, where none is named."""
    if wanted is not None and is_id(wanted):
        return wanted
    return _only("tenant", wanted, [(tenant.id, tenant.name) for tenant in (await client.tenants()).tenants])


async def find_cluster(client: Client, wanted: str | None) -> str:
    """Return the id of the cluster of that name or id; of the only one, where none is named."""
    if wanted is not None and is_id(wanted):
        return wanted
    return _only("cluster", wanted, [(each.id, each.name) for each in (await client.clusters()).clusters])


async def cluster_scope(client: Client, common: Common) -> str | None:
    """Return the id to send as ``cluster_id``, or None where the credential itself says which cluster is meant."""
    try:
        return await find_cluster(client, common.cluster)
    except errors.Forbidden:
        if common.cluster is not None:
            raise Failure(
                "this token may not list clusters, so --cluster needs the cluster's id", Exit.REFUSED
            ) from None
        return None


async def find_node(client: Client, common: Common, wanted: str) -> str:
    """Return the id of the node of that name or id."""
    if is_id(wanted):
        return wanted
    cluster_id = await cluster_scope(client, common)
    # The name is a prefix to the server; sorted by name, the exact one is the first.
    page = await client.nodes(message.NodeQuery(name=wanted, page_size=MOST_PER_PAGE), cluster_id=cluster_id)
    for node in page.nodes:
        if node.name == wanted:
            return node.id
    raise Failure(f"there is no node named '{wanted}': 'edgegc node list' shows them", Exit.NOT_FOUND)


def _only(noun: str, wanted: str | None, known: list[tuple[str, str]]) -> str:
    matching = [(id_, name) for id_, name in known if wanted is None or name == wanted]
    match matching:
        case [(id_, _)]:
            return id_
        case []:
            if wanted is None:
                raise Failure(f"there is no {noun} yet: 'edgegc {noun} create' makes one", Exit.NOT_FOUND)
            raise Failure(
                f"there is no {noun} named '{wanted}': 'edgegc {noun} list' shows them", Exit.NOT_FOUND
            )
        case _:
            if wanted is None:
                names = ", ".join(sorted(name for _, name in matching))
                raise Failure(f"which {noun}? --{noun} takes one of: {names}", Exit.USAGE)
            ids = ", ".join(id_ for id_, _ in matching)
            raise Failure(f"more than one {noun} is named '{wanted}': use its id, one of {ids}", Exit.USAGE)
