"""``--url`` and what belongs to it: a server that runs already, for the commands that can measure one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgegc import errors
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import together

if TYPE_CHECKING:
    from edgegc.model.message import VersionInfo
    from edgegc.perf.ground import Elsewhere
    from edgegc.perf.run import Options

UNSAFE: Final = Exit.NOT_FOUND
"""4: the target is not there, or must not be loaded."""
OURS: Final = ("device", "server", "tls")
"""Flags that are for servers of our own."""
FOREIGN: Final = (
    "the server ran already: its settings and its processor are its own, it is not fresh in each repetition, and the machine "
    "described is the one that asks"
)

options = together(
    click.option(
        "--url",
        metavar="URL",
        help="A server that runs: in a tenant made for this and deleted afterwards.",
    ),
    click.option(
        "--token",
        envvar="EDGEGC_TOKEN",
        metavar="TOKEN",
        help="An operator's, for --url. [env: EDGEGC_TOKEN]",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="That holds it.",
    ),
    click.option(
        "--pin", envvar="EDGEGC_PIN", metavar="SHA256", help="Of the public key of --url. [env: EDGEGC_PIN]"
    ),
    click.option(
        "--insecure-http",
        is_flag=True,
        help="Clear text beyond this machine: whoever listens on the way reads every token.",
    ),
    click.option("--i-know", is_flag=True, help="Load a server at --url although it has clusters."),
)


def elsewhere(given: dict[str, Any]) -> Elsewhere | None:
    """Return the server that the flags name, if they do. Raises UsageError for what can't be meant."""
    from edgegc.perf.ground import Elsewhere

    if given["url"] is None:
        return None
    if wrong := [f"--{name}" for name in OURS if given.get(name)]:
        raise click.UsageError(f"{' and '.join(wrong)}: for a server of our own, not for --url")
    file, token = given["token_file"], given["token"]
    if file is not None:
        token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise click.UsageError("--url needs an operator's token: --token-file or EDGEGC_TOKEN")
    return Elsewhere(
        url=given["url"],
        token=token,
        pin=given["pin"].lower() if given["pin"] else None,
        insecure_http=given["insecure_http"],
    )


def asked(options: Options, *, i_know: bool) -> Options:
    """Return the options with what the server at ``--url``, if there is one, says of itself. Raises as :func:`reached`."""
    if options.elsewhere is None:
        return options
    found = reached(options.elsewhere, i_know=i_know)
    return replace(
        options,
        release={"edgegc": f"{found.version} ({found.commit})"},
        warnings=(*options.warnings, FOREIGN),
    )


def reached(server: Elsewhere, *, i_know: bool) -> VersionInfo:
    """Return what a server says of itself that may be loaded. Raises Failure, exit 4, where it is not there or must not be."""
    import trio

    from edgegc.perf import ground

    try:
        return trio.run(lambda: ground.check(server, i_know=i_know))
    except errors.Error as error:
        raise Failure(error.message, UNSAFE) from None
