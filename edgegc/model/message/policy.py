"""Bodies about the firewall policy of a cluster."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edgegc.model.message.common import DISTINCT, Group, Network, Request
from edgegc.model.policy import Proto

MAX_RULES = 256
"""In one direction. Every node walks what it has of them for each new flow."""

PortText = Annotated[
    str, Meta(min_length=1, max_length=16, extra_json_schema={"format": "port-range"}, examples=["80-90"])
]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]

OtherGroup = Annotated[Group, Meta(extra_json_schema={"not": {"const": "any"}})]
OtherGroups = Annotated[
    tuple[OtherGroup, ...], Meta(max_length=64, extra_json_schema={"minItems": 1, **DISTINCT})
]
Host = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        extra_json_schema={"pattern": r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"},
    ),
]
NOBODY = {"type": "null"}
OTHERS = {"groups": {"type": "array"}, "host": {"type": "string"}, "cidr": {"type": "string"}}
ONE_OTHER = {
    "oneOf": [
        {"required": [name], "properties": {**dict.fromkeys(OTHERS, NOBODY), name: given}}
        for name, given in OTHERS.items()
    ],
    "if": {"properties": {"proto": {"const": "icmp"}}},
    "then": {"properties": {"port": {"const": "any"}}},
}
"""What the fields of a rule don't say one by one; `control` checks it, with a sentence."""


class PolicyRule(Request, frozen=True, kw_only=True):
    """One rule. Exactly one of ``groups`` (the other side has all of them), ``host`` and ``cidr``.

    ``port``: a number, a range ``"80-90"``, ``"any"`` or ``"fragment"``. ``on_groups``: only the nodes with at least one of
    these groups get the rule; without it every node does.
    """

    port: PortNumber | PortText
    proto: Proto
    groups: OtherGroups | None = None
    host: Host | None = None
    cidr: Network | None = None
    on_groups: OtherGroups | None = None


Rules = Annotated[
    tuple[Annotated[PolicyRule, Meta(extra_json_schema=ONE_OTHER)], ...], Meta(max_length=MAX_RULES)
]


class Policy(Request, frozen=True, kw_only=True):
    """``GET`` and ``PUT /api/v1/policy``: what is not allowed by a rule is dropped."""

    inbound: Rules
    outbound: Rules


class PolicyNode(Struct, frozen=True, kw_only=True):
    """A node that a policy changes."""

    id: str
    name: str


class PolicyChange(Policy, frozen=True, kw_only=True):
    """The answer to ``PUT /api/v1/policy``: the policy as it is kept, and the nodes whose firewall changes.

    ``signed_again`` are those that get a new certificate, because a rule names hosts for the first time and their
    certificate still carries an older name.
    """

    nodes: tuple[PolicyNode, ...]
    signed_again: tuple[PolicyNode, ...]
