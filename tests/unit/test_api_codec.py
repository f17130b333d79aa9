"""What is wrong with a body or a query is said so that the sender finds it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc import errors
from edgegc.api import codec
from edgegc.model import message

NAME_RULE = r"must match ^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (b"", message.TenantCreate, "the body is empty; a JSON object is expected"),
        (b" \n", message.TenantCreate, "the body is empty; a JSON object is expected"),
        (b"{", message.TenantCreate, "the body is not valid JSON: input data was truncated"),
        (
            b"{'name': 1}",
            message.TenantCreate,
            "the body is not valid JSON: object keys must be strings (byte 1)",
        ),
        (b"[]", message.TenantCreate, "the body must be an object, not an array"),
        (b"{}", message.TenantCreate, "name is required"),
        (b'{"name":5}', message.TenantCreate, "name: must be a string, not a whole number"),
        (b'{"name":null}', message.TenantUpdate, "name: must be a string, not null"),
        (b'{"name":""}', message.TenantCreate, "name: must have at least 1 characters"),
        (b'{"name":"a b"}', message.TenantCreate, f"name: {NAME_RULE}"),
        (b'{"name":"a\\n"}', message.TenantCreate, f"name: {NAME_RULE}"),
        (b'{"mtu":1300.5}', message.MtuUpdate, "mtu: must be a whole number, not a number"),
        (b'{"mtu":1e99}', message.MtuUpdate, "mtu: must be at most 9000"),
        (b'{"name":"a","nmae":"b"}', message.TenantCreate, "unknown field 'nmae'"),
        (b'{"name":"a","mtu":10}', message.NodeCreate, "mtu: must be at least 1280"),
        (b'{"name":"a","mtu":"1300"}', message.NodeCreate, "mtu: must be a whole number, not a string"),
        (
            b'{"name":"a","groups":["x",1]}',
            message.NodeCreate,
            "groups[1]: must be a string, not a whole number",
        ),
        (b'{"name":"a","role":"root"}', message.NodeCreate, "role: 'root' is not one of admin, member"),
        (b'{"name":"a","listen_port":0}', message.NodeUpdate, "listen_port: must be at least 1"),
        (
            b'{"name":"a","listen_port":"x"}',
            message.NodeUpdate,
            "listen_port: must be a whole number or null, not a string",
        ),
        (b'{"routes":"10.0.0.0/8"}', message.Routes, "routes: must be an array, not a string"),
        (
            b'{"applied_version":1,"state":"fine"}',
            message.Report,
            "state: 'fine' is not one of applying, failed, ok",
        ),
        (b'{"scopes":[]}', message.ApiTokenCreate, "scopes: must have at least 1 items"),
    ],
)
def test_the_sentence_names_the_field_and_the_limit(
    body: bytes, kind: type[message.Request], sentence: str
) -> None:
    with pytest.raises(errors.Invalid) as caught:
        codec.decode(body, kind)
    assert caught.value.message == sentence


@given(st.binary(max_size=200))
def test_no_body_is_anything_but_accepted_or_invalid(body: bytes) -> None:
    with contextlib.suppress(errors.Invalid):
        codec.decode(body, message.NodeCreate)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["name", "groups", "mtu", "role", "x"]), x)))  # fmt: skip
def test_no_json_is_anything_but_accepted_or_invalid(value: object) -> None:
    with contextlib.suppress(errors.Invalid):
        codec.decode(json.dumps(value).encode(), message.NodeCreate)


def test_deep_nesting_is_invalid_not_a_crash() -> None:
    with pytest.raises(errors.Invalid):
        codec.decode(b'{"groups":' + b"[" * 100_000, message.NodeCreate)


def test_a_whole_number_may_be_written_with_a_fraction_of_zero() -> None:
    assert codec.decode(b'{"mtu":1300.0}', message.MtuUpdate) == message.MtuUpdate(mtu=1300)
