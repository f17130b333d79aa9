"""Housekeeping: what has to be done now and then without anybody asking.

Certificates are renewed, replaced ones blocklisted, the log of the database is brought into its file, old rows are
trimmed, and the clock is watched. It is optional for the daemon: a failure is shown on the health board and retried, and
keeps no other work from being done.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from edgegc.control import expiry, node_changes, signing, wallclock
from edgegc.control.callers import system_caller
from edgegc.control.health import OK
from edgegc.control.versions import bump_cluster, bump_lighthouse
from edgegc.errors import Error
from edgegc.store import (
    audit,
    authorities,
    bundles,
    certificates,
    clusters,
    enrolment_keys,
    kept_answers,
    nodes,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.node import Certificate

logger = logging.getLogger(__name__)

EXPIRY_S = 60
"""What is about to expire is said in time for a person; shorter lives than hours are for laboratories."""

TICK_S = 10
"""How late a replaced certificate may reach the blocklist after its node has said that it runs the new one."""

RENEWAL_S = 20
"""Renewals are done when they are due. This is how late at most one is seen that was not known at the last look: the
shortest life is a minute, and due after 38 seconds."""
LIGHTHOUSE_SETTLE_S = 12
"""nebula before 1.7 restarts for a renewed certificate. A lighthouse that did knows every node again within their interval
of 10 s; until then a node that restarts may look for its peers in vain."""
RENEWAL_BATCH = 50
"""Certificates signed per job: 5 ms for a small board, so that no other writer waits long."""

CHECKPOINT_S = 300
CHECKPOINT_BYTES = 1024 * 1024
"""A log shorter than this waits: each checkpoint writes its pages a second time."""
CHECKPOINT_AT_LATEST_S = 3600

OPTIMIZE_S = 6 * 3600

PRUNE_S = 6 * 3600
"""Copies that a migration made, and what a killed process left half-written: nothing that is in a hurry."""


FAILURES_S = 60
"""How long alike failures are counted before they become a row of the audit log."""

TRIM_S = 3600
TRIM_BATCH = 500
AUDIT_KEPT_S = 400 * 86_400
AUDIT_KEPT_ROWS = 100_000
"""About 20 MB."""
REFUSALS_KEPT_ROWS = 20_000
"""Of those: whoever tries tokens all day must not push out what was really done."""
KEYS_KEPT_S = 30 * 86_400
"""An enrolment key that has expired is shown for so long, for whoever wonders why a machine could not enrol."""


async def run(control: Control, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Do what is due, for ever. A cancelled step is finished by the next start."""
    said = expiry.Said()
    chores: list[tuple[str, float, Callable[[Control], Awaitable[float | None]]]] = [
        ("blocklist", TICK_S, blocklist_replaced),
        ("clock", TICK_S, watch_clock),
        ("certificates", RENEWAL_S, renew_certificates),
        ("expiry", EXPIRY_S, lambda control: expiry.warn(control, said)),
        ("checkpoint", CHECKPOINT_S, checkpoint),
        ("failures", FAILURES_S, write_failures),
        ("trimming", TRIM_S, trim),
        ("optimize", OPTIMIZE_S, optimize),
        ("backups", PRUNE_S, prune_backups),
    ]
    due = [trio.current_time()] * len(chores)
    task_status.started()
    while True:
        for index, (name, every_s, chore) in enumerate(chores):
            if trio.current_time() < due[index]:
                continue
            wait_s: float | None = None
            try:
                wait_s = await chore(control)
            except Error as error:
                control.health.set(f"housekeeping.{name}", error.message)
                logger.warning(
                    "housekeeping could not do its work: %s", name, extra={"reason": error.message}
                )
            except Exception as error:
                # A bug in one must not keep the others from being done: a certificate that nobody renews cuts a node off.
                control.health.set(f"housekeeping.{name}", f"internal error: {error!r}; see the log")
                logger.exception("housekeeping crashed: %s", name)
            else:
                control.health.drop(f"housekeeping.{name}")
            due[index] = trio.current_time() + (every_s if wait_s is None else min(wait_s, every_s))
        await trio.sleep_until(min(due))


async def renew_certificates(control: Control) -> float | None:
    """Sign again what has used up ⅔ of its life, nodes' certificates and those of the box's own lighthouses.

    Returns in how many seconds the next one is due, None where none is.
    """
    now = control.clock.now()
    while True:
        due = await control.database.read(
            lambda connection: certificates.renewal_due(connection, now, limit=RENEWAL_BATCH)
        )
        if not due:
            break
        # Nothing is renewed by a clock that can't be trusted; every certificate stays due.
        await control.write(system_caller(), lambda write: _renew(write, now))
    at = await control.database.read(lambda connection: certificates.next_renewal(connection, now))
    return None if at is None else float(max(at - control.clock.now(), 1))


