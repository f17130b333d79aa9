"""What bodies share: field types with their limits, the base of requests, problems. Knows no noun."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

# Patterns end in \Z, not $, which lets a line feed pass. What a pattern can't say, and `control` checks with a better
# sentence, has a format: it is only shown in the API's document.
Name = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
]
"""A name of a tenant, cluster or node: letters, digits, ``.``, ``_``, ``-``; 1 to 63 characters."""
Group = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?\Z")
]
DISTINCT = {"uniqueItems": True}
"""For lists in which `control` allows nothing twice."""
Groups = Annotated[tuple[Group, ...], Meta(max_length=64, extra_json_schema=DISTINCT)]
Mtu = Annotated[int, Meta(ge=1280, le=9000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Label = Annotated[str, Meta(max_length=200)]
Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""A count or size: more than any real one, and less than what JSON readers and SQLite get wrong."""
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Network = Annotated[
    str,
    Meta(
        description="IPv4 network in CIDR form, without host bits",
        extra_json_schema={"format": "ipv4-network"},
        examples=["10.20.0.0/16"],
    ),
]
OverlayAddress = Annotated[
    str,
    Meta(
        description="IPv4 address inside the cluster's network, bare or with its prefix length",
        extra_json_schema={"format": "overlay-address"},
        examples=["10.42.0.7"],
    ),
]
PublicAddress = Annotated[
    str,
    Meta(
        description="`ip:port` outside of the overlay",
        extra_json_schema={"format": "ip-port"},
        examples=["203.0.113.9:4242"],
    ),
]
PublicKey = Annotated[
    str,
    Meta(
        max_length=1024,
        description="PEM, NEBULA X25519 PUBLIC KEY",
        extra_json_schema={"format": "nebula-public-key"},
    ),
]
Scope = Annotated[
    str,
    Meta(
        description="`operator`, `metrics`, `cluster:<id>:read` or `cluster:<id>:admin`",
        extra_json_schema={"pattern": "^(operator|metrics|cluster:[0-9a-f-]{36}:(read|admin))$"},
        examples=["operator"],
    ),
]
DEFAULT_MTU = 1300
RFC1918 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


def rfc3339(at: int) -> datetime:
    """Return Unix seconds as the aware UTC time that bodies show (``2026-11-23T10:30:00Z``)."""
    return datetime.fromtimestamp(at, UTC)


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of request bodies: unknown fields are an error. UNSET in a PATCH means: leave as it is."""


class Problem(Struct, frozen=True, kw_only=True):
    """``application/problem+json`` (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    unless: Annotated[
        str | UnsetType,
        Meta(description="the field or parameter of the request that, when true, has it done all the same"),
    ] = UNSET
