"""Which difference between two configurations nebula takes on SIGHUP, and which only at a start. Pure data and rules.

The table was read in nebula's source at the tags named here, and measured on 1.6.1, 1.9.3 and 1.11. nebula ignores
most of what it can't reload without a word, so whatever is not in the table needs a restart: a restart by SIGTERM
loses no packet, a change that never arrives is a fault nobody sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Version = tuple[int, int, int]
Path = tuple[str, ...]

OLDEST: Version = (1, 6, 1)
BEYOND: Version = (1, 12, 0)
"""The table is known to hold from ``OLDEST`` to below ``BEYOND``; any other version is restarted."""

ALWAYS = OLDEST
NEVER: Version = (10**6, 0, 0)

TABLE: dict[Path, Version] = {
    # Per key, or section of keys, the first version that takes a change on SIGHUP. The longest entry counts.
    ("pki", "ca"): ALWAYS,
    ("pki", "blocklist"): ALWAYS,
    # A renewed certificate: before 1.7 nebula shows the new one only in new tunnels, and peers cut the old tunnels when
    # the old certificate expires. Another address or other subnets: see _certificate below.
    ("pki", "cert"): (1, 7, 0),
    ("pki", "key"): (1, 7, 0),
    ("pki", "disconnect_invalid"): (1, 8, 0),
    # Hosts that went: before 1.11 their addresses stay. For others see _static_host_map below.
    ("static_host_map",): (1, 11, 0),
    ("lighthouse", "hosts"): ALWAYS,
    # Up to 1.7 this runs the update worker inside of the handler, which never handles a SIGHUP again.
    ("lighthouse", "interval"): (1, 8, 0),
    ("lighthouse", "advertise_addrs"): ALWAYS,
    ("lighthouse", "remote_allow_list"): ALWAYS,
    ("lighthouse", "remote_allow_ranges"): ALWAYS,
    ("lighthouse", "local_allow_list"): ALWAYS,
    ("lighthouse", "am_lighthouse"): NEVER,
    ("listen", "host"): NEVER,
    ("listen", "port"): NEVER,
    ("listen", "batch"): NEVER,
    ("listen", "read_buffer"): ALWAYS,
    ("listen", "write_buffer"): ALWAYS,
    ("listen", "send_recv_error"): ALWAYS,
    ("routines",): NEVER,
    ("punchy", "punch"): (1, 11, 0),
    ("punchy", "respond"): ALWAYS,
    ("punchy", "delay"): ALWAYS,
    ("relay", "relays"): ALWAYS,
    # To become a relay. To stop being one: see _taken_since below.
    ("relay", "am_relay"): ALWAYS,
    ("relay", "use_relays"): (1, 11, 0),
    ("firewall",): ALWAYS,
    ("firewall", "conntrack", "routine_cache_timeout"): NEVER,
    ("tun", "mtu"): (1, 9, 0),
    ("tun", "routes"): (1, 9, 0),
    ("tun", "unsafe_routes"): (1, 9, 0),
    ("tun", "dev"): NEVER,
    ("tun", "disabled"): NEVER,
    ("tun", "tx_queue"): NEVER,
    ("cipher",): NEVER,
    ("handshakes",): NEVER,
    ("preferred_ranges",): (1, 9, 0),
    ("logging",): ALWAYS,
    ("stats",): (1, 11, 0),
    ("sshd",): ALWAYS,
}

_CERTIFICATE: Path = ("pki", "cert")
_AUTHORITIES: Path = ("pki", "ca")

CAUGHT_HUP = "Caught HUP, reloading config"

_LINES: dict[Path, tuple[Version, str]] = {
    # What nebula says once it has taken a change, and since which version. Not every section says something.
    ("firewall",): (ALWAYS, "New firewall has been installed"),
    ("static_host_map",): (ALWAYS, "static_host_map has changed"),
    ("lighthouse", "hosts"): (ALWAYS, "lighthouse.hosts has changed"),
    ("lighthouse", "interval"): (ALWAYS, "lighthouse.interval changed"),
    ("lighthouse", "advertise_addrs"): (ALWAYS, "lighthouse.advertise_addrs has changed"),
    ("listen", "send_recv_error"): (ALWAYS, "Loaded send_recv_error config"),
    ("punchy", "respond"): (ALWAYS, "punchy.respond changed"),
    ("punchy", "delay"): (ALWAYS, "punchy.delay changed"),
    ("pki", "disconnect_invalid"): ((1, 8, 0), "pki.disconnect_invalid changed"),
}
_AUTHORITIES_LINE = "Trusted CA certificates refreshed"
_AUTHORITIES_LINE_UNTIL: Version = (1, 8, 0)
"""From then on it is said at debug level only."""
_CERTIFICATE_LINE = "Client cert refreshed from disk"
_CERTIFICATE_LINE_SINCE_V2 = "Client certificate(s) refreshed from disk"
_V2_CERTIFICATES: Version = (1, 10, 0)

_FIREWALL_FOLLOWS_CERTIFICATE: Version = (1, 11, 0)
"""Before, a firewall is rebuilt only when its rules change, and goes on refusing new subnets of the own certificate."""
_USE_RELAYS_RECOMPUTED: Version = (1, 11, 0)
"""Before, whoever starts as a relay does not use relays until the next start, whatever it is then."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. ``reasons`` are for people: for a restart only those that force it.

    ``log_lines`` are parts of lines, each of which nebula's log shows after a SIGHUP that was taken.
    """

    action: Literal["none", "hup", "restart"]
    reasons: tuple[str, ...] = ()
    log_lines: tuple[str, ...] = ()


def plan(
    old: Mapping[str, object],
    new: Mapping[str, object],
    *,
    nebula_version: Version,
    certificate_changed: bool = False,
    address_changed: bool | None = None,
    subnets_changed: bool | None = None,
    authorities_added: bool = False,
    authorities_removed: bool = False,
) -> Plan:
    """Compare what a process has loaded with what it shall load. Both configurations are complete, with paths.

    The other arguments say what the mappings don't show: whether the files at ``pki.cert`` and ``pki.ca`` hold something
    else than before, and whether a changed certificate has another address or other subnets; None when that is not
    known, which counts as yes. ``nebula_version`` is that of the running process; ``(0, 0, 0)`` means unknown.
    """
    changes = [*_differences(old, new, ())]
    if certificate_changed and _CERTIFICATE not in changes:
        changes.append(_CERTIFICATE)
    if (authorities_added or authorities_removed) and _AUTHORITIES not in changes:
        changes.append(_AUTHORITIES)
    if not changes:
        return Plan(action="none")
    name = ".".join(map(str, nebula_version))
    if not OLDEST <= nebula_version < BEYOND:
        return Plan(action="restart", reasons=(f"it is not known what nebula {name} reloads",))

    certificate_since = _certificate(address_changed, subnets_changed) if certificate_changed else ALWAYS
    forcing = [
        path
        for path in changes
        if nebula_version
        < max(_taken_since(path, old, new), certificate_since if path == _CERTIFICATE else ALWAYS)
    ]
    if forcing:
        return Plan(
            action="restart",
            reasons=tuple(
                f"{_dotted(path)} changed, which nebula {name} takes only at a start" for path in forcing
            ),
        )
    return Plan(
        action="hup",
        reasons=tuple(f"{_dotted(path)} changed" for path in changes),
        log_lines=_expected_lines(changes, nebula_version),
    )


def kept_device(old: Mapping[str, object], new: Mapping[str, object]) -> str | None:
    """Return the tunnel device that may stay while one process takes the place of another; None if it must go first.

    One with routes of its own must: nebula up to 1.8 does not start where they are already there.
    """
    tun = _section(new, "tun")
    if _section(old, "tun") != tun or any(tun.get(key) for key in ("disabled", "routes", "unsafe_routes")):
        return None
    device = tun.get("dev")
    return device if isinstance(device, str) else None


def _differences(old: object, new: object, path: Path) -> Iterator[Path]:
    """Yield the path of every value that is not the same; inside of mappings only what differs there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), (*path, str(key)))
    # True equals 1 in Python, but not in a configuration.
    elif old != new or type(old) is not type(new):
        yield path