async def blocklist_replaced(control: Control) -> None:
    """Blocklist certificates that were replaced by lesser ones, once their node runs those, or after the grace."""
    now = control.clock.now()
    # Nodes' reports decide, and they are in memory until they are flushed.
    await control.fleet.flush(last_seen=False)
    if await control.database.read(lambda connection: certificates.blocklist_due(connection, now)):
        await control.write(system_caller(), _blocklist)


async def watch_clock(control: Control) -> None:
    """Say on the health board whether the clock can be trusted."""
    now = control.clock.now()
    sentence = await control.database.read(lambda connection: wallclock.fault(connection, now))
    before = control.health.said("clock")
    control.health.set("clock", sentence or OK)
    if sentence is not None and before in (None, OK):
        logger.error("%s", sentence)
    if sentence is None and before not in (None, OK):
        logger.info("the clock can be trusted again: certificates are signed")


async def checkpoint(control: Control) -> None:
    """Bring the database's log into its file when that is worth its writes."""
    last = control.last_checkpoint_at
    wal_bytes = control.database.stats().wal_bytes
    overdue = trio.current_time() - last >= CHECKPOINT_AT_LATEST_S
    if wal_bytes >= CHECKPOINT_BYTES or (overdue and wal_bytes > 0):
        await control.database.checkpoint()
        control.last_checkpoint_at = trio.current_time()


async def optimize(control: Control) -> None:
    """Refresh the query planner's statistics."""
    await control.database.optimize()


async def prune_backups(control: Control) -> None:
    """Let go of backups beyond the number to keep."""
    await control.backups.prune()


async def write_failures(control: Control) -> None:
    """Write what was refused in the last minute to the audit log."""
    await control.failures.flush()


async def trim(control: Control) -> None:
    """Delete what nobody can need any more: old audit rows, certificates and enrolment keys that have expired, kept
    answers, and what an upload left that could not clean up after itself.
    """
    now = control.clock.now()

    def job(connection: sqlite3.Connection, *, no_upload: bool) -> int:
        if no_upload:
            bundles.drop_incomplete(connection)
        return (
            audit.trim(connection, before=now - AUDIT_KEPT_S, keep=AUDIT_KEPT_ROWS, limit=TRIM_BATCH)
            + audit.trim_refusals(connection, keep=REFUSALS_KEPT_ROWS, limit=TRIM_BATCH)
            + certificates.forget_expired(connection, now=now, limit=TRIM_BATCH)
            + enrolment_keys.forget_expired(connection, before=now - KEYS_KEPT_S, limit=TRIM_BATCH)
            + kept_answers.trim(connection, now=now, limit=TRIM_BATCH)
        )

    # Writes keep their order: an upload that begins after this look makes its row after the job.
    while await control.database.write(partial(job, no_upload=control.uploads.idle)) >= TRIM_BATCH:
        pass


def _renew(write: Write, now: int) -> None:
    """Renew a batch. The box's lighthouse comes before the nodes of its cluster, which then wait for a moment."""
    settled_at = now + LIGHTHOUSE_SETTLE_S
    due = certificates.renewal_due(write.connection, now, limit=RENEWAL_BATCH)
    for cluster_id in {certificate.cluster_id for certificate in due}:
        box = certificates.current_of_box(write.connection, cluster_id)
        if box is not None and box.renew_at is not None and box.renew_at < settled_at:
            _renew_one(write, box)
            certificates.postpone_renewals(write.connection, cluster_id, until=settled_at)
    for certificate in certificates.renewal_due(write.connection, now, limit=RENEWAL_BATCH):
        _renew_one(write, certificate)


def _renew_one(write: Write, certificate: Certificate) -> None:
    cluster = clusters.get(write.connection, certificate.cluster_id)
    active = authorities.active_authority(write.connection, certificate.cluster_id)
    if cluster is None or active is None:
        raise AssertionError(f"certificate {certificate.fingerprint} belongs to no managed cluster")
    if not signing.worth_renewing(certificate, cluster, active[0], now=write.now):
        certificates.no_renewal(write.connection, certificate.fingerprint)
        return
    if certificate.node_id is None:
        version = bump_lighthouse(write, cluster.id)
        certificates.supersede(write.connection, certificate, superseded_in=version, blocklist_at=None)
        signing.certify_box(write, cluster)
    else:
        node = nodes.get(write.connection, certificate.node_id)
        if node is None:
            raise AssertionError(f"certificate {certificate.fingerprint} belongs to no node")
        node_changes.renew(write, cluster, node)
    write.audit("certificate.renew", certificate.node_id or cluster.id)


def _blocklist(write: Write) -> None:
    by_cluster: dict[str, list[Certificate]] = {}
    for certificate in certificates.blocklist_due(write.connection, write.now):
        by_cluster.setdefault(certificate.cluster_id, []).append(certificate)
    for cluster_id, due in by_cluster.items():
        added = [certificates.revoke(write.connection, each, now=write.now) for each in due]
        # What has expired meanwhile needs no entry, and so nobody a new version.
        if any(added):
            bump_cluster(write, cluster_id)
        write.audit("certificate.blocklist", cluster_id)
