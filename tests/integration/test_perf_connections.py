"""Where connections come from: one address of ours has too few ports for all of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.perf.generator.connections import PORTS_PER_SOURCE, Connection, Place
from edgegc.perf.generator.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator


class Owner:
    """Stops the loop at the first word, and remembers it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.said = ""

    def opened(self, connection: Connection) -> None:
        self._say("opened")

    def answered(self, connection: Connection) -> None:
        self._say("answered")

    def failed(self, connection: Connection, kind: str) -> None:
        self._say(kind)

    def left(self, connection: Connection) -> None:
        self._say("left")

    def _say(self, word: str) -> None:
        self.said = word
        self.loop.stop()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize(
    ("index", "source"),
    [
        (0, "127.0.0.1"),
        (PORTS_PER_SOURCE - 1, "127.0.0.1"),
        (PORTS_PER_SOURCE, "127.0.0.2"),
        (3 * PORTS_PER_SOURCE, "127.0.0.4"),
        (300 * PORTS_PER_SOURCE, "127.0.1.45"),
    ],
)
async def test_each_twenty_thousand_connections_come_from_an_address_of_their_own(
    listening: socket.socket, index: int, source: str
) -> None:
    loop = Loop()
    owner = Owner(loop)
    place = Place(family=socket.AF_INET, address=listening.getsockname(), tls=False)
    connection = Connection(index, place=place, loop=loop, owner=owner)
    try:
        connection.open()
        with trio.fail_after(5):
            await loop.run()
        accepted, (address, _) = listening.accept()
        accepted.close()
    finally:
        connection.close()
        loop.close()
    assert owner.said == "opened"
    assert address == source


def test_elsewhere_than_on_this_machine_the_kernel_chooses() -> None:
    place = Place(family=socket.AF_INET, address=("192.0.2.1", 80), tls=False)
    assert place.source(10 * PORTS_PER_SOURCE) is None


async def test_a_connection_that_is_refused_says_so() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        loop = Loop()
        owner = Owner(loop)
        place = Place(family=socket.AF_INET, address=bound.getsockname(), tls=False)
        connection = Connection(0, place=place, loop=loop, owner=owner)
        connection.open()
        if not owner.said:
            with trio.fail_after(5):
                await loop.run()
        loop.close()
    assert owner.said == "refused"
