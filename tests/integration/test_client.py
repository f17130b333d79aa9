"""The client against small real servers: TCP, TLS, Unix socket; each answers what it is told to."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import h11
import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgegc import errors
from edgegc import transport as transport_module
from edgegc.client import Client, PinMismatch, Unreachable, Untrusted
from edgegc.connection import connect, parse_target, spki_pin
from edgegc.model import message

if TYPE_CHECKING:
    from pathlib import Path

Answer = Callable[[h11.Request, bytes, trio.abc.Stream], Awaitable[bytes]]


def response(status: int, body: bytes, **headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None, socket_path: Path | None = None
) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve; yields the URL and, per connection in order, how many requests it carried."""
    carried: list[int] = []

    async def handle(raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = (
            raw if tls is None else trio.SSLStream(raw, tls, server_side=True, https_compatible=True)
        )
        number = len(carried)
        carried.append(0)
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                request, body = None, b""
                while not isinstance(event := http.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        http.receive_data(bytes(await stream.receive_some(65536)))
                    elif isinstance(event, h11.Request):
                        request = event
                    elif isinstance(event, h11.Data):
                        body += bytes(event.data)
                    elif isinstance(event, h11.ConnectionClosed):
                        return
                assert request is not None
                carried[number] += 1
                payload = await answer(request, body, stream)
                if not payload:
                    return
                await stream.send_all(payload)
                http = h11.Connection(h11.SERVER)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(raw)

    async with trio.open_nursery() as nursery:
        if socket_path is not None:
            listening = trio.socket.socket(trio.socket.AF_UNIX)
            await listening.bind(str(socket_path))
            listening.listen()
            listeners = [trio.SocketListener(listening)]
            url = f"unix://{socket_path}"
        else:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield url, carried
        nursery.cancel_scope.cancel()


def self_signed(tmp_path: Path, *, days: int = 30) -> tuple[ssl.SSLContext, str]:
    """Return a server context for a certificate of nobody in particular, and its key's pin."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    chain = tmp_path / "certificate.pem"
    chain.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pin = hashlib.sha256(public).hexdigest()
    assert spki_pin(certificate.public_bytes(serialization.Encoding.DER)) == pin
    return context, pin


async def version_seven(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
    return response(200, b'{"version": 7}', Edgegc_Spread="2.5")


async def test_requests_share_one_connection(tmp_path: Path) -> None:
    async with serving(version_seven) as (url, carried), Client(url) as client:
        for _ in range(3):
            assert (await client.poll()).version == 7
    assert carried == [3]


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async with serving(version_seven, socket_path=tmp_path / "admin.sock") as (url, _), Client(url) as client:
        polled = await client.poll()
    assert (polled.version, polled.spread_s, polled.interval_s) == (7, 2.5, None)


async def test_a_path_that_is_lost_is_noticed_while_the_client_waits_in_silence() -> None:
    async with serving(version_seven) as (url, _):
        connection = await connect(parse_target(url))
        waiting = connection._socket_stream
        assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle_s = waiting.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval_s = waiting.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        probes = waiting.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert 0 < idle_s + probes * interval_s <= 30
        assert 0 < waiting.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
        connection.close()


async def test_token_query_and_body_are_sent() -> None:
    seen: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = []

    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        seen.append((request.method, request.target, dict(request.headers), body))
        return response(201, b'{"id":"1","name":"home","created_at":"2026-11-23T10:30:00Z"}')

    async with serving(answer) as (url, _), Client(url + "/behind", token="ega_x_y") as client:
        await client.create_tenant(message.TenantCreate(name="home"))
        await client.request("GET", "/x", query={"a": None, "b": True, "c": 2.5, "d": 3.0, "e": "ü &"})
    method, target, headers, body = seen[0]
    assert (method, target, body) == (b"POST", b"/behind/api/v1/tenants", b'{"name":"home"}')
    assert headers[b"authorization"] == b"Bearer ega_x_y"
    assert headers[b"content-type"] == b"application/json"
    assert seen[1][1] == b"/behind/x?b=true&c=2.5&d=3&e=%C3%BC+%26"


async def test_an_upload_says_how_far_it_is_and_arrives_whole() -> None:
    bodies: list[bytes] = []
    body = bytes(range(256)) * 1000

    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        bodies.append(body)
        return response(200, b"{}")

    sent: list[int] = []
    async with serving(answer) as (url, _), Client(url) as client:
        await client.request("POST", "/x", body=body, sent=sent.append)
    assert bodies == [body]
    assert sum(sent) == len(body)
    assert len(sent) > 1


async def test_the_pinned_key_is_enough_for_a_certificate_that_is_expired_and_names_nobody(
    tmp_path: Path,
) -> None:
    tls, pin = self_signed(tmp_path, days=-1)
    async with serving(version_seven, tls=tls) as (url, carried), Client(url, pin=pin.upper()) as client:
        assert (await client.poll()).version == 7
        assert (await client.poll()).version == 7
    assert carried == [2]


async def test_another_key_than_the_pinned_one_gets_not_one_byte(tmp_path: Path) -> None:
    tls, pin = self_signed(tmp_path)
    async with serving(version_seven, tls=tls) as (url, carried), Client(url, pin="0" * 64) as client:
        with pytest.raises(PinMismatch, match=pin) as caught:
            await client.poll()
    assert caught.value.code == "forbidden"
    assert carried == [0]


async def test_an_unknown_authority_without_a_pin_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tls, _ = self_signed(tmp_path)
    async with serving(version_seven, tls=tls) as (url, carried), Client(url) as client:
        with pytest.raises(Untrusted, match="give its pin"):
            await client.poll()
    assert carried in ([], [0])


async def test_a_server_that_speaks_no_tls_is_unreachable(tmp_path: Path) -> None:
    async with serving(version_seven) as (url, _):
        with pytest.raises(Unreachable):
            await Client(url.replace("http:", "https:"), pin="0" * 64).poll()


async def test_nobody_listening_is_unreachable_with_the_systems_reason() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unreachable, match="refused"):
        await Client(f"http://127.0.0.1:{port}").poll()
    with pytest.raises(Unreachable, match="no such file"):
        await Client("unix:///nonexistent/admin.sock").poll()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "without an answer"),
        (b"nonsense\r\n\r\n", "broke off|HTTP"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"ver', "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off|HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "broke off|HTTP"),
    ],
)
async def test_a_broken_answer_is_unreachable(sent: bytes, said: str) -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        if sent:
            await stream.send_all(sent)
        return b""

    async with serving(answer) as (url, _), Client(url) as client:
        with pytest.raises(Unreachable, match=said):
            await client.poll()


async def test_a_silent_server_is_given_up_in_time() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        await trio.sleep_forever()
        return b""

    async with serving(answer) as (url, _), Client(url) as client:
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            await client.request("GET", "/", timeout_s=0.05)


async def test_a_trickling_body_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "SLOWEST_BODY_BYTES_PER_S", 1e9)

    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.01)

    async with serving(answer) as (url, _), Client(url) as client:
        with pytest.raises(Unreachable, match="too slowly"):
            await client.request("GET", "/", timeout_s=0.2)


@pytest.mark.parametrize("framing", ["Content-Length: 2000", "Transfer-Encoding: chunked"])
async def test_an_oversized_body_is_refused_at_the_bound(framing: str) -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        chunks = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        content = b"x" * 2000 if "Length" in framing else chunks * 2 + b"0\r\n\r\n"
        return f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + content

    async with serving(answer) as (url, _), Client(url) as client:
        with pytest.raises(errors.TooLarge, match="1500"):
            await client.request("GET", "/", limit_bytes=1500)
        assert len((await client.request("GET", "/", limit_bytes=2000)).body) == 2000


async def test_a_problem_becomes_the_error_that_the_server_raised() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        problem = message.Problem(
            type="about:blank", title="Conflict", status=409, code="conflict",
            detail="a node named 'pi-7' already exists", request_id="r1",
        )  # fmt: skip
        return response(409, msgspec.json.encode(problem), Retry_After="3")

    async with serving(answer) as (url, carried), Client(url) as client:
        for _ in range(2):
            with pytest.raises(errors.Conflict, match="pi-7") as caught:
                await client.node("x")
    assert caught.value.retry_after_s == 3
    assert carried == [2], "an error answer is complete: its connection is reused"


async def test_an_error_that_is_no_problem_document_goes_by_its_status() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        return response(502, b"<html>bad gateway</html>")

    async with serving(answer) as (url, _), Client(url) as client:
        with pytest.raises(errors.Unavailable, match="502"):
            await client.version()


async def test_an_answer_of_another_shape_is_an_error_in_a_sentence() -> None:
    async with serving(version_seven) as (url, _), Client(url) as client:
        with pytest.raises(errors.Error, match="not understood"):
            await client.nodes()


async def test_an_accepted_status_is_returned() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        return response(503, b'{"status":"unavailable","checks":{"store":"disk full"}}')

    async with serving(answer) as (url, _), Client(url) as client:
        assert (await client.health()).checks == {"store": "disk full"}


async def test_a_connection_that_the_server_closed_meanwhile_is_not_reused() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        await stream.send_all(response(200, b'{"version": 7}'))
        return b""

    async with serving(answer) as (url, carried), Client(url) as client:
        await client.request("POST", "/")
        with trio.fail_after(5):
            while client._idle[0].is_quiet():
                await trio.sleep(0.001)
        await client.request("POST", "/")
    assert carried == [1, 1]


async def test_a_get_that_met_a_closing_connection_is_asked_again_and_a_post_is_not() -> None:
    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        # The second request on a connection finds it closing, as at the end of a server's keep-alive time.
        first = stream not in seen
        seen.add(stream)
        return response(200, b'{"version": 7}') if first else b""

    seen: set[trio.abc.Stream] = set()
    async with serving(answer) as (url, carried), Client(url) as client:
        await client.poll()
        assert (await client.poll()).version == 7
        assert carried == [2, 1]
        with pytest.raises(Unreachable, match="without an answer"):
            await client.request("POST", "/")


async def test_concurrent_requests_open_connections_of_their_own_and_few_are_kept() -> None:
    arrived = 0
    everybody = trio.Event()

    async def answer(request: h11.Request, body: bytes, stream: trio.abc.Stream) -> bytes:
        nonlocal arrived
        arrived += 1
        if arrived == 8:
            everybody.set()
        await everybody.wait()
        return response(200, b'{"version": 7}')

    async with serving(answer) as (url, carried), Client(url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client.poll)
        assert carried == [1] * 8
        assert len(client._idle) == transport_module.IDLE_CONNECTIONS


@pytest.mark.parametrize(
    ("url", "pin", "said"),
    [
        ("ftp://x", None, "must start with"),
        ("https://", None, "names no host"),
        ("https://x:99999", None, "ort"),
        ("https://u:p@x", None, "at most a path"),
        ("unix:relative", None, "absolute"),
        ("https://x", "abc", "64 hexadecimal"),
        ("http://x", "0" * 64, "only be checked with https"),
    ],
)
def test_a_wrong_url_or_pin_is_named(url: str, pin: str | None, said: str) -> None:
    with pytest.raises(errors.Invalid, match=said):
        parse_target(url, pin=pin)


def test_the_host_header_leaves_out_the_default_port_and_brackets_ipv6() -> None:
    assert parse_target("https://box.example/edge/").authority == "box.example"
    assert parse_target("https://box.example/edge/").prefix == "/edge"
    assert parse_target("http://[::1]:8080").authority == "[::1]:8080"
