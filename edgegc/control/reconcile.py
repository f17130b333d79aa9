"""At start: what the store was made with against what this edgegc has: the master key, the renderer, the servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control.versions import bump_cluster
from edgegc.errors import Conflict
from edgegc.nebula import bundle
from edgegc.store import clusters, meta

if TYPE_CHECKING:
    from edgegc.control.write import Write
    from edgegc.model.manifest import Server

RENDERING = "rendering"
SERVERS = "servers"
MASTER_KEY = "master_key"


def check_master_key(write: Write) -> None:
    """Refuse to go on with a master key that is not this database's; a new database is told which one is.

    With another key everything would seem to work, and every node, key and token be answered 401.
    """
    present, known = write.vault.fingerprint(), meta.get(write.connection, MASTER_KEY)
    if known is None:
        meta.put(write.connection, MASTER_KEY, present)
    elif known != present:
        raise Conflict(
            "master.key is not the one that belongs to edgegc.db: "
            "put back the one from the same backup as the database; nothing was changed"
        )


def reconcile(write: Write, servers: tuple[Server, ...]) -> int:
    """Bump every managed cluster once if the renderer or the servers' list differ from the stored ones; return how many.

    An agent never takes the same version with another digest, so a new rendering needs a new version.
    """
    present = {RENDERING: bundle.RENDERING, SERVERS: msgspec.json.encode(servers).decode()}
    changed = [key for key, value in present.items() if meta.get(write.connection, key) != value]
    if not changed:
        return 0
    bumped = clusters.managed_ids(write.connection)
    for cluster_id in bumped:
        bump_cluster(write, cluster_id)
    for key in changed:
        meta.put(write.connection, key, present[key])
    write.audit("start.reconcile", ", ".join(changed))
    return len(bumped)
