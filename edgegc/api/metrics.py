"""What ``/metrics`` says: gathers what the control plane, the server and the process know of themselves.

Reads only; costs one read of the database and one of the directory of backups per scrape, and nothing between scrapes.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edgegc import build
from edgegc.api.access import BUCKETS_S
from edgegc.api.exposition import Exposition, Kind, labels
from edgegc.control import overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.api.access import AccessLog
    from edgegc.api.limits import RateLimits
    from edgegc.control.control import Control
    from edgegc.model.lighthouse import LighthouseStatus

STATES: Final = ("online", "behind", "failed", "offline")
PAGE_BYTES: Final = resource.getpagesize()
TICKS: Final = os.sysconf("SC_CLK_TCK")


DATABASE: Final[tuple[tuple[str, str, Kind, str], ...]] = (
    ("database_bytes", "size_bytes", "gauge", "Size of the database file."),
    ("wal_bytes", "wal_size_bytes", "gauge", "Size of the write-ahead log."),
    ("write_queue", "write_queue", "gauge", "Writes that wait."),
    ("read_queue", "read_queue", "gauge", "Reads that wait."),
    ("writes", "writes_total", "counter", "Writes answered."),
    ("failed_writes", "failed_writes_total", "counter", "Writes that failed, refusals by a rule included."),
    ("refused_writes", "refused_writes_total", "counter", "Writes refused because the queue was full."),
    ("commits", "commits_total", "counter", "Group commits; writes per commit is how well they are grouped."),
    ("lost_commits", "lost_commits_total", "counter", "Commits that failed, with all writes in them."),
    ("commit_seconds", "commit_seconds_total", "counter", "Time spent in commits, fsync included."),
    ("longest_commit_s", "longest_commit_seconds", "gauge", "The longest commit since the start."),
    ("reads", "reads_total", "counter", "Reads answered."),
    ("failed_reads", "failed_reads_total", "counter", "Reads that failed."),
    ("overdue_reads", "overdue_reads_total", "counter", "Reads given up at their deadline."),
    ("refused_reads", "refused_reads_total", "counter", "Reads refused because the queue was full."),
    ("read_seconds", "read_seconds_total", "counter", "Time spent in reads."),
    ("checkpoints", "checkpoints_total", "counter", "Checkpoints of the write-ahead log."),
)
"""Field of the store's statistics, name after ``edgegc_database_``, kind, and what it is."""


async def exposition(control: Control, log: AccessLog, limits: RateLimits) -> bytes:
    """Return all metrics as text. :raises errors.Unavailable: the database did not answer in time."""
    found = await overview.gather(control)
    out = Exposition()
    described = build.describe()
    out.family(
        "edgegc_build_info",
        "gauge",
        "The build, in its labels; always 1.",
        [(labels(version=described["version"], commit=described["commit"]), 1)],
    )
    _process(out)
    _health(out, control)
    _clusters(out, found)
    _nodes(out, found, now=control.clock.now())
    _certificates(out, found, now=control.clock.now())
    _lighthouses(out, control)
    _http(out, control, log)
    _limits(out, limits)
    _database(out, control)
    out.single(
        "edgegc_backup_age_seconds",
        "gauge",
        "Seconds since the newest backup in the box's own directory was made; missing while there is none.",
        None if found.backup_at is None else max(0, control.clock.now() - found.backup_at),
    )
    return out.text()


def _clusters(out: Exposition, found: overview.Overview) -> None:
    names = {cluster.id: labels(cluster_id=cluster.id, cluster=cluster.name) for cluster in found.clusters}
    out.family(
        "edgegc_cluster_version",
        "gauge",
        "Newest version given to anything in the cluster.",
        [(names[cluster.id], cluster.version) for cluster in found.clusters],
    )
    counts = Counter((node.cluster_id, node.state) for node in found.nodes)
    out.family(
        "edgegc_cluster_nodes",
        "gauge",
        "Nodes of the cluster by state; the states sum to all nodes.",
        [
            (labels(cluster_id=cluster.id, cluster=cluster.name, state=state), counts[cluster.id, state])
            for cluster in found.clusters
            for state in STATES
        ],
    )


def _nodes(out: Exposition, found: overview.Overview, *, now: int) -> None:
    clusters = {cluster.id: cluster.name for cluster in found.clusters}
    names = [
        labels(cluster=clusters.get(node.cluster_id, ""), node_id=node.id, node=node.name)
        for node in found.nodes
    ]

    def family(name: str, about: str, value: Callable[[overview.NodeOverview], float | None]) -> None:
        out.family(
            name,
            "gauge",
            about,
            [(label, value(node)) for label, node in zip(names, found.nodes, strict=True)],
        )

    family(
        "edgegc_node_online", "Whether the node was heard of in time: 1 or 0.", lambda n: n.state != "offline"
    )
    family(
        "edgegc_node_behind",
        "Whether the node runs another version than its effective one: 1 or 0.",
        # A node without a key, or of a cluster without a bundle, has nothing to run: its version is 0.
        lambda n: (n.applied_version or 0) != n.version,
    )
    family(
        "edgegc_node_failed",
        "Whether the node says that a version failed: 1 or 0.",
        lambda n: n.state == "failed",
    )
    family("edgegc_node_version", "Effective version of the node.", lambda n: n.version)
    family("edgegc_node_applied_version", "Version the node runs.", lambda n: n.applied_version)
    family(
        "edgegc_node_certificate_seconds_left",
        "Seconds until the node's certificate expires; negative when it has.",
        lambda n: None if n.not_after is None else n.not_after - now,
    )


