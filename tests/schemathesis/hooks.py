"""What schemathesis can't read in the document: who sends a request, and strings of our formats that fit this cluster.

A route is right or wrong by what else the cluster holds: whatever is made here does not collide with it.
"""

from __future__ import annotations

import base64
import os
import re
import uuid
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import strategies as st

from tests import zoo

if TYPE_CHECKING:
    from schemathesis import AuthContext, Case

OVERLAY = IPv4Network(os.environ["EDGEGC_TEST_NETWORK"])
PUBLIC = IPv4Network("203.0.113.0/24")
ROUTED = IPv4Network("172.16.0.0/12")
ONCE = re.compile(r"[!-~]{1,255}")
KEPT = frozenset(os.environ["EDGEGC_TEST_KEPT"].split())
BEGIN, END = (f"-----{word} NEBULA X25519 PUBLIC KEY-----\n" for word in ("BEGIN", "END"))

prefixes = st.integers(16, 30)
networks = st.builds(
    lambda address, prefix: str(IPv4Network((address, prefix), strict=False)),
    st.integers(int(ROUTED[0]), int(ROUTED[-1])),
    prefixes,
)
overlay_addresses = st.integers(int(OVERLAY[2]), int(OVERLAY[-2])).map(lambda at: str(IPv4Address(at)))
public_addresses = st.builds(
    lambda host, port: f"{PUBLIC[host]}:{port}", st.integers(1, 254), st.integers(1, 65535)
)
public_keys = st.binary(min_size=32, max_size=32).map(
    lambda key: f"{BEGIN}{base64.b64encode(bytes([key[0] | 9]) + key[1:]).decode()}\n{END}"
)

schemathesis.openapi.format("ipv4-network", networks)
schemathesis.openapi.format("overlay-address", overlay_addresses)
schemathesis.openapi.format("ip-port", public_addresses)
schemathesis.openapi.format("nebula-public-key", public_keys)
schemathesis.openapi.format("port-range", st.sampled_from(["any", "fragment", "80-90", "443", "1-4096"]))

schemathesis.openapi.media_type("application/gzip", st.just(zoo.bundle()))


@schemathesis.serializer("application/gzip")
def as_it_is(context: Any, value: bytes) -> bytes:
    """Send an archive as it is."""
    return value


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Send no cursor: only a page that was answered has one. Leave alone what all the other requests need."""
    if case.query:
        case.query.pop("cursor", None)
    if case.headers and ONCE.fullmatch(str(case.headers.get("Idempotency-Key", ""))):
        # Repeated, it answers what was made the first time, though it be gone.
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    takes_away = case.method == "DELETE" or case.path.endswith("/token")
    if takes_away and KEPT.intersection(map(str, (case.path_parameters or {}).values())):
        case.headers["Authorization"] = "Bearer none"


class Bearer:
    """Sends one token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get(self, case: Case, context: AuthContext) -> str:
        return self.token

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


def speaks(variable: str) -> Any:
    """Return an auth provider's class that sends the token in an environment variable."""
    return type("Bearer", (Bearer,), {"__init__": lambda self: Bearer.__init__(self, os.environ[variable])})


NODE_CALLS = r"/api/v1/(config/|report$|routes$|certificate$)"
schemathesis.auth().apply_to(path_regex=NODE_CALLS)(speaks("EDGEGC_TEST_NODE"))
schemathesis.auth().apply_to(path="/api/v1/enroll")(speaks("EDGEGC_TEST_KEY"))
schemathesis.auth().skip_for(path_regex=NODE_CALLS).skip_for(path="/api/v1/enroll")(
    speaks("EDGEGC_TEST_OPERATOR")
)
