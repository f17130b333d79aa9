"""How a command fails: one line on stderr, and an exit code that a script can act on. Knows no command."""

from __future__ import annotations

import enum
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from edgegc import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAM = "edgegc"


class Exit(enum.IntEnum):
    """What the process's exit code says; a contract with scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


EXIT_BY_CODE: Mapping[errors.Code, Exit] = {
    "invalid_request": Exit.USAGE,
    "unauthorized": Exit.REFUSED,
    "forbidden": Exit.REFUSED,
    "conflict": Exit.REFUSED,
    "not_found": Exit.NOT_FOUND,
}
"""An error that is not named here is a plain failure."""


class Failure(Exception):
    """A command cannot go on: one sentence that says what, why, and what to do."""

    def __init__(self, message: str, exit_code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def report(error: BaseException, *, environ: Mapping[str, str] = os.environ) -> Exit:
    """Say on stderr why the command failed, and return its exit code. ``EDGEGC_DEBUG`` adds the traceback."""
    if environ.get("EDGEGC_DEBUG"):
        traceback.print_exception(error)
    cause = _cause(error)
    exit_code, sentence = explain(cause)
    if sentence:
        # One line, whatever a library put in its message.
        click.echo(f"{PROGRAM}: {' '.join(sentence.split())}", err=True)
    return exit_code


def explain(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code and the sentence for one error; an empty sentence means that nothing needs saying."""
    match error:
        case Failure():
            return error.exit_code, error.message
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return Exit.USAGE, ""
        case click.UsageError():
            where = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            return Exit.USAGE, error.format_message().rstrip(".") + where
        case click.Abort() | KeyboardInterrupt():
            return Exit.INTERRUPTED, "interrupted"
        case click.ClickException():
            return Exit.FAILED, error.format_message()
        case errors.Conflict(unless=str(field)):
            # What is a field of the API's requests is a flag here, by the same name.
            return Exit.REFUSED, f"{error.message}; --{field.replace('_', '-')} does it all the same"
        case errors.Error():
            return _exit_code(error), error.message
        case BrokenPipeError():
            # The reader went away (``| head``): there is no one to tell, and stdout must not be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.FAILED, ""
        case OSError() if error.strerror:
            return Exit.FAILED, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        case _:
            return Exit.FAILED, (
                f"internal error: {type(error).__name__}: {error}; "
                "EDGEGC_DEBUG=1 shows where, and what it shows is worth reporting"
            )


def _exit_code(error: errors.Error) -> Exit:
    # Its code is that of a server which answers 503; only the type tells that nobody answered at all. An error of
    # that module cannot be here without it, so nothing is imported for the sake of those that never connect.
    connection = sys.modules.get("edgegc.connection")
    if connection is not None and isinstance(error, connection.Unreachable):
        return Exit.UNREACHABLE
    return EXIT_BY_CODE.get(error.code, Exit.FAILED)


def _cause(error: BaseException) -> BaseException:
    """Return what a person should hear of: of a group's members, an interrupt, then a bug, then what is expected."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    expected = (Failure, errors.Error, click.ClickException, OSError)
    for wanted in (
        [leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)],
        [leaf for leaf in leaves if not isinstance(leaf, expected)],
        leaves,
    ):
        if wanted:
            return wanted[0]
    return error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for member in group.exceptions:
        if isinstance(member, BaseExceptionGroup):
            yield from _leaves(member)
        else:
            yield member
