"""Bodies about enrolment keys and API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from edgegc.model.message.common import Groups, Label, Request, Scope


class EnrolmentKeyCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/enrollment-keys``; ``uses`` null means unlimited."""

    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = 1
    expires_in_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 86_400
    groups: Groups = ()
    label: Label | None = None


class EnrolmentKeyView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An enrolment key; ``key`` only in the answer that made it."""

    id: str
    label: str | None
    uses: int | None
    used: int
    groups: tuple[str, ...]
    expires_at: datetime
    created_at: datetime
    key: str | UnsetType = UNSET


class EnrolmentKeyList(Struct, frozen=True, kw_only=True):
    """The enrolment keys of a cluster that are not revoked."""

    enrollment_keys: tuple[EnrolmentKeyView, ...]
    next_cursor: str | None = None


class ApiTokenCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/api-tokens``; without ``expires_in_s`` the token does not expire."""

    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=16)]
    expires_in_s: Annotated[int, Meta(ge=1, le=315_360_000)] | None = None
    label: Label | None = None


class ApiTokenView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API token; ``token`` only in the answer that made it."""

    id: str
    label: str | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    token: str | UnsetType = UNSET


class ApiTokenList(Struct, frozen=True, kw_only=True):
    """All API tokens."""

    api_tokens: tuple[ApiTokenView, ...]
    next_cursor: str | None = None
