from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.nebula import reload
from edgegc.nebula.reload import Plan, plan
from tests.fakes import sample_node

OLD, MIDDLE, NEW = (1, 6, 1), (1, 9, 3), (1, 11, 0)

BASE: dict[str, Any] = {
    "pki": {
        "ca": "/e/current/ca.crt",
        "cert": "/e/current/host.crt",
        "key": "/e/current/host.key",
        "blocklist": ["aa"],
        "disconnect_invalid": True,
    },
    "static_host_map": {"10.42.0.1": ["203.0.113.9:4242"], "10.42.0.2": ["203.0.113.9:4243"]},
    "lighthouse": {"am_lighthouse": False, "interval": 10, "hosts": ["10.42.0.1"]},
    "listen": {"host": "0.0.0.0", "port": 4242, "send_recv_error": "always"},
    "punchy": {"punch": True, "respond": True},
    "relay": {"am_relay": False, "use_relays": True, "relays": ["10.42.0.1"]},
    "tun": {"disabled": False, "dev": "nebula1", "mtu": 1300, "unsafe_routes": []},
    "firewall": {"conntrack": {"tcp_timeout": "12m"}, "inbound": [], "outbound": []},
    "logging": {"level": "info", "format": "text"},
}


def changed(path: str, value: object, base: dict[str, Any] = BASE) -> dict[str, Any]:
    """Return the base with one value at a dotted path; ``/`` separates where a key has dots itself."""
    document = copy.deepcopy(base)
    *sections, key = path.split("/") if "/" in path else path.split(".")
    target = document
    for section in sections:
        target = target.setdefault(section, {})
    if value is None:
        del target[key]
    else:
        target[key] = value
    return document


H, R = "hup", "restart"
DIFFERENCES: list[tuple[str, object, str, str, str]] = [
    # path, new value, and what 1.6.1, 1.9.3 and 1.11.0 need for it
    ("pki.blocklist", ["aa", "bb"], H, H, H),
    ("pki.disconnect_invalid", False, R, H, H),
    ("static_host_map/10.42.0.9", ["198.51.100.1:1"], H, H, H),
    ("static_host_map/10.42.0.1", ["198.51.100.1:1"], R, R, R),
    ("static_host_map/10.42.0.1", None, R, R, H),
    ("static_host_map", None, R, R, H),
    ("lighthouse.hosts", ["10.42.0.2"], H, H, H),
    ("lighthouse.interval", 20, R, H, H),
    ("lighthouse.am_lighthouse", True, R, R, R),
    ("listen.host", "127.0.0.1", R, R, R),
    ("listen.port", 4243, R, R, R),
    ("listen.batch", 32, R, R, R),
    ("listen.read_buffer", 1, H, H, H),
    ("listen.write_buffer", 1, H, H, H),
    ("listen.send_recv_error", "never", H, H, H),
    ("routines", 2, R, R, R),
    ("punchy.punch", False, R, R, H),
    ("punchy.respond", False, H, H, H),
    ("punchy.delay", "2s", H, H, H),
    ("relay.relays", [], H, H, H),
    ("relay.am_relay", True, H, H, H),
    ("relay.use_relays", False, R, R, H),
    ("firewall.inbound", [{"port": "any"}], H, H, H),
    ("firewall.default_local_cidr_any", True, H, H, H),
    ("firewall.conntrack.tcp_timeout", "1m", H, H, H),
    ("firewall.conntrack.routine_cache_timeout", "1s", R, R, R),
    ("tun.mtu", 1400, R, H, H),
    ("tun.routes", [{"mtu": 1}], R, H, H),
    ("tun.unsafe_routes", [{"route": "10.9.0.0/16"}], R, H, H),
    ("tun.dev", "nebula2", R, R, R),
    ("tun.disabled", True, R, R, R),
    ("tun.tx_queue", 1000, R, R, R),
    ("cipher", "chachapoly", R, R, R),
    ("handshakes.try_interval", "1s", R, R, R),
    ("preferred_ranges", ["10.0.0.0/8"], R, H, H),
    ("logging.level", "debug", H, H, H),
    ("logging.format", "json", H, H, H),
    ("stats.type", "none", R, R, H),
    ("sshd.enabled", True, H, H, H),
    ("something.new", 1, R, R, R),
    ("tun.something_new", 1, R, R, R),
    ("pki.something_new", 1, R, R, R),
]