def _taken_since(path: Path, old: Mapping[str, object], new: Mapping[str, object]) -> Version:
    """Return the first version that takes this change on SIGHUP."""
    if path[0] == "static_host_map":
        return _static_host_map(path, old, new)
    if path == ("relay", "am_relay") and _section(old, "relay").get("am_relay"):
        return _USE_RELAYS_RECOMPUTED
    for length in range(len(path), 0, -1):
        if path[:length] in TABLE:
            return TABLE[path[:length]]
    return NEVER


def _static_host_map(path: Path, old: Mapping[str, object], new: Mapping[str, object]) -> Version:
    """A host that was not there before is taken by every version, one that went by newer ones.

    One that moved is taken by 1.11, too; but the open tunnel to its old address lives on and hides whether the new one
    is any good, until the next restart, when it is too late. A restart now makes the proof of the new version one.
    """
    before, after = _section(old, "static_host_map"), _section(new, "static_host_map")
    if before.items() <= after.items() if len(path) == 1 else path[1] not in before:
        return ALWAYS
    if len(path) == 1 or path[1] not in after:
        return TABLE["static_host_map",]
    return NEVER


def _certificate(address_changed: bool | None, subnets_changed: bool | None) -> Version:
    """Every version refuses another address; subnets are taken since the firewall follows the certificate."""
    if address_changed is not False:
        return NEVER
    return _FIREWALL_FOLLOWS_CERTIFICATE if subnets_changed is not False else ALWAYS


def _expected_lines(changes: list[Path], version: Version) -> tuple[str, ...]:
    # The certificate is read again and named at every SIGHUP, changed or not; so are the authorities in old versions.
    lines = [CAUGHT_HUP]
    if version < _AUTHORITIES_LINE_UNTIL:
        lines.append(_AUTHORITIES_LINE)
    lines.append(_CERTIFICATE_LINE if version < _V2_CERTIFICATES else _CERTIFICATE_LINE_SINCE_V2)
    for path in changes:
        for prefix, (since, line) in _LINES.items():
            if path[: len(prefix)] == prefix and version >= since and line not in lines:
                lines.append(line)
    return tuple(lines)


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _dotted(path: Path) -> str:
    return ".".join(path)
