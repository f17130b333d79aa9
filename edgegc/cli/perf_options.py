"""The options that commands of ``edgegc perf`` share. Knows no command; see :mod:`edgegc.cli.perf_elsewhere` for ``--url``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.cli.options import F

DEFAULT_SEED: Final = 1
"""The same for everyone: two runs differ in what is measured, not in what is asked."""

seed = click.option(
    "--seed", type=int, default=DEFAULT_SEED, help="Of whatever is left to chance. [default: 1]"
)
nebula = click.option(
    "--nebula",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PATH",
    help="The nebula executable. [default: the one in PATH]",
)
out = click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json", help="Write the report."
)


def device(what: str) -> Callable[[F], F]:
    """Add ``--device``, which is to hold ``what``."""
    return click.option(
        "--device",
        metavar="MEMORY:CPU",
        help=f"Hold {what} to a device's memory and share of a core: 512M:25%.",
    )


def directory(help: str) -> Callable[[F], F]:
    """Add ``--dir``."""
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help=f"{help} [default: the working directory]",
    )