@pytest.mark.parametrize(
    ("path", "value", "old", "middle", "new"),
    DIFFERENCES,
    ids=[f"{path}={value}" for path, value, *_ in DIFFERENCES],
)
def test_each_difference_needs_what_the_table_says(
    path: str, value: object, old: str, middle: str, new: str
) -> None:
    after = changed(path, value)
    assert [plan(BASE, after, nebula_version=version).action for version in (OLD, MIDDLE, NEW)] == [
        old,
        middle,
        new,
    ]


@pytest.mark.parametrize(
    ("facts", "old", "middle", "new"),
    [
        ({"certificate_changed": True, "address_changed": False, "subnets_changed": False}, R, H, H),
        ({"certificate_changed": True, "address_changed": False, "subnets_changed": True}, R, R, H),
        ({"certificate_changed": True, "address_changed": False}, R, R, H),
        ({"certificate_changed": True, "address_changed": True, "subnets_changed": False}, R, R, R),
        ({"certificate_changed": True}, R, R, R),
        ({"authorities_added": True}, H, H, H),
        ({"authorities_removed": True}, H, H, H),
        ({"address_changed": True, "subnets_changed": True}, "none", "none", "none"),
    ],
    ids=[
        "renewal",
        "subnets",
        "subnets unknown",
        "address",
        "unknown",
        "ca added",
        "ca removed",
        "same certificate",
    ],
)
def test_a_change_of_the_files_needs_what_the_table_says(
    facts: dict[str, bool], old: str, middle: str, new: str
) -> None:
    found = [plan(BASE, BASE, nebula_version=version, **facts).action for version in (OLD, MIDDLE, NEW)]
    assert found == [old, middle, new]


def test_who_stops_being_a_relay_uses_relays_again_only_after_a_restart_of_an_old_nebula() -> None:
    relay = changed("relay.am_relay", True)
    assert [plan(relay, BASE, nebula_version=version).action for version in (OLD, MIDDLE, NEW)] == [R, R, H]


@pytest.mark.parametrize("version", [(0, 0, 0), (1, 5, 2), (1, 12, 0), (2, 0, 0)])
def test_a_version_that_the_table_does_not_know_is_restarted(version: reload.Version) -> None:
    found = plan(BASE, changed("firewall.inbound", [1]), nebula_version=version)
    assert found.action == "restart"
    assert found.reasons == (f"it is not known what nebula {'.'.join(map(str, version))} reloads",)


def test_the_reasons_of_a_restart_are_what_forces_it() -> None:
    after = changed("tun.mtu", 1400, changed("firewall.inbound", [1]))
    assert plan(BASE, after, nebula_version=OLD) == Plan(
        action="restart", reasons=("tun.mtu changed, which nebula 1.6.1 takes only at a start",)
    )


def test_the_reasons_of_a_reload_are_all_changes() -> None:
    after = changed("pki.blocklist", [], changed("firewall.inbound", [1]))
    assert plan(BASE, after, nebula_version=OLD).reasons == (
        "pki.blocklist changed",
        "firewall.inbound changed",
    )


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (
            OLD,
            (
                "Caught HUP, reloading config",
                "Trusted CA certificates refreshed",
                "Client cert refreshed from disk",
                "New firewall has been installed",
            ),
        ),
        (
            MIDDLE,
            (
                "Caught HUP, reloading config",
                "Client cert refreshed from disk",
                "New firewall has been installed",
            ),
        ),
        (
            NEW,
            (
                "Caught HUP, reloading config",
                "Client certificate(s) refreshed from disk",
                "New firewall has been installed",
            ),
        ),
    ],
)
def test_the_log_shows_each_section_that_was_taken(version: reload.Version, lines: tuple[str, ...]) -> None:
    after = changed("firewall.outbound", [1], changed("firewall.inbound", [1]))
    assert plan(BASE, after, nebula_version=version).log_lines == lines


