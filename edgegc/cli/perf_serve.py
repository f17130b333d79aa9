"""``edgegc perf serve``: the server that the scenarios use, for other tools to ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from edgegc import errors
from edgegc.cli import perf_options
from edgegc.cli.options import Command, Common, local_options

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.perf.device import Device
    from edgegc.perf.seed import Seeded
    from edgegc.perf.server import Server, ServerOptions

SHOWN_TOKENS: Final = 3
"""Of nodes, for people; programs get all."""


@click.command(
    cls=Command,
    example="edgegc perf serve --nodes 1000\n"
    'wrk -c64 -t1 -d10s -H "Authorization: Bearer TOKEN" http://127.0.0.1:PORT/api/v1/config/version',
)
@click.option(
    "--nodes", type=click.IntRange(1, 100_000), default=1000, help="How many there are. [default: 1000]"
)
@click.option(
    "--limits",
    type=click.Choice(["on", "off"]),
    default="off",
    help="Whether it limits how often one may ask. [default: off]",
)
@click.option("--tls", is_flag=True, help="With TLS, with a certificate of its own.")
@click.option("--seed", type=int, default=1, help="Of names and keys. [default: 1]")
@perf_options.device("it")
@perf_options.nebula
@perf_options.directory("Where it keeps its data, until it ends.")
@local_options
@click.pass_obj
def serve(
    common: Common,
    nodes: int,
    limits: str,
    tls: bool,
    seed: int,
    device: str | None,
    nebula: Path | None,
    directory: Path | None,
) -> None:
    """Run a server with a cluster full of nodes, and print its URL and tokens, until Ctrl-C. Nothing of it is kept.

    It is on the processor that scenarios use, so that what other tools measure compares with 'perf run'.
    """
    import trio

    from edgegc.perf import filesystem, host
    from edgegc.perf.device import Device
    from edgegc.perf.server import ServerOptions

    try:
        emulated = Device.parse(device) if device else None
    except errors.Invalid as error:
        raise click.UsageError(error.message) from None
    options = ServerOptions(
        tls=tls,
        limits=limits == "on",
        nebula=nebula or host.find_nebula(),
        directory=filesystem.workplace(directory),
    )
    trio.run(lambda: _serve(common, options, nodes=nodes, seed=seed, device=emulated))


async def _serve(
    common: Common, options: ServerOptions, *, nodes: int, seed: int, device: Device | None
) -> None:
    """Serve until a signal comes. Raises Unavailable where it ends before."""
    import signal
    from contextlib import nullcontext

    import trio

    from edgegc.cli.progress import spinner
    from edgegc.perf import cpus
    from edgegc.perf import seed as seeding
    from edgegc.perf.cages import cage
    from edgegc.perf.server import serving

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def until_told() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(until_told)
            with cage(device) if device else nullcontext() as groups:
                async with serving(options, cage=groups, cpu=cpus.cpus().server) as server:
                    with spinner(common, f"making {nodes} nodes"):
                        seeded = await seeding.seed(server, nodes=nodes, seed=seed)
                    _print(common, server, seeded)
                    await server.wait()
                    raise errors.Unavailable(server.epitaph())


def _print(common: Common, server: Server, seeded: Seeded) -> None:
    from edgegc.cli.output import emit_fields, emit_json

    if common.json:
        emit_json(
            {
                "url": server.url,
                "cluster_id": seeded.cluster_id,
                "admin_token": seeded.admin_token,
                "node_tokens": [node.token for node in seeded.nodes],
                "pid": server.pid,
            }
        )
    elif common.quiet:
        click.echo(server.url)
    else:
        emit_fields(
            common,
            (
                ("url", server.url),
                ("pid", server.pid),
                ("cluster_id", seeded.cluster_id),
                ("admin_token", seeded.admin_token),
                *(("node_token", node.token) for node in seeded.nodes[:SHOWN_TOKENS]),
            ),
        )
        click.echo(
            f"\n{len(seeded.nodes):,} nodes; '-o json' prints the tokens of all. Ctrl-C ends the server and deletes all of it.",
            err=True,
        )
    sys.stdout.flush()
