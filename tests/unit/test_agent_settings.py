from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.agent import settings
from edgegc.agent.settings import Settings, adopt, edit, free_device, load, without_fallback
from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.model.manifest import Server
from tests.fakes import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = ControlPlane().membership()
OLD, NEW, OTHER = (Server(url=f"https://{name}.example:8443", pin=None) for name in ("old", "new", "other"))


def test_what_is_written_is_read_back_by_its_owner_alone(tmp_path: Path) -> None:
    full = msgspec.structs.replace(
        OWN,
        fallback=OLD,
        listen_port=4242,
        nebula=Path("/opt/nebula"),
        log_level="debug",
        servers=(NEW, OTHER),
    )
    directory = tmp_path / "agent"
    edit(directory, lambda all_: all_.with_cluster(full))
    assert load(directory).clusters == (full,)
    assert stat.S_IMODE((directory / "agent.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_without_a_file_there_are_no_clusters(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings()


def test_a_failing_change_changes_nothing(tmp_path: Path) -> None:
    edit(tmp_path, lambda all_: all_.with_cluster(OWN))

    def fail(all_: Settings) -> Settings:
        raise Conflict("no")

    with pytest.raises(Conflict):
        edit(tmp_path, fail)
    assert load(tmp_path).clusters == (OWN,)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.toml"]


def _add(directory: Path, number: int) -> None:
    own = msgspec.structs.replace(OWN, id=f"id-{number}", tun_device=f"egc-{number}")
    edit(directory, lambda all_: all_.with_cluster(own))


def test_changes_of_several_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(cluster.id for cluster in load(tmp_path).clusters) == [
        f"id-{number}" for number in range(4)
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "\nnonsense [", "is not TOML"),
        (lambda text: text.replace("node_token =", "token ="), "token"),
        (lambda text: text.replace('"egc-home"', '"a-name-that-is-too-long"'), r"tun_device"),
        (lambda text: text.replace('"managed"', '"wild"'), r"mode"),
        (lambda text: text.replace("listen_port = 0", "listen_port = 70000"), "listen_port"),
        (lambda text: text.replace("listen_port = 0", "nebula = 7"), "expected a path"),
        (lambda text: text + text.replace('"egc-home"', '"egc-2"'), "the same id"),
        (lambda text: text + text.replace(OWN.id, "another"), "the same tun_device"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    edit(tmp_path, lambda all_: all_.with_cluster(OWN))
    path = tmp_path / "agent.toml"
    path.write_text(change(path.read_text()))
    with pytest.raises(Invalid, match=said):
        load(tmp_path)


def test_a_cluster_is_found_by_id_and_by_name_unless_two_have_it() -> None:
    other = msgspec.structs.replace(OWN, id="other", tun_device="egc-other")
    all_ = Settings(clusters=(OWN,)).with_cluster(other)
    assert all_.named(OWN.id) == OWN
    with pytest.raises(Conflict, match="give the id"):
        all_.named("home")
    with pytest.raises(NotFound, match="in no cluster 'x'"):
        all_.named("x")


def test_two_clusters_do_not_share_a_device() -> None:
    with pytest.raises(Conflict, match="egc-home"):
        Settings(clusters=(OWN,)).with_cluster(msgspec.structs.replace(OWN, id="other"))


@pytest.mark.parametrize(
    ("name", "taken", "device"),
    [
        ("home", (), "egc-home"),
        ("home", ("egc-home",), "egc-home2"),
        ("home", ("egc-home", "egc-home2"), "egc-home3"),
        ("The Office (Bern)", (), "egc-the-office-"),
        ("a-very-long-name-of-a-cluster", ("egc-a-very-long",), "egc-a-very-lon2"),
        ("ü", (), "egc-net"),
    ],
)
def test_a_device_tells_its_cluster_and_fits(name: str, taken: tuple[str, ...], device: str) -> None:
    assert free_device(name, taken) == device
    assert len(device) <= settings.MAX_DEVICE_CHARACTERS


def test_a_node_never_loses_the_last_server_that_answered_before_a_new_one_has() -> None:
    own = msgspec.structs.replace(OWN, servers=(OLD, OTHER))
    moved = adopt(own, servers=(NEW,), signers=("new",), good=OTHER)
    assert (moved.servers, moved.signers, moved.fallback) == ((NEW,), ("new",), OTHER)
    assert without_fallback(moved, OTHER) == moved
    assert without_fallback(moved, NEW).fallback is None
    assert adopt(own, servers=(OLD, NEW), signers=("new",), good=OLD).fallback is None


def test_what_a_manifest_leaves_out_stays() -> None:
    own = msgspec.structs.replace(OWN, servers=(OLD,), fallback=OTHER)
    assert adopt(own, servers=(), signers=(), good=OLD) == own
    assert adopt(own, servers=(OLD,), signers=("new",), good=OLD).fallback == OTHER


def test_a_token_is_not_shown_by_accident() -> None:
    assert OWN.node_token not in repr(OWN)
