"""What one client may take of our time and memory, whatever path its requests go."""

from __future__ import annotations

from typing import Final

HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take."""
HEAD_S: Final = 10.0
"""How long a request head may take, from its first byte or, for the first one, from the connection's beginning: what
a slow or hostile client can hold cheaply.
"""
KEEP_ALIVE_S: Final = 75.0
"""How long a connection may rest between requests: longer than the usual 60 s between polls of an agent."""
READ_AHEAD_BYTES: Final = 65_536
"""How much a client may pipeline while its first request is being answered, before nothing more is read."""
SEND_S: Final = 30.0
"""How long a client may take to accept the next :data:`SEND_BYTES`. Per piece, not per answer: a 10 MiB bundle over a
slow mobile link may take minutes, a client that does not read at all may not.
"""
SEND_BYTES: Final = 65_536
LINGER_S: Final = 2.0
"""How long to go on receiving after an answer that came before the whole request: closing at once would reset the
connection, and with it the answer that the client has not read yet.
"""
