"""Bodies about the firewall policy of a cluster."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edgegc.model.message.common import Groups, Request
from edgegc.model.policy import Proto

MAX_RULES = 256
"""In one direction. Every node walks what it has of them for each new flow."""

PortText = Annotated[str, Meta(min_length=1, max_length=16)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]


class PolicyRule(Request, frozen=True, kw_only=True):
    """One rule. Exactly one of ``groups`` (the other side has all of them), ``host`` and ``cidr``.

    ``port``: a number, a range ``"80-90"``, ``"any"`` or ``"fragment"``. ``on_groups``: only the nodes with at least one of
    these groups get the rule; without it every node does.
    """

    port: PortNumber | PortText
    proto: Proto
    groups: Groups | None = None
    host: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    cidr: Annotated[str, Meta(min_length=1, max_length=18)] | None = None
    on_groups: Groups | None = None


Rules = Annotated[tuple[PolicyRule, ...], Meta(max_length=MAX_RULES)]


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
