"""The laboratory's requests are what a strict HTTP parser and the server's own checks take."""

from __future__ import annotations

import io
import random

import h11
import msgspec
import pytest

from edgegc.control import credentials
from edgegc.model import message
from edgegc.nebula import keys, upload
from edgegc.perf import requests

TOKEN = requests.unknown_token(random.Random(1))


def parsed(raw: bytes) -> tuple[h11.Request, bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    return head, body


def test_a_version_check_says_what_is_known_and_how_long_to_wait() -> None:
    head, body = parsed(requests.version(TOKEN, current=7, wait_s=50, known=6, applied=5))
    assert head.target == b"/api/v1/config/version?current=7&wait=50"
    headers = dict(head.headers)
    assert headers[b"if-none-match"] == b'"6"'
    assert headers[b"edgegc-applied"] == b"5"
    assert headers[b"authorization"] == f"Bearer {TOKEN}".encode()
    assert body == b""


def test_bodies_are_those_that_the_api_reads() -> None:
    chance = random.Random(1)
    nodes = requests.new_nodes(chance, 3, prefix="new", keys=True)
    _, body = parsed(requests.node_batch(TOKEN, "c", nodes))
    assert msgspec.json.decode(body, type=message.NodeBatch).nodes == nodes
    _, body = parsed(requests.enroll("egk", name="pi", public_key=requests.public_key(chance)))
    msgspec.json.decode(body, type=message.Enroll)
    _, body = parsed(requests.node_update(TOKEN, "n", message.NodeUpdate(mtu=1400)))
    assert body == b'{"mtu":1400}'
    _, body = parsed(requests.report(TOKEN, applied=3))
    assert msgspec.json.decode(body, type=message.Report).applied_version == 3


def test_public_keys_are_keys() -> None:
    chance = random.Random(1)
    found = {keys.parse_x25519_public(requests.public_key(chance)) for _ in range(100)}
    assert len(found) == 100


def test_made_up_tokens_have_the_form_of_tokens() -> None:
    chance = random.Random(1)
    unknown = requests.unknown_token(chance)
    wrong = requests.wrong_secret(unknown, chance)
    assert credentials.parse(unknown) == credentials.parse(wrong)
    assert unknown != wrong


@pytest.mark.parametrize("size", [100 * 1024, 1024 * 1024, 10 * 1024 * 1024])
def test_an_uploaded_bundle_has_its_size_and_passes_the_servers_check(size: int) -> None:
    authorities = b"-----BEGIN NEBULA CERTIFICATE-----\nAAAA\n-----END NEBULA CERTIFICATE-----\n"
    body = requests.uploaded_bundle(authorities, size=size, chance=random.Random(1))
    assert size * 0.97 < len(body) <= size
    assert upload.check(io.BytesIO(body).read)["ca.crt"] == authorities
    assert requests.authorities_of(body) == authorities
