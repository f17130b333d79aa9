"""``edgegc serve``: the daemon. Owns its flags and the server's only ``trio.run``; the daemon itself is :mod:`edgegc.daemon`."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgegc.cli.options import Command, Common, data_dir_option, default_data_dir, local_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.settings import Settings

ENDING_S: Final = 30.0
"""How long a daemon that answers no more may take to end, before that counts as a failure: draining, and a full disk."""
GARBAGE: Final = (20_000, 20, 20)
"""How many objects are made, beyond those that went again, before garbage is looked for among the young ones, and how many
such looks come before one among the older and the oldest. With Python's (700, 10, 10), and nothing frozen, a request took
4 to 7 % more of the processor."""


def server_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags of a server; each is None where it is not given."""
    for option in reversed(
        (
            click.option(
                "--config",
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE",
                help="TOML. [default: edgegc.toml in the data directory, if it is there]",
            ),
            click.option(
                "--insecure-http",
                is_flag=True,
                default=None,
                help="Clear text on more than loopback: whoever listens on the way reads every token.",
            ),
            click.option(
                "--limits", type=click.Choice(["on", "off"]), help="'off' is for laboratories, on loopback."
            ),
            click.option(
                "--nebula",
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="PATH",
                help="The nebula executable. [default: the one in PATH]",
            ),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                help="What is written to the log at least. [default: info]",
            ),
            click.option(
                "--log-format",
                type=click.Choice(["auto", "json", "console"]),
                help="One object a line, or for people. [default: console on a terminal, else json]",
            ),
        )
    ):
        function = option(function)
    return function


def server_flags(common: Common, given: dict[str, Any]) -> dict[str, object]:
    """Return flags as keys of the settings; None for what was not given."""
    return {
        "data.dir": common.given_data_dir,
        "api.insecure_http": given["insecure_http"],
        "limits.enabled": None if given["limits"] is None else given["limits"] == "on",
        "nebula.path": given["nebula"],
        "log.level": given["log_level"],
        "log.format": given["log_format"],
    }


@click.command(cls=Command, example="edgegc serve --data-dir /var/lib/edgegc --listen 127.0.0.1:8080")
@click.option(
    "--listen",
    multiple=True,
    metavar="HOST:PORT",
    help="Where to listen; may be repeated. [default: 127.0.0.1:8080]",
)
@server_options
@data_dir_option
@local_options
@click.pass_obj
def serve(common: Common, /, config: Path | None, listen: tuple[str, ...], **given: Any) -> None:
    """Run the control plane. An empty data directory is initialised."""
    from edgegc.settings_source import load

    flags = {**server_flags(common, given), "api.listen": listen or None}
    run(lambda: load(config, flags, os.environ, default_data_dir=default_data_dir()).settings)


def run(load: Callable[[], Settings], *, beside: Callable[[Settings], Awaitable[None]] | None = None) -> None:
    """Run the daemon until it is told to stop. SIGHUP calls ``load`` again.

    ``beside`` runs once when the API answers; when it fails, the daemon ends and the error is raised.
    """
    import trio

    from edgegc import daemon, logs
    from edgegc.connection import Unreachable

    settings = load()
    logs.configure(level=settings.log.level, format=settings.log.format)

    async def main() -> None:
        if beside is None:
            await daemon.run(settings, ready=_settle, reload=load)
            return
        async with trio.open_nursery() as nursery:

            def is_up() -> None:
                _settle()
                ready.set()

            async def serve() -> None:
                await daemon.run(settings, ready=is_up, reload=load)
                # It was told to stop; what ``beside`` has not done by now, it does after the next start.
                nursery.cancel_scope.cancel()

            ready = trio.Event()
            nursery.start_soon(serve)
            await ready.wait()
            try:
                await beside(settings)
            except Unreachable:
                # It has answered before: most likely it is just ending, because it was told to, and cancels us.
                await trio.sleep(ENDING_S)
                raise

    trio.run(main)


def _settle() -> None:
    """Spare the garbage collector what the start made, which lives as long as the daemon: it would look through all of it
    again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)
