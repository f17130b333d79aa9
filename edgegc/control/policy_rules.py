"""Firewall rules as callers write them: what may stand in one. Pure; every error names rule and field.

Stricter than Nebula, which takes a good deal that does not mean what it says: ``any`` among other groups opens a rule to
everybody, a port with ICMP matches nothing, port 0 is any port.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from edgegc.control.addresses import network
from edgegc.errors import Invalid
from edgegc.model import message
from edgegc.model.policy import Policy, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY = "any"
FRAGMENT = "fragment"
LAST_PORT = 65_535
MAX_RANGE_PORTS = 4096
"""Nebula keeps an entry per port of a range: a rule for 60,000 ports costs each node tens of megabytes."""

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def read(request: message.Policy) -> Policy:
    """Return the policy that a request asks for. Invalid, as in ``inbound[3].port: …``."""
    return Policy(inbound=_rules(request.inbound, "inbound"), outbound=_rules(request.outbound, "outbound"))


def show(policy: Policy) -> message.Policy:
    """Return a policy as the API shows it; :func:`read` is the inverse."""
    return message.Policy(
        inbound=tuple(_shown(rule) for rule in policy.inbound),
        outbound=tuple(_shown(rule) for rule in policy.outbound),
    )


def _rules(rules: Sequence[message.PolicyRule], field: str) -> tuple[Rule, ...]:
    return tuple(_rule(rule, f"{field}[{position}]") for position, rule in enumerate(rules))


def _rule(rule: message.PolicyRule, at: str) -> Rule:
    port = _port(rule.port, f"{at}.port")
    if rule.proto == "icmp" and port != ANY:
        raise Invalid(f'{at}.port: must be "any" with proto "icmp", which has no ports')
    others = [name for name in ("groups", "host", "cidr") if getattr(rule, name) is not None]
    if len(others) != 1:
        given = f"not {' and '.join(others)}" if others else "and none is given"
        raise Invalid(f"{at}: exactly one of groups, host and cidr says who the other side is, {given}")
    return Rule(
        port=port,
        proto=rule.proto,
        groups=_groups(rule.groups, f"{at}.groups"),
        host=_host(rule.host, f"{at}.host"),
        cidr=None if rule.cidr is None else str(network(rule.cidr, field=f"{at}.cidr")),
        on_groups=_groups(rule.on_groups, f"{at}.on_groups"),
    )


def _port(port: int | str, field: str) -> str:
    if isinstance(port, int):
        return str(port)
    if port in (ANY, FRAGMENT):
        return port
    first, dash, last = port.partition("-")
    if not _is_port(first) or (dash and not _is_port(last)):
        raise Invalid(
            f'{field}: {port!r} is no port: give a number from 1 to {LAST_PORT}, a range such as "80-90", "any" or'
            ' "fragment"'
        )
    if dash and int(first) > int(last):
        raise Invalid(f"{field}: the range {port!r} ends before it begins")
    if dash and int(last) - int(first) >= MAX_RANGE_PORTS:
        raise Invalid(f'{field}: the range {port!r} has more than {MAX_RANGE_PORTS} ports; use "any"')
    return port


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= LAST_PORT


def _groups(groups: Sequence[str] | None, field: str) -> tuple[str, ...]:
    if groups is None:
        return ()
    if not groups:
        raise Invalid(f"{field}: must name at least one group")
    for position, group in enumerate(groups):
        if group == ANY:
            raise Invalid(
                f'{field}[{position}]: "any" means everybody to Nebula, whatever stands beside it; for everybody use'
                ' "host": "any"'
            )
        if group in groups[:position]:
            raise Invalid(f"{field}[{position}]: {group!r} is there twice")
    return tuple(groups)


def _host(host: str | None, field: str) -> str | None:
    if host is not None and _NAME.fullmatch(host) is None:
        raise Invalid(f'{field}: {host!r} can be no node\'s name; "any" means everybody')
    return host


def _shown(rule: Rule) -> message.PolicyRule:
    return message.PolicyRule(
        **{name: value for name, value in msgspec.structs.asdict(rule).items() if value not in (None, ())}
    )
