"""Boxes with lighthouses, and machines that have joined them: what the scenarios on real nebula begin with.

Where machines join, box and machines are in network namespaces of their own; a lighthouse alone needs none.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error
from edgegc.model import message
from edgegc.perf import machines, network
from edgegc.perf.lighthouses import Lighthouse
from edgegc.perf.machines import Machine
from edgegc.perf.middlebox import Middlebox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.bench import Bench, Served
    from edgegc.perf.network import Network

NODES: Final = 50
"""Nodes that the box knows besides; a lighthouse's configuration does not depend on how many there are."""
API_PORT: Final = 8443
MIDDLEBOX_PORT: Final = 8444
LIGHTHOUSE_PORT: Final = 4242
NETWORKS: Final = "10.{number}.0.0/16"
FIRST_NETWORK: Final = 100
"""Beside those of the seeded cluster."""
START_S: Final = 60.0
RAN_AS_ROOT: Final = (
    "lighthouses ran as root, for other users can't pass through the directory that is measured in"
)


@dataclass(frozen=True, kw_only=True)
class Lit:
    """A box and the lighthouse of one of its clusters, which runs."""

    served: Served
    lighthouse: Lighthouse

    @property
    def cluster_id(self) -> str:
        """The lighthouse's cluster."""
        return self.lighthouse.cluster_id

    async def update(self, change: message.ClusterUpdate) -> None:
        """Change the cluster. Raises errors.Error as the server says it."""
        await self.served.server.admin.update_cluster(self.cluster_id, change)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A box in a network, and the machines that have joined the cluster of its lighthouse."""

    lit: Lit
    network: Network
    machines: tuple[Machine, ...]
    middlebox: Middlebox | None

    async def overlay_ip(self, machine: Machine) -> str:
        """Return a machine's address in the overlay. Raises errors.Error where the box gives it none."""
        query = message.NodeQuery(name=machine.host.name)
        page = await self.lit.served.server.admin.nodes(query, cluster_id=self.lit.cluster_id)
        for node in page.nodes:
            if node.name == machine.host.name and node.overlay_ip is not None:
                return node.overlay_ip.partition("/")[0]
        raise Error(f"the box knows no overlay address of {machine.host.name}")


@asynccontextmanager
async def lit(bench: Bench) -> AsyncIterator[Lit]:
    """Have a box with a lighthouse, on loopback. Raises errors.Error, with the box's own reason, where it does not run."""
    async with bench.server(nodes=NODES, environ=_user(bench)) as served:
        cluster = await make_cluster(served, 0, port=free_udp_port(), address="127.0.0.1", lighthouse=True)
        lighthouse = Lighthouse(served.server, cluster.id)
        await lighthouse.until_running(within_s=START_S)
        yield Lit(served=served, lighthouse=lighthouse)


@asynccontextmanager
async def joined(bench: Bench, *, count: int, through_middlebox: bool = False) -> AsyncIterator[Joined]:
    """Have a box with a lighthouse and ``count`` machines that have joined it, each running its first version.

    ``through_middlebox``: they know no other way to the API than through a box that cuts what is silent. The agents are
    kept to the generator's processor. Raises Unavailable where this machine can't have that, and why.
    """
    api_port = MIDDLEBOX_PORT if through_middlebox else API_PORT
    async with AsyncExitStack() as stack:
        net = stack.enter_context(network.opened())
        served = await stack.enter_async_context(
            bench.server(
                nodes=NODES,
                tls=True,
                # Only a box that is reached over loopback alone does without; a handful of machines comes near none.
                limits=True,
                inside=net.box.enter(()),
                arguments=("--listen", f"{net.box.address}:{API_PORT}"),
                environ={**_user(bench), "EDGEGC_API_PUBLIC_URLS": f"https://{net.box.address}:{api_port}"},
            )
        )
        cluster = await make_cluster(
            served, 0, port=LIGHTHOUSE_PORT, address=net.box.address, lighthouse=True
        )
        lighthouse = Lighthouse(served.server, cluster.id, open_socket=net.box.socket)
        await lighthouse.until_running(within_s=START_S)
        how = await machines.how_to_join(served.server, cluster.id)
        between = None
        if through_middlebox:
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            between = Middlebox(net.box, port=MIDDLEBOX_PORT, target_port=API_PORT)
            await nursery.start(between.run)
        there = []
        for number in range(count):
            machine = Machine(net.add(f"machine{number}"), served.server, cpu=bench.cpus.generator)
            stack.push_async_callback(_end, machine)
            await machine.join(how)
            await machine.start()
            there.append(machine)
        for machine in there:
            await machine.until_applied(cluster.id)
        yield Joined(
            lit=Lit(served=served, lighthouse=lighthouse),
            network=net,
            machines=tuple(there),
            middlebox=between,
        )


async def make_cluster(
    served: Served, number: int, *, port: int, address: str, lighthouse: bool
) -> message.ClusterView:
    """Make one more cluster on a box. Raises errors.Error as the server says it."""
    return await served.server.admin.create_cluster(
        message.ClusterCreate(
            tenant_id=served.seeded.tenant_id,
            name=f"overlay-{number}",
            network_cidr=NETWORKS.format(number=FIRST_NETWORK + number),
            provide_lighthouse=lighthouse,
            lighthouse_port=port,
            lighthouse_public_addresses=(f"{address}:{port}",),
        )
    )


def free_udp_port() -> int:
    """Return a UDP port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        attempt.bind(("0.0.0.0", 0))
        port: int = attempt.getsockname()[1]
        return port


def _user(bench: Bench) -> dict[str, str]:
    """Return the setting that makes a root's lighthouses run as root, where nobody else comes to their files.

    In root's home, say, where a run on a small board is likely to be started. It makes no difference to what is measured.
    """
    directory = bench.laboratory.directory.resolve()
    if os.geteuid() != 0 or all(
        each.stat().st_mode & stat.S_IXOTH for each in (directory, *directory.parents)
    ):
        return {}
    if RAN_AS_ROOT not in bench.warnings:
        bench.warnings.append(RAN_AS_ROOT)
    return {"EDGEGC_LIGHTHOUSE_USER": "root"}


async def _end(machine: Machine) -> None:
    with trio.CancelScope(shield=True):
        await machine.stop()
