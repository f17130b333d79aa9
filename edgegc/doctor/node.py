"""A node's own questions: whether its agent runs, its control planes answer, its certificates last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

from edgegc import errors
from edgegc.agent import settings as agent_settings
from edgegc.agent import status
from edgegc.connection import connect, parse_target
from edgegc.doctor import machine
from edgegc.doctor.finding import Finding, fail, guarded, ok, warn

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.agent.settings import Cluster

NEEDED: Final = {"CAP_NET_ADMIN": "to make the tunnel and its routes"}
DISK_BYTES: Final = 32 * machine.MIB
"""A few versions of a bundle, nebula's logs, the file itself."""
MEMORY_BYTES: Final = 96 * machine.MIB
"""An agent and one nebula, with as much again to spare."""
OPEN_FILES: Final = 1024
DAY_S: Final = 86_400
CERTIFICATE_WARN_S: Final = 7 * DAY_S
"""Of a life of 180 days a third is left when it is renewed; with less than this something has been wrong for weeks."""


async def examine(directory: Path, *, now: float) -> list[Finding]:
    """Return the findings for the agent of a directory."""
    joined = agent_settings.load(directory).clusters
    somewhere = next(each for each in (directory, *directory.parents) if each.is_dir())
    paths = list(dict.fromkeys(cluster.nebula for cluster in joined)) or [None]
    found = [await machine.nebula(path) for path in paths]

    def local() -> list[Finding]:
        return [
            guarded("agent", lambda: _agent(directory, joined)),
            guarded("tun", lambda: machine.tun(needed=True)),
            guarded("capabilities", lambda: machine.capabilities(NEEDED)),
            guarded("clock", lambda: machine.clock(now)),
            guarded("disk", lambda: machine.disk(somewhere, least_bytes=DISK_BYTES)),
            guarded("fsync", lambda: machine.fsync(somewhere)),
            guarded("open files", lambda: machine.open_files(OPEN_FILES)),
            guarded("memory", lambda: machine.memory(MEMORY_BYTES)),
            *_clusters(directory, now),
        ]

    found += await trio.to_thread.run_sync(local)
    for cluster in joined:
        found.append(await _server(cluster))
    return found


def _agent(directory: Path, joined: tuple[Cluster, ...]) -> Finding:
    if not joined:
        return warn("agent", f"{directory}: this machine has joined no cluster", "edgegc join URL --key EGK")
    if status.ask(directory) is None:
        return fail("agent", status.NOT_RUNNING, "systemctl start edgegc-agent, or edgegc agent")
    return ok("agent", f"runs, for {', '.join(cluster.name for cluster in joined)}")


def _clusters(directory: Path, now: float) -> list[Finding]:
    shown = status.ask(directory) or status.from_files(directory)
    found: list[Finding] = []
    for each in shown.clusters:
        if each.state == "failed":
            found.append(
                fail(
                    f"cluster {each.name}",
                    each.error or "its newest version failed",
                    "the control plane shows it in 'edgegc node list'; undo the change, or mend what it names",
                )
            )
        until = each.certificate_not_after
        if until is None:
            continue
        left = until.timestamp() - now
        check, remedy = f"certificate {each.name}", "let it reach its control plane, which renews it"
        detail = f"good until {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(until.timestamp()))}"
        if left <= 0:
            found.append(fail(check, detail.replace("good", "it was good"), remedy))
        elif left < CERTIFICATE_WARN_S:
            found.append(warn(check, detail, remedy))
        else:
            found.append(ok(check, detail))
    return found


async def _server(cluster: Cluster) -> Finding:
    """Whether any of a cluster's servers answers as the one that was pinned."""
    check = f"server {cluster.name}"
    problems: list[str] = []
    for server in cluster.servers:
        try:
            (await connect(parse_target(server.url, pin=server.pin))).close()
        except errors.Error as error:
            problems.append(error.message)
        else:
            return ok(check, f"{server.url} answers")
    return warn(
        check,
        "; ".join(problems) or "none is known",
        "the network goes on without it; if it moved: edgegc agent set-server CLUSTER URL",
    )
