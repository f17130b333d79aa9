"""API tokens for people and programs. Operator only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import ApiTokenCreate, ApiTokenList, ApiTokenView


async def create(control: Control, caller: Caller, request: ApiTokenCreate) -> ApiTokenView:
    """Make a token; the view carries it once."""
    raise NotImplementedError


async def list_(control: Control, caller: Caller) -> ApiTokenList:
    """Return all tokens, newest first."""
    raise NotImplementedError


async def revoke(control: Control, caller: Caller, token_id: str) -> None:
    """Revoke a token. NotFound."""
    raise NotImplementedError
