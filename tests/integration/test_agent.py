"""The agent and ``join`` against a whole daemon over real sockets; only nebula is a few lines in a log file."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from edgegc import errors
from edgegc.agent import settings, state, status
from edgegc.agent.agent import Agent, lock_directory
from edgegc.agent.join import Joined, join
from edgegc.client import Client, Unreachable, Untrusted
from edgegc.clock import SystemClock
from edgegc.model.manifest import Server
from tests.box import Box, box_settings, running_box
from tests.fakes import FakeSpawner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgegc.agent.status import ClusterStatus
    from edgegc.model import message

NEBULA = """#!/bin/sh
case "$1" in
-version) echo "Version: 1.6.1" ;;
-test) if [ -e "{refuses}" ]; then echo 'level=error msg="bad rule"' ; exit 1; fi ;;
esac
"""
ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0


@dataclass
class Machine:
    """A machine with a directory for the agent and something that is called like nebula."""

    home: Path
    spawner: FakeSpawner = field(default_factory=FakeSpawner)

    @property
    def directory(self) -> Path:
        return self.home / "agent"

    @property
    def nebula(self) -> Path:
        path = self.home / "nebula"
        if not path.exists():
            path.write_text(NEBULA.format(refuses=self.home / "refuses"))
            path.chmod(0o755)
        return path

    def refuse(self, refuses: bool = True) -> None:
        """Make ``nebula -test`` refuse everything, or nothing again."""
        marker = self.home / "refuses"
        marker.touch() if refuses else marker.unlink(missing_ok=True)

    async def join(
        self, url: str, key: str, *, name: str = "pi-1", pin: str | None = None, **more: Any
    ) -> settings.Cluster:
        return (await self.joined(url, key, name=name, pin=pin, **more)).cluster

    async def joined(self, url: str, key: str, *, name: str, **more: Any) -> Joined:
        given = {"pin": None, "nebula": self.nebula} | more
        return await join(self.directory, url=url, key=key, name=name, **given)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        agent = Agent(self.directory, clock=SystemClock(), random=lambda: 0.1, spawner=self.spawner)
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            yield agent
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(port: int, *, host: str = "", timeout_s: float = 0.0) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    monkeypatch.setattr("edgegc.nebula.process.probe", answers)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "node").mkdir()
    return Machine(tmp_path / "node")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def url_of(box: Box) -> str:
    return f"http://127.0.0.1:{box.port}"


async def until(holds: Callable[[], bool], what: str = "") -> None:
    with trio.move_on_after(WITHIN_S):
        while not holds():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"never: {what}")


def shown_of(pid: int) -> bytes:
    """Return what other users can see of a process, and what root can."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def only(agent: Agent) -> ClusterStatus:
    (cluster,) = agent.view().clusters
    return cluster


async def applied(agent: Agent, version: int) -> None:
    await until(lambda: only(agent).applied_version == version, f"version {version} applied: {only(agent)}")


async def node_of(box: Box, node_id: str) -> dict[str, Any]:
    reply = await box.request("GET", f"/api/v1/nodes/{node_id}")
    assert reply.status == 200
    return dict(reply.json)


