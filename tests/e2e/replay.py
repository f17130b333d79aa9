"""An attacker in the control plane's place: answers every poll and download with what lies in a directory.

``python replay.py PORT CERTIFICATE KEY DIRECTORY``. The directory holds ``version`` (what polls are told), ``body``,
and ``headers`` (``Name: value`` lines); all are read anew for each request. Standard library only.
"""

from __future__ import annotations

import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

POLL_S = 0.2
"""A poll is held for so long, so that an agent with nothing new to fetch does not spin."""


class Replay(BaseHTTPRequestHandler):
    """Knows two paths; everything else gets an empty 204."""

    directory: ClassVar[Path]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/v1/config/version":
            time.sleep(POLL_S)
            version = (self.directory / "version").read_text().strip()
            self._answer(f'{{"version":{version}}}'.encode(), [("Content-Type", "application/json")])
        elif path == "/api/v1/config/bundle":
            lines = (self.directory / "headers").read_text().splitlines()
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
            self._answer((self.directory / "body").read_bytes(), headers)
        else:
            self._answer(b"", [], status=204)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(b"", [], status=204)

    def _answer(self, body: bytes, headers: list[tuple[str, str]], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(port: str, certificate: str, key: str, directory: str) -> None:
    """Serve until killed."""
    Replay.directory = Path(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("0.0.0.0", int(port)), Replay)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
