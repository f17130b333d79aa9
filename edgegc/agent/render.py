"""``nebula.yml``: a bundle's configuration with this machine's own settings over it. Pure; knows no files' contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgegc.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.agent.settings import Cluster

Config = dict[str, object]

AUTHORITIES = "ca.crt"
CERTIFICATE = "host.crt"
PRIVATE_KEY = "host.key"


def nebula_config(
    config: Mapping[str, object], *, cluster: Cluster, listen_port: int | None, files: Path
) -> Config:
    """Return the complete configuration that nebula runs with, or is tested with.

    ``listen_port`` is the manifest's. ``files``: the directory that the paths point into, absolute: nebula re-reads
    at SIGHUP the very paths that it was started with. Our own settings win; Invalid where a section is no mapping.
    What an uploaded bundle says of the port counts where ``agent.toml`` leaves it open.
    """
    if not files.is_absolute():
        raise ValueError(f"{files} is not absolute")
    rendered = dict(config)
    rendered["pki"] = {
        **_section(config, "pki"),
        "ca": str(files / AUTHORITIES),
        "cert": str(files / CERTIFICATE),
        "key": str(files / PRIVATE_KEY),
    }
    if listen_port is None:
        uploaded = _port(config) if cluster.mode == "uploaded" else 0
        listen_port = cluster.listen_port or uploaded
    rendered["listen"] = {
        **_section(config, "listen"),
        "port": listen_port,
        # The probe of our proof is answered only with this.
        "send_recv_error": "always",
    }
    rendered["tun"] = {**_section(config, "tun"), "dev": cluster.tun_device}
    rendered["logging"] = {**_section(config, "logging"), "level": cluster.log_level, "format": "text"}
    return rendered


def blocklist(config: Mapping[str, object]) -> frozenset[str]:
    """Return the fingerprints that a configuration refuses."""
    return frozenset(_strings(_section(config, "pki").get("blocklist")))


def lighthouses(config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the overlay addresses of the lighthouses that can be pinged with a configuration.

    A lighthouse asks no other one, but its ``static_host_map`` says where they are. Without a tunnel device nothing of
    ours reaches the overlay.
    """
    if _section(config, "tun").get("disabled") is True:
        return ()
    if is_lighthouse(config):
        return tuple(str(address) for address in _section(config, "static_host_map"))
    return _strings(_section(config, "lighthouse").get("hosts"))


def is_lighthouse(config: Mapping[str, object]) -> bool:
    """Whether a node is a lighthouse itself: it may well be the only one."""
    return _section(config, "lighthouse").get("am_lighthouse") is True


def listen_port(config: Mapping[str, object]) -> int:
    """Return the UDP port of a complete configuration."""
    return _port(config)


def _port(config: Mapping[str, object]) -> int:
    port = _section(config, "listen").get("port", 0)
    return port if isinstance(port, int) else 0


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise Invalid(f"config.yml: {name} is not a section")
    return section


def _strings(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
