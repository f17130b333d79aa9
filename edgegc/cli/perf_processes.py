"""The laboratory's own processes, as commands that it starts by their names. For nobody else."""

from __future__ import annotations

from typing import Literal

import click


@click.command("_generator", hidden=True)
def generator() -> None:
    """Run the plan that comes on standard input, and answer what became of it."""
    from edgegc.perf.generator import process

    process.main()


@click.command("_raw-echo", hidden=True)
@click.option("--body-bytes", type=int, default=0)
@click.option("--delay-ms", type=float, default=0)
@click.option("--stall-every-ms", type=float, default=0)
@click.option("--stall-ms", type=float, default=0)
@click.option("--drop-every", type=int, default=0)
@click.option("--reset-every", type=int, default=0)
def raw_echo(
    body_bytes: int,
    delay_ms: float,
    stall_every_ms: float,
    stall_ms: float,
    drop_every: int,
    reset_every: int,
) -> None:
    """Serve the least that a server on Trio can, as well or as badly as told."""
    from edgegc.perf import references

    flaws = references.Flaws(
        delay_ms=delay_ms,
        stall_every_ms=stall_every_ms,
        stall_ms=stall_ms,
        drop_every=drop_every,
        reset_every=reset_every,
    )
    references.raw_echo(body_bytes=body_bytes, flaws=flaws)


@click.command("_plain-quart", hidden=True)
@click.option("--body-bytes", type=int, default=0)
def plain_quart(body_bytes: int) -> None:
    """Serve one route with Quart-Trio on Hypercorn."""
    from edgegc.perf import references

    references.plain_quart(body_bytes=body_bytes)


@click.command("_store", hidden=True)
@click.argument("directory")
def store(directory: str) -> None:
    """Do to a store, in a directory that is its own, what comes on standard input."""
    from edgegc.perf import store_child

    store_child.main(directory)


@click.command("_profiled", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("kind", type=click.Choice(["cpu", "memory", "blocking"]))
@click.argument("tool", type=click.Choice(["own", "memray"]))
@click.argument("directory")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def profiled(
    kind: Literal["cpu", "memory", "blocking"], tool: str, directory: str, words: tuple[str, ...]
) -> int:
    """Run ``edgegc WORDS``, and sample it."""
    from pathlib import Path

    from edgegc.cli import main
    from edgegc.perf.profiler import sampler

    sampler.before(kind, tool)
    with sampler.sampling(kind, Path(directory), words, tool=tool):
        return main.run(words)


@click.command("_ask", hidden=True)
@click.argument("url")
@click.option("--for", "what", type=click.Choice(["version", "topology"]), required=True)
@click.option("--connections", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--warmup", type=float, default=1.0)
@click.option("--closing", is_flag=True)
def ask(
    url: str,
    what: Literal["version", "topology"],
    connections: int,
    seconds: float,
    warmup: float,
    closing: bool,
) -> None:
    """Ask a server, with the node tokens that come on standard input; for perf/compare-tools."""
    import sys
    from functools import partial

    import msgspec
    import trio

    from edgegc.perf import asking

    load = partial(
        asking.ask,
        url,
        sys.stdin.read().split(),
        what=what,
        connections=connections,
        duration_s=seconds,
        warmup_s=warmup,
        closing=closing,
    )
    click.echo(msgspec.json.encode(trio.run(load)))