async def test_a_machine_joins_runs_what_it_is_given_and_says_so(data: Path, machine: Machine) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            shown = only(agent)
            assert (shown.name, shown.error, shown.desired_version) == ("home", None, shown.applied_version)
            assert (shown.nebula.state, shown.nebula.version) == ("running", "1.6.1")
            assert shown.last_contact_at is not None
            assert shown.certificate_not_after is not None

            version = (await node_of(box, own.node_id))["version"]
            patched = await box.request("PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1400})
            assert patched.status == 200
            await applied(agent, version + 1)
            for _ in range(200):
                seen = await node_of(box, own.node_id)
                if (seen["state"], seen["applied_version"]) == ("online", version + 1):
                    break
                await trio.sleep(0.05)
            else:
                raise AssertionError(seen)
            assert seen["nebula_version"] == "1.6.1"
    rendered = (machine.directory / own.id / "current" / "nebula.yml").read_text()
    assert "mtu: 1400" in rendered
    assert str(machine.directory / own.id / "current" / "host.key") in rendered


async def test_secrets_of_a_node_are_for_its_owner_alone(data: Path, machine: Machine) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
    for path in (machine.directory, *machine.directory.rglob("*")):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o037, path
    assert not list((machine.directory / "joining").iterdir())


async def test_a_refused_version_is_reported_with_its_reason_and_the_node_runs_on(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            good = only(agent).applied_version
            children = len(machine.spawner.children)
            machine.refuse()
            await box.request("PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1400})
            await until(lambda: only(agent).state == "failed", "failed")
            assert only(agent).applied_version == good
            assert len(machine.spawner.children) == children
            for _ in range(200):
                seen = await node_of(box, own.node_id)
                if seen["error"]:
                    break
                await trio.sleep(0.05)
            assert (seen["state"], seen["applied_version"]) == ("failed", good)
            assert "bad rule" in seen["error"]

            machine.refuse(False)
            await box.request("PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1500})
            await until(lambda: only(agent).state == "ok", "ok again")


async def test_who_mends_nebula_need_not_wait_for_the_next_try(
    data: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegc.agent.membership.LOOK_EVERY_S", 0.05)
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            machine.refuse()
            await box.request("PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1400})
            await until(lambda: only(agent).state == "failed", "refused by nebula -test")
            machine.refuse(False)
            machine.nebula.touch()
            await until(lambda: only(agent).state == "ok", "tried again with another nebula")

            aside = machine.nebula.rename(machine.home / "aside")
            await box.request("PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1500})
            await until(lambda: "there is no nebula at" in (only(agent).error or ""), "missing")
            aside.rename(machine.home / "nebula")
            await until(
                lambda: only(agent).state == "ok", "tried again with the same nebula, back in its place"
            )


async def test_an_agent_that_ends_leaves_nebula_running_and_the_next_one_adopts_it(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            pid = only(agent).nebula.pid
    assert machine.spawner.child.signals == []
    async with machine.agent() as agent:
        await until(lambda: only(agent).nebula.pid == pid, "adopted, without a control plane")
        await until(lambda: only(agent).state == "ok", "ok")
    assert machine.spawner.child.signals == []


async def test_a_second_join_is_picked_up_by_the_running_agent_and_a_removed_cluster_ends(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        home, office = await box.cluster(), await box.cluster("office", network_cidr="10.43.0.0/16")
        await machine.join(url_of(box), await box.key(home["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            own = await machine.join(url_of(box), await box.key(office["id"]))
            assert own.tun_device == "egc-office"
            await until(lambda: [each.state for each in agent.view().clusters] == ["ok", "ok"], "both")
            first, second = machine.spawner.children
            settings.edit(
                machine.directory,
                lambda all_: settings.Settings(
                    clusters=tuple(each for each in all_.clusters if each.id != own.id)
                ),
            )
            await until(lambda: len(agent.view().clusters) == 1, "removed")
            assert (len(first.signals), len(second.signals)) == (0, 1)


async def test_what_runs_for_a_cluster_that_was_removed_meanwhile_is_ended_at_the_start(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
    settings.edit(machine.directory, lambda all_: settings.Settings())
    async with machine.agent():
        await until(lambda: machine.spawner.child.signals == [signal.SIGTERM], "ended")
    assert not list(machine.directory.glob("*/process.json"))


async def test_a_broken_agent_toml_stops_nothing(data: Path, machine: Machine) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            (machine.directory / "agent.toml").write_text("not [ toml")
            await trio.sleep(0.5)
            assert only(agent).state == "ok"


async def test_status_is_told_by_the_running_agent_and_by_the_files_without_one(
    data: Path, machine: Machine
) -> None:
    assert status.ask(machine.directory) is None
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            told = await trio.to_thread.run_sync(status.ask, machine.directory)
            assert told is not None
            assert told.clusters[0].state == "ok"
            assert list(msgspec.to_builtins(told.clusters[0])) == [
                "cluster_id", "name", "applied_version", "desired_version", "state", "error", "nebula",
                "last_contact_at", "certificate_not_after",
            ]  # fmt: skip
    assert status.ask(machine.directory) is None
    (shown,) = status.from_files(machine.directory).clusters
    assert (shown.applied_version, shown.state, shown.error) == (
        told.clusters[0].applied_version,
        "failed",
        "the agent is not running",
    )


async def test_a_deleted_node_keeps_its_nebula(data: Path, machine: Machine) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            await box.request("DELETE", f"/api/v1/nodes/{own.node_id}")
            await until(lambda: "does not know this node's token" in (only(agent).error or ""), "told")
            assert only(agent).nebula.state == "running"
            assert machine.spawner.child.signals == []


async def test_a_node_that_was_deleted_says_so_rather_than_what_failed_before(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        machine.refuse()
        async with machine.agent() as agent:
            await until(lambda: "bad rule" in (only(agent).error or ""), "refused by nebula -test")
            await box.request("DELETE", f"/api/v1/nodes/{own.node_id}")
            await until(lambda: "does not know this node's token" in (only(agent).error or ""), "told")


async def test_an_agent_that_has_nothing_to_do_knows_at_once_that_it_has_contact(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
        async with machine.agent() as agent:
            await until(lambda: only(agent).last_contact_at is not None, "contact")


async def test_a_lost_answer_is_made_good_by_the_same_command(
    data: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll, lost = Client.enroll, 0

    async def lose_first(client: Client, request: message.Enroll) -> message.Enrolled:
        nonlocal lost
        enrolled = await enroll(client, request)
        lost += 1
        if lost == 1:
            raise Unreachable("the connection broke")
        return enrolled

    monkeypatch.setattr(Client, "enroll", lose_first)
    monkeypatch.setattr("edgegc.agent.join.RETRIES_S", (0.01,))
    async with running_box(data) as box:
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"], uses=1))
        nodes = await box.request("GET", f"/api/v1/nodes?cluster_id={cluster['id']}")
        assert nodes.json["total"] == 1
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok with the second token")
    assert own.node_id == nodes.json["nodes"][0]["id"]


async def test_a_taken_name_and_a_spent_key_are_refused_in_words_for_who_stands_at_the_machine(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        await box.enrolled(cluster["id"], "pi-1")
        key = await box.key(cluster["id"])
        with pytest.raises(errors.Conflict, match=r"^a node named 'pi-1' already exists$"):
            await machine.join(url_of(box), key)
        await machine.join(url_of(box), key, name="pi-2")
        with pytest.raises(errors.Unauthorized, match=r"enrolment key: it is unknown, used up, .*key create"):
            await machine.join(url_of(box), key, name="pi-3", replace=True)
        for again in ("pi-2", "another"):
            with pytest.raises(
                errors.Conflict, match=r"^this machine is the node 'pi-2' of the cluster 'home'"
            ):
                await machine.join(url_of(box), key, name=again)
    assert len(settings.load(machine.directory).clusters) == 1


async def test_a_machine_that_is_a_node_already_becomes_another_only_when_told_to(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        key = await box.key(cluster["id"], uses=2)
        first = await machine.join(url_of(box), key, name="old")
        with pytest.raises(errors.Conflict, match=r"'old' of the cluster 'home' already.*--replace"):
            await machine.join(url_of(box), key, name="new")
        assert settings.load(machine.directory).clusters == (first,)
        joined = await machine.joined(url_of(box), key, name="new", replace=True)
        assert joined.warning is not None
        assert "'old'" in joined.warning
        assert "edgegc node delete old" in joined.warning
        assert [own.node_name for own in settings.load(machine.directory).clusters] == ["new"]


async def test_a_nebula_that_was_named_and_is_none_is_told_before_the_key_is_spent(machine: Machine) -> None:
    with pytest.raises(errors.Error, match=r"^there is no nebula at /nope: correct --nebula"):
        await machine.join("http://127.0.0.1:9", "egk_x", nebula=Path("/nope"))
    assert not machine.directory.exists()


async def test_clear_text_beyond_this_machine_is_refused_unless_told_out_loud(machine: Machine) -> None:
    for url in ("http://192.0.2.1:8080", "http://box.example", "http://[2001:db8::1]"):
        with pytest.raises(errors.Invalid, match=r"clear text.*--insecure-http"):
            await machine.join(url, "egk_x")
    for url in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"):
        with pytest.raises(Unreachable):
            await machine.join(url, "egk_x")


async def test_nobody_there_is_told_at_once(machine: Machine) -> None:
    with trio.fail_after(5), pytest.raises(Unreachable):
        await machine.join("http://127.0.0.1:9", "egk_x")


async def test_joining_over_tls_needs_the_pin_and_the_agent_keeps_to_it(data: Path, machine: Machine) -> None:
    plain = box_settings(data)
    tls = msgspec.structs.replace(plain, tls=msgspec.structs.replace(plain.tls, mode="self-signed"))
    async with running_box(data, tls) as box:
        cluster = await box.cluster()
        url = f"https://127.0.0.1:{box.port}"
        key = await box.key(cluster["id"])
        with pytest.raises(Untrusted, match="give its pin"):
            await machine.join(url, key)
        with pytest.raises(Untrusted) as caught:
            await machine.join(url, key, pin="0" * 64)
        pin = caught.value.message.split("public key ")[1][:64]
        own = await machine.join(url, key, pin=pin)
        assert [server.pin for server in own.servers] == [pin]
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")


async def test_a_machine_that_joins_its_cluster_again_is_a_new_node_on_the_same_device(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        first = await machine.join(url_of(box), await box.key(cluster["id"]))
        async with machine.agent() as agent:
            await until(lambda: only(agent).state == "ok", "ok")
            await box.request("DELETE", f"/api/v1/nodes/{first.node_id}")
            second = await machine.join(url_of(box), await box.key(cluster["id"]))
            assert second.node_id != first.node_id
            assert second.tun_device == first.tun_device
            version = (await node_of(box, second.node_id))["version"]
            await applied(agent, version)
            await until(lambda: only(agent).state == "ok", "ok as the new node")


async def test_join_start_becomes_the_agent_and_shows_nobody_the_key(data: Path, machine: Machine) -> None:
    async with running_box(data) as box:
        cluster = await box.cluster()
        key = await box.key(cluster["id"])
        words = (
            "join",
            url_of(box),
            "--config-dir",
            machine.directory,
            "--nebula",
            machine.nebula,
            "--start",
        )
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "edgegc", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEGC_KEY": key},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await until(lambda: status.ask(machine.directory) is not None, "the agent runs")
            seen = shown_of(process.pid)
            assert b"agent\0--config-dir" in seen
            assert b"egk_" not in seen
        finally:
            process.terminate()
            assert await process.wait() == 0


async def test_a_cluster_whose_memory_is_damaged_says_so_and_the_others_run(
    data: Path, machine: Machine
) -> None:
    async with running_box(data) as box:
        home, office = await box.cluster(), await box.cluster("office", network_cidr="10.43.0.0/16")
        await machine.join(url_of(box), await box.key(home["id"]))
        damaged = await machine.join(url_of(box), await box.key(office["id"]))
        (machine.directory / damaged.id / "state.json").write_text("{")
        async with machine.agent() as agent:
            await until(
                lambda: [each.state for each in agent.view().clusters] == ["ok", "failed"], "one of two"
            )
            error = agent.view().clusters[1].error
            assert error is not None
            assert "state.json is damaged" in error


async def test_a_server_whose_key_was_replaced_is_told_to_whoever_asks_the_agent(
    data: Path, machine: Machine
) -> None:
    plain = box_settings(data)
    tls = msgspec.structs.replace(plain, tls=msgspec.structs.replace(plain.tls, mode="self-signed"))
    async with running_box(data, tls) as box:
        cluster = await box.cluster()
        key = await box.key(cluster["id"])
        url = f"https://127.0.0.1:{box.port}"
        with pytest.raises(Untrusted) as caught:
            await machine.join(url, key, pin="0" * 64)
        own = await machine.join(url, key, pin=caught.value.message.split("public key ")[1][:64])
        other = Server(url=url, pin="1" * 64)
        settings.edit(
            machine.directory,
            lambda all_: all_.with_cluster(msgspec.structs.replace(own, servers=(other,), fallback=None)),
        )
        async with machine.agent() as agent:
            await until(lambda: "not the pinned" in (only(agent).error or ""), "told")


async def test_the_server_that_answers_is_asked_first_after_a_restart(data: Path, machine: Machine) -> None:
    knocks = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal knocks
        knocks += 1
        await stream.aclose()

    async with running_box(data) as box, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        cluster = await box.cluster()
        own = await machine.join(url_of(box), await box.key(cluster["id"]))
        dead = Server(url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}", pin=None)
        both = (dead, *own.servers)
        path = machine.directory / own.id / "state.json"
        for first in (True, False):
            settings.edit(
                machine.directory, lambda all_: all_.with_cluster(msgspec.structs.replace(own, servers=both))
            )
            # News for the node: where there is none, the first question is held, and contact shows only at its end.
            changed = await box.request(
                "PATCH", f"/api/v1/nodes/{own.node_id}", body={"mtu": 1400 if first else 1401}
            )
            assert changed.status == 200
            before = knocks
            async with machine.agent() as agent:
                await until(lambda: only(agent).last_contact_at is not None, "contact")
                assert (knocks > before) == first
                await until(lambda: state.load(path).server == own.servers[0].url, "written down")
        nursery.cancel_scope.cancel()


async def test_one_directory_has_one_agent(machine: Machine) -> None:
    settings.make_directory(machine.directory)
    lock = lock_directory(machine.directory)
    with pytest.raises(errors.Conflict, match="runs for"):
        lock_directory(machine.directory)
    assert lock > 0


async def test_the_status_socket_is_for_its_owner_alone(machine: Machine) -> None:
    settings.make_directory(machine.directory)
    async with machine.agent():
        mode = stat.S_IMODE((machine.directory / status.SOCKET_NAME).stat().st_mode)
        assert mode == 0o600
