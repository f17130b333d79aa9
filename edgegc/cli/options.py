"""What commands have in common: the shared options, examples in the help, groups that import a command when it runs.

Knows no command; imports only click, so that ``edgegc --version`` stays quick.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource

Output = Literal["table", "json"]
F = TypeVar("F", bound=Callable[..., Any])

PIN = re.compile(r"[0-9a-f]{64}")
SYSTEM_DATA_DIR = Path("/var/lib/edgegc")


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the server keeps everything: ``/var/lib/edgegc`` for root, else the user's state directory."""
    if os.geteuid() == 0:
        return SYSTEM_DATA_DIR
    state_home = environ.get("XDG_STATE_HOME")
    return (Path(state_home) if state_home else Path.home() / ".local" / "state") / "edgegc"


@dataclass
class Common:
    """The shared options as given on the command line, before or after the command's name; the later one wins."""

    output: Output = "table"
    quiet: bool = False
    no_color: bool = False
    given_url: str | None = None
    given_token: str | None = None
    given_pin: str | None = None
    given_data_dir: Path | None = None
    insecure_http: bool = False
    cluster: str | None = None

    @property
    def json(self) -> bool:
        """Whether output is for a program."""
        return self.output == "json"

    @property
    def url(self) -> str | None:
        """The server's address, or None for the admin socket."""
        return self.given_url or os.environ.get("EDGEGC_URL") or None

    @property
    def token(self) -> str | None:
        """The bearer token."""
        return self.given_token or os.environ.get("EDGEGC_TOKEN") or None

    @property
    def pin(self) -> str | None:
        """SHA-256 of the server's public key, in lower-case hex."""
        pin = self.given_pin or os.environ.get("EDGEGC_PIN") or None
        if pin is not None and not PIN.fullmatch(pin.lower()):
            raise click.UsageError("--pin (EDGEGC_PIN) must be 64 hexadecimal digits")
        return pin.lower() if pin else None

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        if self.given_data_dir:
            return self.given_data_dir
        from_environ = os.environ.get("EDGEGC_DATA_DIR")
        return Path(from_environ) if from_environ else default_data_dir()


def _remember(attribute: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        common = context.ensure_object(Common)
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            setattr(common, attribute, value)
        return value

    return callback


def _shared(*names: str, attribute: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_remember(attribute), **attributes)


_OUTPUT = _shared(
    "-o", "--output", attribute="output", type=click.Choice(["table", "json"]), help="For people or for programs. [default: table]"
)  # fmt: skip
_QUIET = _shared(
    "-q", "--quiet", attribute="quiet", is_flag=True, help="Only the answer: an id, a secret, or nothing."
)
_NO_COLOR = _shared("--no-color", attribute="no_color", is_flag=True, help="Plain text. [env: NO_COLOR]")
_DATA_DIR = _shared(
    "--data-dir",
    attribute="given_data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The server's data directory, for its admin socket. [env: EDGEGC_DATA_DIR]",
)
_URL = _shared("--url", attribute="given_url", metavar="URL", help="A server elsewhere. [env: EDGEGC_URL]")
_TOKEN = _shared("--token", attribute="given_token", metavar="TOKEN", help="API token. [env: EDGEGC_TOKEN]")
_PIN = _shared(
    "--pin", attribute="given_pin", metavar="SHA256", help="The server's public key. [env: EDGEGC_PIN]"
)
_INSECURE_HTTP = _shared(
    "--insecure-http",
    attribute="insecure_http",
    is_flag=True,
    help="Clear text beyond this machine: whoever listens on the way reads every token.",
)
_CLUSTER = _shared(
    "--cluster",
    attribute="cluster",
    metavar="NAME|ID",
    help="Which cluster; not needed when there is only one.",
)


_SERVER = (_URL, _TOKEN, _PIN, _INSECURE_HTTP, _DATA_DIR)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return all of these as one decorator; the help lists them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def list_option(*names: str, metavar: str, help: str, required: bool = False) -> Callable[[F], F]:
    """Add an option that gives a tuple of texts, or None where it is not given at all.

    Values are separated by commas, and the option may be repeated; an empty text is an empty list.
    """

    def joined(
        context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        if not given:
            return None
        return tuple(part.strip() for text in given for part in text.split(",") if part.strip())

    return click.option(
        *names, multiple=True, callback=joined, metavar=f"{metavar}[,…]", help=help, required=required
    )


def integer_or(word: str) -> Callable[[Any], Any]:
    """Return an option's type: a whole number, or ``word`` for None. Give the option UNSET as its default."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value == word:
            return None
        try:
            return int(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a whole number nor '{word}'") from None

    return convert


def name_argument(noun: str) -> Callable[[F], F]:
    """Add the name of a new thing, as ``NAME`` or ``--name NAME``: people write the first, programs the second."""

    def settle(context: click.Context, parameter: click.Parameter, given: str | None) -> str:
        positional = context.params.pop("positional_name", None)
        if given is not None and positional is not None and given != positional:
            raise click.UsageError("NAME and --name differ", context)
        name = given if given is not None else positional
        if name is None:
            raise click.UsageError(f"the {noun} needs a name: give NAME or --name", context)
        return str(name)

    def decorate(function: F) -> F:
        option = click.option(
            "--name", callback=settle, metavar="NAME", help=f"The {noun}'s name; the same as NAME."
        )
        argument = click.argument("positional_name", metavar="NAME", required=False, is_eager=True)
        return argument(option(function))

    return decorate


def local_options(function: F) -> F:
    """Add the options of every command: ``--output``, ``--quiet``, ``--no-color``."""
    return together(_OUTPUT, _QUIET, _NO_COLOR)(function)


def data_dir_option(function: F) -> F:
    """Add ``--data-dir``."""
    return _DATA_DIR(function)


def insecure_http_option(function: F) -> F:
    """Add ``--insecure-http``."""
    return _INSECURE_HTTP(function)


def remote_options(function: F) -> F:
    """Add the options of a command that asks a server about the box as a whole."""
    return together(_OUTPUT, _QUIET, _NO_COLOR, *_SERVER)(function)


def cluster_options(function: F) -> F:
    """Add the options of a command that asks a server about one cluster."""
    return together(_CLUSTER, _OUTPUT, _QUIET, _NO_COLOR, *_SERVER)(function)


class Command(click.Command):
    """A command whose help ends with an example that can be pasted."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        _write_example(self.example, formatter)


class Group(click.Group):
    """A noun: its commands are :class:`Command`, its help ends with an example."""

    command_class = Command

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were written, which is the order of use."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with; an unknown one is refused with the nearest known one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            nearest = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
            raise click.UsageError(f"no such command '{name}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first sentence of its help, complete: click cuts it to a line."""
        lines = [
            (name, (command.help or "").strip().partition("\n\n")[0].partition(". ")[0].rstrip(".") + ".")
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(line.split())) for name, line in lines])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        _write_example(self.example, formatter)


class LazyGroup(Group):
    """A group whose commands are imported when they are used, not to list them.

    ``lazy`` maps a command's name to ``module:attribute`` and the line that the list shows.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, importing none of them."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the lines given here."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])


def _write_example(example: str, formatter: click.HelpFormatter) -> None:
    if example:
        with formatter.section("Example"):
            for line in example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
