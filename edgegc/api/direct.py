"""The way past the framework, for a request that is all here and whose path is plain: from its scope to its handler and back.

Which handlers there are is read from the framework's own rules. What is not found here, the framework finds, or refuses:
another method, a path with anything unusual in it, ``OPTIONS``. Knows ASGI, and no route.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edgegc.api.asked import Asked, Reply, deliver
from edgegc.api.operation import operations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
    from quart import Quart

    from edgegc.api.operation import Operation

_PART: Final = re.compile(r"<([a-z_]+)>|[a-z0-9_.-]+")
"""What rules are made of here: a part of a path to be taken as it is, or any one."""
_PLAIN: Final = re.compile(r"[0-9A-Za-z_.-]+")
"""What a part of a path that stands for something may look like, so that no two readers disagree about it."""


class Route(NamedTuple):
    """A handler, and what a rule says of it."""

    rule: str
    handler: Callable[..., Awaitable[Reply]]
    operation: Operation
    names: tuple[str, ...]
    """What the parts of the path that stand for something are called."""


class Found(NamedTuple):
    """Who answers a request."""

    route: Route
    arguments: dict[str, str]


class _Place:
    """What a path may go on with, and who answers one that ends here, by method."""

    __slots__ = ("any", "named", "routes")

    def __init__(self) -> None:
        self.named: dict[str, _Place] = {}
        self.any: _Place | None = None
        self.routes: dict[str, Route] = {}


class Routes:
    """The routes of an application."""

    def __init__(self) -> None:
        self._root = _Place()

    def learn(self, app: Quart) -> None:
        """Take over all rules of an application that are plain."""
        for rule, method, operation in operations(app):
            parts = [_PART.fullmatch(part) for part in rule.rule.split("/")[1:]]
            place, names = self._root, []
            for part in parts:
                if part is None:
                    break
                if part[1] is None:
                    place = place.named.setdefault(part[0], _Place())
                else:
                    names.append(part[1])
                    place.any = place.any or _Place()
                    place = place.any
            else:
                handler: Any = app.view_functions[rule.endpoint]
                route = Route(rule.rule, handler, operation, tuple(names))
                place.routes[method] = route
                if method == "GET":
                    place.routes["HEAD"] = route

    def find(self, method: str, path: str) -> Found | None:
        """Return who answers; None: the framework knows."""
        place = self._root
        given = []
        for part in path.split("/")[1:]:
            inner = place.named.get(part)
            if inner is None:
                inner = place.any
                if inner is None or _PLAIN.fullmatch(part) is None:
                    return None
                given.append(part)
            place = inner
        route = place.routes.get(method)
        return None if route is None else Found(route, dict(zip(route.names, given, strict=True)))


async def serve(
    found: Found,
    answer: Callable[[Asked, Callable[[], Awaitable[Reply]]], Awaitable[Reply]],
    scope: HTTPScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    """Have the handler called, by ``answer``, and send what it answers. Cancelled, the handler is."""
    message = await receive()
    if message["type"] != "http.request":
        return
    route = found.route
    asked = Asked(scope, operation=route.operation, body=message["body"])
    asked.state["route"] = route.rule
    reply = await answer(asked, partial(route.handler, **found.arguments))
    await deliver(reply, send)
