"""API tokens for people and programs. Operator only. Knows nothing of what their scopes allow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import UNSET

from edgegc.control.callers import operator_only
from edgegc.control.credentials import TOKEN, mint
from edgegc.control.repetition import once
from edgegc.control.write import new_id
from edgegc.errors import Invalid, NotFound
from edgegc.model.credential import ApiToken
from edgegc.model.event import TokenChanged, TokenDeleted
from edgegc.model.message import ApiTokenList, ApiTokenView, rfc3339
from edgegc.store import api_tokens, clusters

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import ApiTokenCreate

_SCOPE = re.compile(r"operator|metrics|cluster:(?P<cluster_id>[0-9a-f-]{36}):(admin|read)")


async def create(control: Control, caller: Caller, request: ApiTokenCreate) -> ApiTokenView:
    """Make a token; the view carries it once. Invalid names the scope that is none."""
    operator_only(caller)
    scopes = tuple(dict.fromkeys(request.scopes))

    def job(write: Write) -> ApiTokenView:
        for scope in scopes:
            _check_scope(write.connection, scope)
        token = ApiToken(
            id=token_id,
            label=request.label,
            scopes=scopes,
            expires_at=None if request.expires_in_s is None else write.now + request.expires_in_s,
            last_used_at=None,
            created_at=write.now,
        )
        api_tokens.insert(write.connection, token, digest=digest)
        write.emit(TokenChanged(token_id=token.id, digest=digest, scopes=scopes, expires_at=token.expires_at))
        write.audit("api_token.create", token.id)
        return _view(token, last_used_at=None, text=text)

    token_id = new_id()
    text = mint(TOKEN, token_id)
    digest = control.vault.token_digest(text)
    return await control.write(caller, lambda write: once(write, ApiTokenView, job))


async def list_(control: Control, caller: Caller) -> ApiTokenList:
    """Return all tokens, newest first."""
    operator_only(caller)
    found = await control.database.read(api_tokens.all_)
    return ApiTokenList(
        api_tokens=tuple(
            _view(token, last_used_at=control.token_uses.last_used(token.id) or token.last_used_at)
            for token in found
        )
    )


async def revoke(control: Control, caller: Caller, token_id: str) -> None:
    """Revoke a token. NotFound."""
    operator_only(caller)

    def job(write: Write) -> None:
        if not api_tokens.delete(write.connection, token_id):
            raise NotFound("no such API token")
        write.emit(TokenDeleted(token_id=token_id))
        write.audit("api_token.revoke", token_id)

    await control.write(caller, job)


def _check_scope(connection: sqlite3.Connection, scope: str) -> None:
    match = _SCOPE.fullmatch(scope)
    if match is None:
        raise Invalid(
            f"scopes: {scope!r} is none of operator, metrics, cluster:<id>:admin and cluster:<id>:read"
        )
    cluster_id = match["cluster_id"]
    if cluster_id is not None and clusters.get(connection, cluster_id) is None:
        raise NotFound(f"scopes: there is no cluster {cluster_id}")


def _view(token: ApiToken, *, last_used_at: int | None, text: str | None = None) -> ApiTokenView:
    return ApiTokenView(
        id=token.id,
        label=token.label,
        scopes=token.scopes,
        expires_at=None if token.expires_at is None else rfc3339(token.expires_at),
        last_used_at=None if last_used_at is None else rfc3339(last_used_at),
        created_at=rfc3339(token.created_at),
        token=UNSET if text is None else text,
    )
