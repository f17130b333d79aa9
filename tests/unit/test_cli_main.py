"""The command line's frame: laziness, help, exit codes, shared options."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from edgegc import errors
from edgegc.cli.failure import Exit, Failure, explain, report
from edgegc.cli.main import COMMANDS, cli, run
from edgegc.cli.options import Command, Common, Group, LazyGroup, cluster_options

SERVER_SIDE = (
    "quart",
    "hypercorn",
    "sqlite3",
    "edgegc.store",
    "edgegc.api",
    "edgegc.control",
    "edgegc.daemon",
)


def modules_loaded_by(*arguments: str) -> set[str]:
    script = (
        "import sys; from edgegc.cli.main import run; code = run(sys.argv[1:]);"
        "print('\\n'.join(sorted(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["version"], ["agent", "--help"], ["join", "--help"], ["node", "--help"]],
)
def test_a_light_command_loads_nothing_of_the_server_side(arguments: list[str]) -> None:
    loaded = modules_loaded_by(*arguments)
    assert not loaded & set(SERVER_SIDE)
    assert "trio" not in loaded


@pytest.mark.parametrize(
    "module",
    ["edgegc.agent.agent", "edgegc.agent.join", "edgegc.client", "edgegc.cli.remote", "edgegc.cli.status"],
)
def test_the_node_side_and_the_client_load_nothing_of_the_server_side(module: str) -> None:
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & set(SERVER_SIDE)


def test_the_version_option_prints_name_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    from edgegc import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"edgegc {__version__}\n"


def test_an_unknown_command_is_a_usage_error_that_suggests_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["verison"]) == Exit.USAGE
    captured = capsys.readouterr()
    assert (
        captured.err == "edgegc: no such command 'verison'; did you mean 'version'? (see 'edgegc --help')\n"
    )
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("it failed"), 1),
        (Failure("gone", Exit.UNREACHABLE), 5),
        (click.UsageError("no"), 2),
        (errors.Invalid("mtu must be at least 1280"), 2),
        (errors.Unauthorized("who"), 3),
        (errors.Forbidden("may not"), 3),
        (errors.Conflict("taken"), 3),
        (errors.NotFound("no such node"), 4),
        (errors.Unavailable("full"), 1),
        (OSError(13, "Permission denied", "/data"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (ZeroDivisionError(), 1),
    ],
)
def test_an_error_has_its_exit_code_and_one_line_without_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, environ={}) == code
    err = capsys.readouterr().err
    assert err.startswith("edgegc: ")
    assert err.count("\n") == 1


def test_of_a_group_of_errors_a_bug_is_reported_before_what_is_expected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nested = ExceptionGroup(
        "both", [ExceptionGroup("inner", [errors.NotFound("x")]), ZeroDivisionError("bug")]
    )
    assert report(nested, environ={}) == 1
    assert "internal error: ZeroDivisionError: bug" in capsys.readouterr().err


def test_a_traceback_is_shown_only_when_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.NotFound("no such node"), environ={"EDGEGC_DEBUG": "1"})
    assert "NotFound" in capsys.readouterr().err


def test_an_expected_operating_system_error_names_the_file() -> None:
    assert explain(OSError(13, "Permission denied", "/data")) == (Exit.FAILED, "/data: Permission denied")


def every_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found.extend(every_command(command, (*path, name)))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_shared_options(name: str) -> None:
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    commands = [((name,), command)]
    if isinstance(command, click.Group):
        commands += every_command(command, (name,))
    for path, each in commands:
        where = " ".join(path)
        assert isinstance(each, Command | Group), where
        assert each.example.startswith("edgegc "), where
        assert each.help, where
        if isinstance(each, Command):
            options = {option for parameter in each.params for option in parameter.opts}
            assert {"--output", "-o", "--quiet", "--no-color"} <= options, where


def invoke(*arguments: str) -> Common:
    seen: list[Common] = []

    @click.command(cls=Command)
    @cluster_options
    @click.pass_obj
    def show(common: Common) -> None:
        seen.append(common)

    @click.group(cls=Group)
    @cluster_options
    def root() -> None:
        pass

    root.add_command(show, "show")
    root.main(list(arguments), standalone_mode=False)
    return seen[0]


def test_a_shared_option_may_stand_before_or_after_the_command() -> None:
    assert invoke("-o", "json", "show").json
    assert invoke("show", "-o", "json").json
    assert not invoke("-o", "json", "show", "-o", "table").json


def test_the_environment_fills_what_the_command_line_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGC_URL", "https://box:8443")
    monkeypatch.setenv("EDGEGC_PIN", "AB" * 32)
    assert invoke("show").url == "https://box:8443"
    assert invoke("show").pin == "ab" * 32
    assert invoke("--url", "https://other", "show").url == "https://other"


def test_a_malformed_pin_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="64 hexadecimal digits"):
        assert invoke("show", "--pin", "12").pin


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_that_was_started_without_standard_files_works(closed: str) -> None:
    command = f'exec "$0" -m edgegc version {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
