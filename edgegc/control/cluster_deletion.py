"""What goes with a cluster: all its rows, and what API tokens may there. Runs inside a write; knows not who may.

Its lighthouse, its caches and its held polls follow the event; its nodes' agents are answered 401 from the commit on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.credential import cluster_of_scope
from edgegc.model.event import TokenChanged, TokenDeleted
from edgegc.store import api_tokens, clusters

if TYPE_CHECKING:
    from edgegc.control.write import Write


def delete(write: Write, cluster_id: str) -> None:
    """Delete a cluster with its nodes, keys, certificates and enrolment keys.

    API tokens lose their scopes in it; one that had no other is revoked: it would never be good for anything again.
    """
    for token in api_tokens.for_cluster(write.connection, cluster_id):
        left = tuple(scope for scope in token.scopes if cluster_of_scope(scope) != cluster_id)
        if left:
            api_tokens.set_scopes(write.connection, token.token_id, left)
            write.emit(
                TokenChanged(
                    token_id=token.token_id, digest=token.digest, scopes=left, expires_at=token.expires_at
                )
            )
            write.audit("api_token.update", token.token_id)
        else:
            api_tokens.delete(write.connection, token.token_id)
            write.emit(TokenDeleted(token_id=token.token_id))
            write.audit("api_token.revoke", token.token_id)
    clusters.delete(write.connection, cluster_id)
    write.deleted_cluster(cluster_id)
    write.audit("cluster.delete", cluster_id)
