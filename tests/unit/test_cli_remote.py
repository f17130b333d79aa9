"""Names become ids, and every way in which they cannot has its own sentence and exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.main import run
from edgegc.cli.options import Common
from edgegc.cli.remote import _only, is_id, open_client

if TYPE_CHECKING:
    from pathlib import Path

ID = "5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52"
OTHER = "6b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52"


def test_an_id_is_told_from_a_name() -> None:
    assert is_id(ID)
    assert not is_id("pi-7")
    assert not is_id(ID.replace("-", ""))


def test_the_only_cluster_needs_no_name() -> None:
    assert _only("cluster", None, [(ID, "home")]) == ID


@pytest.mark.parametrize(
    ("wanted", "known", "code", "sentence"),
    [
        (None, [], Exit.NOT_FOUND, "there is no cluster yet: 'edgegc cluster create' makes one"),
        ("x", [(ID, "home")], Exit.NOT_FOUND, "there is no cluster named 'x': 'edgegc cluster list' shows them"),
        (None, [(ID, "home"), (OTHER, "away")], Exit.USAGE, "which cluster? --cluster takes one of: away, home"),
        ("a", [(ID, "a"), (OTHER, "a")], Exit.USAGE, f"more than one cluster is named 'a': use its id, one of {ID}, {OTHER}"),
    ],
)  # fmt: skip
def test_an_unclear_name_says_what_to_do(
    wanted: str | None, known: list[tuple[str, str]], code: Exit, sentence: str
) -> None:
    with pytest.raises(Failure) as caught:
        _only("cluster", wanted, known)
    assert (caught.value.exit_code, caught.value.message) == (code, sentence)


def test_without_a_server_a_command_exits_5_and_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["node", "list", "--data-dir", str(tmp_path)]) == Exit.UNREACHABLE
    captured = capsys.readouterr()
    assert captured.err.startswith(f"edgegc: nothing serves {tmp_path}: start it with 'edgegc serve'")
    assert captured.err.count("\n") == 1


def test_an_unreachable_url_exits_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["node", "list", "--url", "http://127.0.0.1:1", "--token", "x"]) == Exit.UNREACHABLE
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_no_token_is_sent_in_clear_text_beyond_this_machine_unless_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Common(given_url="http://192.0.2.1:8080", given_token="ega_x")
    assert run(["node", "list", "--url", there.url or "", "--token", "ega_x"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "use https://" in said
    assert "--insecure-http" in said
    there.insecure_http = True
    assert open_client(there).target.readable


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["node", "update", "pi-7"], "nothing to change"),
        (["node", "create"], "the node needs a name"),
        (["node", "create", "a", "--name", "b"], "NAME and --name differ"),
        (["node", "create", "a", "--listen-port", "x"], "'x' is neither a whole number nor 'auto'"),
        (["cluster", "create", "a"], "--network-cidr"),
        (["node", "lits"], "did you mean 'list'?"),
    ],
)
def test_a_wrong_command_line_exits_2_and_names_what_is_wrong(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Exit.USAGE
    assert sentence in capsys.readouterr().err


def test_open_client_takes_the_socket_of_the_data_directory(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "admin.sock"))
        assert str(open_client(Common(given_data_dir=tmp_path)).target) == f"unix://{tmp_path}/admin.sock"
