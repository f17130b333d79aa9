"""The application: Quart-Trio with our errors and our callers. What the routes reach for; knows none of them.

What handlers are given and give back is ours, not the framework's (:mod:`edgegc.api.asked`), so that a request which is all
there and whose path is plain goes past it, by :mod:`edgegc.api.direct`; the framework has all others.

It knows control; it does not know sockets. Nothing of ours runs in Quart's nursery or in its serving hooks: the
lifespan protocol is not run.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

import msgspec
import trio
from quart.sessions import NullSession, SessionInterface
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from edgegc import errors
from edgegc.api import auth, codec, compression, direct, operation, problem, streamed
from edgegc.api.asked import Asked, Reply, present
from edgegc.api.limits import RateLimits
from edgegc.api.queries import NoQuery
from edgegc.api.service import WATCHED
from edgegc.control.failures import AUTHENTICATION_FAILED, REQUEST_FORBIDDEN
from edgegc.model.credential import Repeatable, with_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
    from quart import Quart
    from quart.ctx import RequestContext
    from quart.sessions import SessionMixin
    from quart.typing import ResponseTypes
    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from edgegc.api.access import AccessLog
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

DETAILS = {
    404: "there is nothing at this path",
    413: "the body is too large",
}


class _NoSessions(SessionInterface):
    """Who asks says so with each request."""

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SessionMixin:
        """Return nothing to remember."""
        return _NO_SESSION


_NO_SESSION: Final = NullSession()


class Application(QuartTrio):
    """The web application. Handlers reach what they need through it: ``control``, ``caller()``, ``body()``, ``query()``."""

    request_class = streamed.StreamedRequest
    asgi_http_class = streamed.StreamedConnection
    session_interface = _NoSessions()  # type: ignore[assignment]  # declared as what it is without one

    def __init__(self, control: Control, *, log: AccessLog) -> None:
        super().__init__("edgegc.api", static_folder=None, template_folder=None)
        self.control = control
        self.log = log
        self.limits = RateLimits(control.settings.limits)
        self._proxies = auth.trusted(control.settings.api.trusted_proxies)
        self._body_bytes = control.settings.limits.json_body_bytes
        # Bounds what is buffered of a body that nobody has asked for yet.
        self.config["MAX_CONTENT_LENGTH"] = self._body_bytes
        self.config["PROPAGATE_EXCEPTIONS"] = False
        # A download's time is bounded where the bytes go out, by progress; this would cut it off after a minute.
        self.config["RESPONSE_TIMEOUT"] = None
        self.url_map.merge_slashes = False
        self.routes = direct.Routes()

    async def caller(self) -> Caller:
        """Authenticate the present request, and count it.

        The credential is looked at first, always: who has a good one is not shut out by what others try.

        :raises errors.Unauthorized: it does not say who asks, or not rightly.
        :raises errors.TooMany: the node asks too often, or its address has failed too often.
        :raises errors.Invalid: it has a query string or an ``Idempotency-Key``, and its path declares none: a mistake
            worth telling.
        """
        try:
            caller = await self.same_caller()
        except errors.Unauthorized as error:
            if error.presented:
                self._failed_authentication(error)
            raise
        asked = present.get()
        asked.state["actor"] = f"{caller.kind}:{caller.id}"
        self.limits.request(caller, trio.current_time())
        declared = asked.operation
        assert declared is not None
        if asked.query and declared.query is None:
            self.query(NoQuery)
        if auth.IDEMPOTENCY_KEY not in declared.headers and asked.headers(auth.IDEMPOTENCY_KEY.lower()):
            _no_key(asked)
        return caller

    async def same_caller(self) -> Caller:
        """Authenticate the present request again, after it has waited. :raises errors.Unauthorized:"""
        return await auth.caller_of(present.get(), self.control, self._proxies)

    def _failed_authentication(self, error: errors.Unauthorized) -> None:
        """Count a failure. :raises errors.TooMany: to an address that is to stay away."""
        asked = present.get()
        source = str(asked.state["source"])
        try:
            self.limits.failed_authentication(source, trio.current_time())
        except errors.TooMany as refusal:
            logger.warning(
                "authentication failed, from an address that has failed too often: %s",
                error.message,
                extra={"request_id": asked.request_id, "source": source},
            )
            self._count(error, asked)
            raise refusal from error

    async def body(self, kind: type[T]) -> T:
        """Read the present request's body; see :func:`codec.body`."""
        return await codec.body(present.get(), kind, limit=self._body_bytes)

    async def creator(self) -> Caller:
        """Authenticate the present request, for a route that creates something: it may be sent again.

        The route declares ``headers=(auth.IDEMPOTENCY_KEY,)``. A body is none of the caller's yet; whoever reads one
        says so (:func:`with_body`). Raises as :meth:`caller` does.

        :raises errors.Invalid: also where its ``Idempotency-Key`` is none.
        """
        caller = await self.caller()
        asked = present.get()
        key = auth.idempotency_key(asked)
        if key is None:
            return caller
        scope = f"{asked.method} {asked.path}?{asked.query.decode('latin-1')}"
        return msgspec.structs.replace(caller, repeatable=Repeatable(key=key, scope=scope))

    async def creation(self, kind: type[T]) -> tuple[Caller, T]:
        """Be :meth:`creator`, and read the body. Raises as that and :func:`codec.body` do."""
        caller = await self.creator()
        content = await codec.content(present.get(), limit=self._body_bytes)
        if caller.repeatable is not None:
            caller = with_body(caller, hashlib.sha256(content).digest())
        return caller, codec.decode(content, kind)

    def query(self, kind: type[T]) -> T:
        """Read the present request's query string; see :func:`codec.query`."""
        return codec.query(present.get().query, kind)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Match by path and method alone. Quart would look at the host as well, which no route of ours does, and fail at one
        that can't be a domain name.
        """
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)

    async def answer(self, asked: Asked, handle: Callable[[], Awaitable[Reply]]) -> Reply:
        """Call a handler; return its answer, or that to whatever it raised, compressed where it is worth it.

        Cancelled, the handler is, and this raises.
        """
        token = present.set(asked)
        try:
            reply = await handle()
        except (Exception, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and error.split(trio.Cancelled)[0] is not None:
                raise
            reply = self._problem(asked, problem.single(error))
        finally:
            present.reset(token)
        return compression.compress(asked, reply)

    async def asgi_app(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer a request, past the framework where that is possible."""
        if scope["type"] == "http" and WATCHED in scope["extensions"]:
            found = self.routes.find(scope["method"], scope["path"])
            if found is not None:
                await direct.serve(found, self.answer, scope, receive, send)
                return
        await super().asgi_app(scope, receive, send)

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> ResponseTypes:
        """Dispatch. Nothing of ours hangs on Quart's signals, nor on its functions before and after a request: looking for
        them takes as long as a small handler.
        """
        assert request_context is not None
        request, declared = request_context.request, None
        scope = cast("HTTPScope", request.scope)
        if request.url_rule is not None:
            scope["state"]["route"] = request.url_rule.rule
            declared = operation.of(self, request.url_rule)
        asked = Asked(scope, operation=declared, body=request.body)
        reply = await self.answer(asked, partial(self.dispatch_request, request_context))  # type: ignore[arg-type]
        # The framework only hands it on to the connection, which is ours.
        return cast("ResponseTypes", reply)

    async def make_default_options_response(self) -> Reply:  # type: ignore[override]  # as all handlers' answers
        """Answer ``OPTIONS``."""
        made = await super().make_default_options_response()
        return Reply(status=made.status_code, headers=(("allow", made.headers["allow"]),), length=0)

    async def do_teardown_request(
        self, exc: BaseException | None, request_context: RequestContext | None = None
    ) -> None:
        """Do nothing, as above."""

    async def do_teardown_appcontext(self, exc: BaseException | None) -> None:
        """Do nothing, as above."""

    async def handle_exception(self, error: Exception) -> ResponseTypes:
        """Leave an error of Quart's own machinery to the connection, which answers it."""
        raise error

    def _problem(self, asked: Asked, error: BaseException) -> Reply:
        request_id = asked.request_id
        if isinstance(error, errors.Unauthorized):
            # The one answer is the same for all reasons; who runs the box must be able to tell them apart.
            logger.warning(
                "authentication failed: %s",
                error.message,
                extra={"request_id": request_id, "source": asked.state.get("source")},
            )
        if isinstance(error, errors.Unauthorized | errors.Forbidden):
            self._count(error, asked)
        if isinstance(error, errors.Error) and error.code != "internal":
            made = problem.of_error(error, request_id=request_id)
        elif isinstance(error, HTTPException) and error.code is not None:
            made = _of_http(error, asked)
        else:
            logger.error(
                "internal error",
                exc_info=error,
                extra={"request_id": request_id, "method": asked.method, "path": asked.path},
            )
            made = problem.internal(request_id=request_id)
        return codec.refusal(made)

    def _count(self, error: errors.Unauthorized | errors.Forbidden, asked: Asked) -> None:
        """Have a refusal counted for the audit log."""
        state = asked.state
        refused = isinstance(error, errors.Forbidden)
        self.control.failures.note(
            actor=state.get("actor", "unknown"),
            action=REQUEST_FORBIDDEN if refused else AUTHENTICATION_FAILED,
            what=f"{asked.method} {state.get('route', '-')}" if refused else error.message,
            source=state.get("source") or "socket",
            request_id=asked.request_id,
        )


def _no_key(asked: Asked) -> None:
    """Refuse an ``Idempotency-Key`` where it would do nothing; what only reads is the same however often it is asked."""
    if asked.method not in ("GET", "HEAD"):
        raise errors.Invalid(
            f"{auth.IDEMPOTENCY_KEY}: {asked.method} takes none at this path; only what creates something does"
        )


def _of_http(error: HTTPException, asked: Asked) -> problem.Answer:
    status = error.code or 500
    headers: tuple[tuple[str, str], ...] = ()
    detail = DETAILS.get(status, error.description or "")
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        allowed = ", ".join(sorted(set(error.valid_methods)))
        headers = (("allow", allowed),)
        detail = f"{asked.method} is not allowed here; allowed: {allowed}"
    return problem.answer(status, detail, request_id=asked.request_id, headers=headers)