def _certificates(out: Exposition, found: overview.Overview, *, now: int) -> None:
    out.family(
        "edgegc_ca_seconds_left",
        "gauge",
        "Seconds until the cluster's CA ends; the phase is active, or next or old in a rotation.",
        [
            (labels(cluster_id=each.cluster_id, cluster=each.cluster, phase=each.phase), each.not_after - now)
            for each in found.authorities
        ],
    )
    out.family(
        "edgegc_lighthouse_certificate_seconds_left",
        "gauge",
        "Seconds until the certificate of the box's own lighthouse expires; negative when it has.",
        [
            (labels(cluster_id=each.cluster_id, cluster=each.cluster), each.not_after - now)
            for each in found.lighthouses
        ],
    )


def _lighthouses(out: Exposition, control: Control) -> None:
    statuses = control.lighthouses.all()

    def family(name: str, kind: str, about: str, value: Callable[[LighthouseStatus], float | None]) -> None:
        out.family(
            name,
            "counter" if kind == "counter" else "gauge",
            about,
            [(labels(cluster_id=s.cluster_id, cluster=s.name), value(s)) for s in statuses],
        )

    gauge = partial(family, kind="gauge")
    gauge(
        "edgegc_lighthouse_up",
        about="Whether the lighthouse runs: 1 or 0.",
        value=lambda s: s.state == "running",
    )
    family("edgegc_lighthouse_restarts_total", "counter", "Starts after the first.", lambda s: s.restarts)
    gauge(
        "edgegc_lighthouse_version", about="Version the lighthouse runs.", value=lambda s: s.version_running
    )
    gauge(
        "edgegc_lighthouse_version_desired",
        about="Version the lighthouse should run.",
        value=lambda s: s.version_desired,
    )
    gauge("edgegc_lighthouse_uptime_seconds", about="Age of the process.", value=lambda s: s.uptime_s)
    gauge("edgegc_lighthouse_rss_bytes", about="Resident memory of the process.", value=lambda s: s.rss_bytes)
    gauge(
        "edgegc_lighthouse_cpu_percent",
        about="CPU use of the process, percent of one core.",
        value=lambda s: s.cpu_percent,
    )
    gauge("edgegc_lighthouse_fds", about="Open file descriptors of the process.", value=lambda s: s.fds)


def _http(out: Exposition, control: Control, log: AccessLog) -> None:
    out.family(
        "edgegc_http_requests_total",
        "counter",
        "Requests answered; status 499 is a client that left before its answer.",
        [
            (labels(method=method, route=route, status=status), tally.count)
            for (method, route, status), tally in log.tallies.items()
        ],
    )
    out.histogram(
        "edgegc_http_request_duration_seconds",
        "Time from a request's head to the end of its answer, held version checks left out.",
        bounds=BUCKETS_S,
        series=[
            ({"method": method, "route": route, "status": status}, tuple(tally.cumulative()), tally.seconds)
            for (method, route, status), tally in log.tallies.items()
        ],
    )
    single = out.single
    single("edgegc_http_connections", "gauge", "Connections open.", log.connections_open)
    single("edgegc_http_connections_total", "counter", "Connections accepted.", log.connections_total)
    single(
        "edgegc_http_connections_refused_total",
        "counter",
        "Connections refused because too many were open.",
        log.connections_refused,
    )
    single(
        "edgegc_http_accept_errors_total",
        "counter",
        "Times that no connection could be accepted for want of file descriptors or memory.",
        log.accept_errors,
    )
    single(
        "edgegc_http_clients_dropped_total",
        "counter",
        "Clients cut off because they did not read.",
        log.clients_dropped,
    )
    single(
        "edgegc_malformed_reports_total",
        "counter",
        "Reports in the headers of version checks that were malformed, and ignored.",
        control.fleet.malformed_reports,
    )
    single("edgegc_held_polls", "gauge", "Version checks held now.", control.polls.held)


def _limits(out: Exposition, limits: RateLimits) -> None:
    out.family(
        "edgegc_http_rate_limited_total",
        "counter",
        "Requests answered 429, by the limit that they passed.",
        [(labels(limit=limit), count) for limit, count in limits.refused.items()],
    )
    out.single(
        "edgegc_http_blocked_addresses",
        "gauge",
        "Addresses that have failed to authenticate too often, and are to stay away.",
        limits.blocked(trio.current_time()),
    )


def _database(out: Exposition, control: Control) -> None:
    stats = control.database.stats()
    for field, name, kind, about in DATABASE:
        out.single(f"edgegc_database_{name}", kind, about, getattr(stats, field))


def _health(out: Exposition, control: Control) -> None:
    out.family(
        "edgegc_health",
        "gauge",
        "Checks of /health/ready: 1 when ok, else 0.",
        [(labels(check=check), said == "ok") for check, said in overview.health(control).checks.items()],
    )


def _process(out: Exposition) -> None:
    """The usual names, so that everybody's dashboards find them."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(") ")[2].split()
    with open("/proc/stat", encoding="ascii") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS
    out.single("process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds.", cpu_s)
    out.single(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        int(fields[21]) * PAGE_BYTES,
    )
    out.single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", int(fields[20]))
    out.single(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        booted + int(fields[19]) / TICKS,
    )
    out.single(
        "process_open_fds", "gauge", "Number of open file descriptors.", len(os.listdir("/proc/self/fd"))
    )
    out.single(
        "process_max_fds",
        "gauge",
        "Maximum number of open file descriptors.",
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
