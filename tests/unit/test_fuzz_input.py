"""What anybody may send or write, made up by the thousand: taken, or refused with an error of ours, and never a crash."""

from __future__ import annotations

import re
import uuid
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgegc.control import addresses, credentials
from edgegc.errors import Error, Invalid, Unauthorized
from edgegc.settings_source import environment_name, keys, load
from tests.control_plane import control_plane
from tests.fuzz import THOUSANDS, mutated, mutated_text

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.control.addresses import Address
    from edgegc.settings import Settings

# Settings

SECTIONS = sorted({key.partition(".")[0] for key in keys()})
NAMES = sorted({key.partition(".")[2] for key in keys()})
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=20),
        st.datetimes(),
        st.sampled_from(
            ["127.0.0.1:8080", "0.0.0.0:1", "[::1]:0", "self-signed", "10.0.0.0/8", "debug", "off"]
        ),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(SECTIONS) | st.text(max_size=8),
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), VALUES, max_size=4) | VALUES,
    max_size=4,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def loaded(directory: Path, *, toml: bytes = b"", environ: dict[str, str] | None = None) -> Settings | str:
    """Return the settings, or the sentence of their refusal."""
    path = directory / "fuzz.toml"
    path.write_bytes(toml)
    try:
        return load(path, {}, environ or {}, default_data_dir=directory).settings
    except Invalid as error:
        return error.message


@THOUSANDS
@given(document=DOCUMENTS)
def test_any_settings_file_is_read_or_refused_by_a_key_that_is_in_it(
    directory: Path, document: dict[str, object]
) -> None:
    found = loaded(directory, toml=tomli_w.dumps(document).encode("utf-8", "surrogatepass"))
    assert not isinstance(found, str) or any(section in found for section in document)


REAL = b"""# Read at the start
[data]
dir = "/var/lib/edgegc"
[api]
listen = ["127.0.0.1:8080", "[::1]:8443"]
trusted_proxies = ["10.0.0.0/8"]
[tls]
mode = "files"
certificate = "/etc/edgegc/certificate.pem"
key = "/etc/edgegc/key.pem"
[limits]
node_rate = 50.0
held_polls = 2_000
[log]
level = "info"
"""


@THOUSANDS
@given(content=mutated(REAL) | st.binary(max_size=200))
@example(b"[api\n")
@example(b"\xff\xfe")
@example(b"[limits]\nnode_rate = nan")
def test_any_bytes_are_read_as_settings_or_refused(directory: Path, content: bytes) -> None:
    loaded(directory, toml=content)


@THOUSANDS
@example(key="nebula.path", text="~nobody-of-this-name/nebula")
@given(key=st.sampled_from(sorted(set(keys()) - {"data.dir"})), text=st.text(max_size=30))
def test_any_environment_is_read_or_refused_by_the_name_of_its_key(
    directory: Path, key: str, text: str
) -> None:
    found = loaded(directory, environ={environment_name(key): text})
    if isinstance(found, str):
        assert key in found or key.partition(".")[0] in found


# Bearer tokens

HEXES = st.text("0123456789abcdefABCDEF", min_size=30, max_size=34)
SECRETS = st.from_regex(r"[A-Za-z0-9_-]{41,45}", fullmatch=True)
TOKENS = st.one_of(
    st.text(max_size=100),
    st.builds("{}_{}_{}".format, st.sampled_from(["egn", "egk", "ega", "EGN", "egx"]), HEXES, SECRETS),
    st.uuids().map(lambda id_: credentials.mint("egn", str(id_))),
    mutated_text(*(credentials.mint(kind, str(uuid.UUID(int=7))) for kind in ("egn", "egk", "ega"))),
)


@THOUSANDS
@given(token=TOKENS)
def test_any_token_has_the_form_of_one_or_is_refused_without_being_repeated(token: str) -> None:
    try:
        prefix, record_id = credentials.parse(token)
    except Unauthorized as error:
        refused: str | None = error.message
    else:
        refused = None
        assert str(uuid.UUID(record_id)) == record_id
        assert token.startswith(f"{prefix}_{record_id.replace('-', '')}_")
    assert refused in (None, "malformed token")
    assert (refused is None) == (re.fullmatch(r"eg[nka]_[0-9a-f]{32}_[\w-]{43}", token, re.ASCII) is not None)


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(TOKENS, min_size=1, max_size=20))
async def test_no_made_up_token_is_anybodys(tokens: list[str]) -> None:
    async with control_plane() as plane:
        for token in tokens:
            with pytest.raises(Unauthorized):
                await plane.caller(token)


# Routes and addresses

OVERLAY = IPv4Network("10.42.0.0/16")
NETWORKS = st.one_of(
    st.text(max_size=20),
    mutated_text("192.168.7.0/24", "10.42.0.0/16", "0.0.0.0/0", "10.20.0.0/255.255.0.0"),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,3})?", fullmatch=True),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda at: str(IPv4Network(at, strict=False))
    ),
)


@THOUSANDS
@given(texts=st.lists(NETWORKS, max_size=4), outside=st.ip_addresses())
def test_any_routes_are_such_as_a_node_may_announce_or_refused_by_their_field(
    texts: list[str], outside: Address
) -> None:
    try:
        found = addresses.routes(texts, OVERLAY, outside={outside: "somebody"})
    except Invalid as error:
        refused: str | None = error.message
    else:
        refused = None
        assert sorted(map(str, found)) == sorted(texts)
        assert list(found) == sorted(found)
        assert not any(
            route.overlaps(OVERLAY) or route.is_loopback or outside in route or not route.prefixlen
            for route in found
        )
    assert refused is None or refused.startswith("routes: ")


@THOUSANDS
@given(text=st.one_of(NETWORKS, st.from_regex(r"\[?[0-9a-f:.]{1,20}\]?:[0-9]{1,6}", fullmatch=True)))
def test_any_address_is_read_or_refused_by_its_field(text: str) -> None:
    for read, field in (
        (lambda: addresses.overlay_network(text), "network_cidr"),
        (lambda: addresses.overlay_address(text, OVERLAY), "overlay_ip"),
        (lambda: addresses.allowed_routes([text]), "allowed_routes"),
        (lambda: addresses.public_addresses([text], OVERLAY, field="public_addresses"), "public_addresses"),
    ):
        refused = None
        try:
            read()
        except Error as error:
            refused = error.message
        assert refused is None or refused.startswith(f"{field}: ")