def test_a_true_that_became_a_one_is_a_difference() -> None:
    assert plan(BASE, changed("punchy.punch", 1), nebula_version=OLD).action == "restart"


def test_a_section_that_is_missing_on_one_side_is_a_difference_of_its_keys() -> None:
    after = changed("firewall", None)
    assert plan(BASE, after, nebula_version=OLD).action == "hup"
    assert plan(after, BASE, nebula_version=OLD).action == "hup"
    assert plan(changed("static_host_map", None), BASE, nebula_version=OLD).action == "hup"
    assert plan(changed("tun", None), BASE, nebula_version=NEW).action == "restart"


leaves = st.one_of(
    st.booleans(), st.integers(0, 3), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 2), max_size=2)
)
sections = st.sampled_from([*{path[0] for path in reload.TABLE}, "unknown"])
keys = st.sampled_from([*{path[1] for path in reload.TABLE if len(path) > 1}, "10.42.0.1", "unknown"])
configs = st.dictionaries(sections, leaves | st.dictionaries(keys, leaves | st.dictionaries(keys, leaves)))
versions = st.sampled_from([OLD, (1, 7, 2), (1, 8, 0), MIDDLE, (1, 10, 3), NEW, (0, 0, 0)])


@given(configs, versions)
def test_the_same_configuration_needs_nothing(config: dict[str, Any], version: reload.Version) -> None:
    assert plan(config, copy.deepcopy(config), nebula_version=version) == Plan(action="none")


@given(configs, configs, versions)
def test_a_difference_always_needs_something(
    old: dict[str, Any], new: dict[str, Any], version: reload.Version
) -> None:
    needed = plan(old, new, nebula_version=version)
    assert needed.action != "none" or _without_empty(old) == _without_empty(new)
    assert bool(needed.reasons) == (needed.action != "none")
    assert bool(needed.log_lines) == (needed.action == "hup")


@given(configs, configs, versions)
def test_a_change_of_the_device_dominates_everything_else(
    old: dict[str, Any], new: dict[str, Any], version: reload.Version
) -> None:
    old, new = {**old, "tun": {"dev": "one"}}, {**new, "tun": {"dev": "two"}}
    assert plan(old, new, nebula_version=version).action == "restart"


@given(configs, configs)
def test_a_newer_nebula_never_needs_a_restart_where_an_older_one_does_not(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    actions = [plan(old, new, nebula_version=version).action for version in (OLD, (1, 8, 0), MIDDLE, NEW)]
    if "hup" in actions:
        assert set(actions[actions.index("hup") :]) == {"hup"}


def _without_empty(config: dict[str, Any]) -> dict[str, Any]:
    """A section without keys is as good as none."""
    if not isinstance(config, dict):
        return config
    return {key: _without_empty(value) for key, value in config.items() if _without_empty(value) != {}}


def test_every_key_that_is_rendered_is_in_the_table() -> None:
    from edgegc.model.message import Topology
    from edgegc.model.policy import ANY_TO_ANY
    from edgegc.nebula import config

    empty = Topology(cluster_id="c", version=1, lighthouses=(), relays=(), routes=())
    document: Any = config.node_config(
        node=sample_node(), topology=empty, gateways={}, policy=ANY_TO_ANY, blocklist=()
    )
    for section, content in document.items():
        for key in content:
            assert (section,) in reload.TABLE or (section, key) in reload.TABLE, f"{section}.{key}"
