"""The firewall policy of a cluster: rules by group, host or cidr, limited to target groups."""

from __future__ import annotations

from typing import Literal

import msgspec

Proto = Literal["any", "tcp", "udp", "icmp"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One firewall rule. Exactly one of ``groups``, ``host`` and ``cidr`` says who the other side is.

    ``port`` is ``"any"``, a number, a range ``"80-90"`` or ``"fragment"``, as in Nebula. ``groups`` is a
    conjunction, as in Nebula: the other side has all of them. ``on_groups`` limits the nodes that get the
    rule to those with at least one of these groups; empty means every node.
    """

    port: str
    proto: Proto
    groups: tuple[str, ...] = ()
    host: str | None = None
    cidr: str | None = None
    on_groups: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of a cluster, in the order the operator gave them."""

    inbound: tuple[Rule, ...]
    outbound: tuple[Rule, ...]

    @property
    def names_hosts(self) -> bool:
        """Whether any rule names a host, so that certificates' names matter (``any`` is no name)."""
        return any(rule.host not in (None, "any") for rule in (*self.inbound, *self.outbound))


ANY_TO_ANY = Policy(
    inbound=(Rule(port="any", proto="any", host="any"),),
    outbound=(Rule(port="any", proto="any", host="any"),),
)
"""What a new cluster starts with."""
