"""After a run of everything no secret stands in the log, in an answer that did not make it, or in a file of the box."""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgegc import logs
from edgegc.control.credentials import mint
from tests.box import UNKNOWN_ID, Box, box_settings, public_key, running_box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.raw_http import Reply

IDEMPOTENCY_KEY = "6f1c7d52-0c51-4c6f-9a53-d2c5a0f3b111"
"""What opens a kept answer: only a hash of it may be there."""
OPENLY = "master.key"
"""The one file that is a secret by itself."""


@contextmanager
def written_log() -> Iterator[io.StringIO]:
    """Collect every line of every logger as the daemon writes it, from DEBUG up, none left out by the sampler."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


class Watched:
    """Sends requests, and keeps the answers by whether they may carry a secret."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.secrets: list[str] = []
        self.answers: list[str] = []

    async def make(self, path: str, body: Any, field: str, **more: Any) -> str:
        """Make something that answers a secret once."""
        reply = await self.box.request("POST", path, body=body, **more)
        assert reply.status in (200, 201), reply.body
        made: str = reply.json[field]
        self.secrets.append(made)
        return made

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        reply = await self.box.request(method, path, **more)
        self.answers.append(f"{method} {path.partition('?')[0][:40]}\n{reply.headers}\n{reply.body!r}")
        return reply


async def everything(watched: Watched) -> None:
    box = watched.box
    cluster = await box.cluster()
    of = f"?cluster_id={cluster['id']}"
    operator = await watched.make("/api/v1/api-tokens", {"scopes": ["operator"]}, "token")
    reader = await watched.make(
        "/api/v1/api-tokens", {"scopes": [f"cluster:{cluster['id']}:read"]}, "token", token=operator
    )
    key = await watched.make(f"/api/v1/enrollment-keys{of}", {"uses": 3}, "key")
    body = {"name": "pi-7", "public_key": public_key()}
    first = await watched.make("/api/v1/enroll", body, "node_token", token=key)
    node = await watched.make("/api/v1/enroll", body, "node_token", token=key)
    made = await watched.make(
        f"/api/v1/nodes{of}", {"name": "boss", "role": "admin", "public_key": public_key()}, "node_token"
    )
    listed = (await watched.ask("GET", f"/api/v1/nodes{of}", token=operator)).json["nodes"]
    ids = {each["name"]: each["id"] for each in listed}
    for _ in range(2):  # The answer is kept, sealed, for whoever sends the same again.
        repeated = await watched.make(
            f"/api/v1/nodes{of}",
            {"name": "again"},
            "node_token",
            token=operator,
            headers={"Idempotency-Key": IDEMPOTENCY_KEY},
        )
    assert watched.secrets[-2:] == [repeated, repeated]
    rotated = await watched.make(f"/api/v1/nodes/{ids['boss']}/token", None, "node_token", token=operator)
    guess = mint("ega", UNKNOWN_ID)
    watched.secrets.append(guess)
    for token in (*watched.secrets, guess):
        for path in ("topology", "nodes", "rollout", "policy", "enrollment-keys", "tenants", "audit"):
            await watched.ask("GET", f"/api/v1/{path}", token=token)
        # In all the places where one is put by mistake.
        await watched.ask("GET", f"/api/v1/nodes/{token}", token=operator)
        await watched.ask("GET", f"/api/v1/{token}")
        await watched.ask("GET", f"/api/v1/nodes?token={token}", over="tcp")
        await watched.ask("GET", "/api/v1/nodes", over="tcp", headers={"Authorization": f"Basic {token}"})
        await watched.ask("GET", "/api/v1/nodes", over="tcp", headers={"Authorization": token})
        report = {"applied_version": 1, "state": "failed", "error": f"curl -H 'Bearer {token}' failed"}
        await watched.ask("POST", "/api/v1/report", body=report, token=node)
    for path in (f"nodes{of}", f"policy{of}", f"enrollment-keys{of}", f"topology{of}", f"rollout{of}"):
        await watched.ask("GET", f"/api/v1/{path}", token=reader)
    for path in ("api-tokens", "audit", "lighthouses", "resources", "clusters"):
        await watched.ask("GET", f"/api/v1/{path}", token=operator)
    await watched.ask("GET", f"/api/v1/nodes/{ids['pi-7']}")
    await watched.ask("GET", "/api/v1/config/bundle", token=rotated)
    await watched.ask("GET", "/metrics")
    await watched.ask("GET", "/health/ready")
    await watched.ask("POST", "/api/v1/maintenance/backup")
    await watched.ask("DELETE", f"/api/v1/nodes/{ids['boss']}", token=operator)
    assert len({first, node, made, rotated, key, reader, operator}) == 7


def kept(data: Path) -> dict[str, bytes]:
    """Return the content of every file of a box, by its name."""
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def forms(secret: str) -> list[str]:
    """Return what would give a secret away: all of it, the random part, and that in hex."""
    random = secret.split("_", 2)[2]
    return [secret, random, random.encode().hex()]


async def test_no_secret_is_in_a_log_an_answer_or_a_file(tmp_path: Path) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    with written_log() as log:
        async with running_box(tmp_path / "data", settings) as box:
            watched = Watched(box)
            await everything(watched)
            # What is kept in memory for a while is written at the end.
            await box.stop()
            await box.ended.wait()
    assert len(set(watched.secrets)) == 9
    assert len(watched.answers) > 100
    text = log.getvalue()
    assert "authentication failed" in text
    contents = kept(tmp_path / "data")
    assert {"edgegc.db", "master.key"} <= set(contents)
    master = contents.pop(OPENLY).strip()
    for secret in watched.secrets:
        for form in forms(secret):
            assert form not in text
            assert not [answer for answer in watched.answers if form in answer]
            assert not [name for name, content in contents.items() if form.encode() in content]
    assert IDEMPOTENCY_KEY not in text
    assert not [name for name, content in contents.items() if IDEMPOTENCY_KEY.encode() in content]
    assert "PRIVATE KEY" not in text
    assert not [name for name, content in contents.items() if b"PRIVATE KEY" in content]
    assert not [name for name, content in contents.items() if master in content]
