"""The ASGI application: one request from its path to its answer's bytes."""

from __future__ import annotations

import hashlib
import html
import logging
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from brickless.hub.domain import access, scopes
from brickless.hub.domain.errors import Refusal, Unauthenticated
from brickless.hub.domain.prn import DEVICE_PREFIX
from brickless.hub.domain.values import Identity
from brickless.hub.http import errors
from brickless.hub.http.messages import Body, ClientGone, Receive, Request, Response, Send
from brickless.hub.http.metrics import Metrics
from brickless.hub.http.quick import QuickPolls
from brickless.hub.http.router import Route, Router, Service, cleaned
from brickless.hub.http.tracing import Tracer
from brickless.hub.services import audit
from brickless.hub.services.auth import Auth
from brickless.hub.services.organisations import Organisations
from brickless.hub.services.presence import Presence

log = logging.getLogger("brickless.hub")
_EXPOSED = "Location, Pantahub-Object-Type, WWW-Authenticate, Retry-After"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_CACHED_TOKENS = 131_072


class Bearers:
    """Verified tokens, remembered until they expire: a signature is checked once, not at each poll."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    def identity(self, request: Request) -> Identity | None:
        """Who calls; None without an Authorization header. Raises Unauthenticated for one that is no valid bearer."""
        header = request.headers.get(b"authorization")
        if header is None:
            return None
        scheme, _, token = header.decode("latin-1").partition(" ")
        if scheme != "Bearer" or not token:
            raise Unauthenticated
        request.token = token
        # The digest, not the token: a hundred thousand devices are a hundred thousand of these.
        key = hashlib.blake2b(token.encode("latin-1", "replace"), digest_size=24).digest()
        known = self._known.get(key)
        if known is not None and known.expires_s > time.time():
            return known
        identity = self._auth.verify(token)
        self._known[key] = identity
        while len(self._known) > _MAX_CACHED_TOKENS:
            self._known.popitem(last=False)
        return identity


class Application:
    """Routing, authentication, scopes, CORS and the wire's fixed headers, around handlers that know none of it."""

    def __init__(
        self,
        router: Router,
        auth: Auth,
        organisations: Organisations,
        presence: Presence,
        metrics: Metrics,
        *,
        public_url: str | None,
        tracer: Tracer | None = None,
        quick: QuickPolls | None = None,
    ) -> None:
        self._tracer = tracer
        #: The short way of idle polls, for the server; None while every request must pass here.
        self.quick = quick
        self._organisations = organisations
        self._metrics = metrics
        self._router = router
        self._bearers = Bearers(auth)
        self._presence = presence
        self._public_url = public_url

    def base_url(self, request: Request) -> str:
        """Where this client reaches the hub: as configured, or as it called."""
        return self._public_url or f"{request.scheme}://{request.host}"

    def auth_base(self, request: Request) -> str:
        """Base address of /auth."""
        return f"{self.base_url(request)}/auth"

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            raise RuntimeError(f"the hub speaks HTTP, not {scope['type']}")
        request = Request(scope, receive)
        if self._tracer is None:
            await self._serve(request, send)
            return
        span, status = self._tracer.begin(request.method, request.headers), 0
        try:
            status = await self._serve(request, send)
        finally:
            span.end(request.route, status)

    async def _serve(self, request: Request, send: Send) -> int:
        """Answer a request; the status, 0 when the client left."""
        started_s = time.perf_counter()
        service, rest = self._router.find(request)
        try:
            response = await self._answer(request, service, rest)
        except ClientGone:
            return 0
        await self._send(request, response, service, send, started_s)
        if response.poll is not None and self.quick is not None:
            self.quick.learn(request, response, canonical=service is not None and service.canonical)
        return response.status

    async def _answer(self, request: Request, service: Service | None, rest: str) -> Response:
        clean = cleaned(request.path)
        if clean is not None:
            return self._redirect(request, clean)
        if service is None:
            return errors.framework(404, "Resource not found")
        preflight = self._preflight(request, service)
        if preflight is not None:
            return preflight
        try:
            return await self._dispatch(request, service, rest)
        except Refusal as error:
            return errors.refused(
                error, auth_base=self.auth_base(request), canonical=service.canonical, route=request.route
            )
        except ClientGone:
            raise
        except Exception:
            log.exception("crash", extra={"route": request.route, "method": request.method})
            return errors.framework(500, "Internal Server Error")

    async def _dispatch(self, request: Request, service: Service, rest: str) -> Response:
        route, params, known = service.match(request.method, rest)
        request.params = params
        request.route = f"{service.prefix}{route.pattern}" if route is not None else service.prefix
        if service.bearer:
            public = route is not None and route.public
            request.identity = None if public else self._bearers.identity(request)
            if not public and request.identity is None:
                raise Unauthenticated
        doing = self._recorded(request, route)
        with audit.recording(doing):
            return await self._carry_out(request, route, known=known)

    @staticmethod
    def _recorded(request: Request, route: Route | None) -> audit.Doing | None:
        """What the audit log says of this request, should it change something."""
        action = f"{request.method} {request.route}"
        if route is None or (request.method in _READING and action not in audit.CHANGING_READS):
            return None
        return audit.begun(action, request.params, address=request.address, time_ms=time.time_ns() // 1_000_000)

    async def _carry_out(self, request: Request, route: Route | None, *, known: bool) -> Response:
        if route is None:
            return errors.framework(405, "Method not allowed") if known else errors.framework(404, "Resource not found")
        if request.identity is not None:
            request.identity = await self._permitted(request, request.identity)
            scopes.require(request.identity.scopes, route.scopes)
            self._note_presence(request, request.identity)
            audit.by(request.identity)
        return await route.handler(request)

    async def _permitted(self, request: Request, identity: Identity) -> Identity:
        """The caller with his role of now. Raises Forbidden when it does not open this route."""
        if not identity.actor:
            return identity
        current = await self._organisations.current(identity)
        access.require_route(current, f"{request.method} {request.route}")
        return current

    async def optional_identity(self, request: Request) -> Identity | None:
        """For public routes that still look at a token: None without one, Unauthenticated for an invalid one."""
        identity = self._bearers.identity(request)
        if identity is None:
            return None
        current = await self._permitted(request, identity)
        audit.by(current)
        return current

    def _note_presence(self, request: Request, identity: Identity) -> None:
        if identity.is_device:
            self._presence.seen(identity.prn.removeprefix(DEVICE_PREFIX), request.address)

    @staticmethod
    def _redirect(request: Request, clean: str) -> Response:
        query = request.query_string.decode("latin-1")
        target = clean + (f"?{query}" if query else "")
        body = f'<a href="{html.escape(target)}">Temporary Redirect</a>.\n'.encode()
        return Response(body, status=307, headers=(("Location", target),), content_type="text/html; charset=utf-8")

    @staticmethod
    def _preflight(request: Request, service: Service) -> Response | None:
        if request.method != "OPTIONS":
            return None
        method = request.header("access-control-request-method")
        if request.header("origin") is None or method is None:
            return None
        wanted = [name.strip().lower() for name in (request.header("access-control-request-headers") or "").split(",")]
        if method.upper() not in service.methods or not service.headers.issuperset(filter(None, wanted)):
            return errors.framework(403, "Invalid Preflight Request")
        headers = (
            ("Access-Control-Allow-Methods", ",".join(service.methods)),
            ("Access-Control-Allow-Headers", ",".join(sorted(service.headers))),
            ("Access-Control-Max-Age", "3600"),
        )
        return Response(headers=headers)

    @staticmethod
    def _cors(request: Request) -> list[tuple[bytes, bytes]]:
        origin = request.header("origin")
        if origin is None or urlsplit(origin).netloc == request.host:
            return []
        if not origin.isprintable() or len(origin) > 300:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED.encode()),
            (b"vary", b"Origin"),
        ]

    async def _send(
        self, request: Request, response: Response, service: Service | None, send: Send, started_s: float
    ) -> None:
        elapsed_s = time.perf_counter() - started_s
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"x-powered-by", b"go-json-rest"),
            (b"x-runtime", b"%.6f" % elapsed_s),
        ]
        if service is not None and service.canonical:
            headers.append((b"phjsonformat", b"gibson042-canonicaljson"))
        length = len(response.body) if isinstance(response.body, bytes) else response.length
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        if response.headers:
            headers.extend((name.lower().encode(), value.encode("latin-1")) for name, value in response.headers)
        if b"origin" in request.headers:
            headers.extend(self._cors(request))
        self._metrics.observe(request.method, request.route or "none", response.status, elapsed_s)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})
            return
        await self._stream(request, response.body, send)

    @staticmethod
    async def _stream(request: Request, body: Body, send: Send) -> None:
        try:
            async with aclosing(body) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientGone:
            return
        except OSError:
            # The status is gone already: the short body tells the client, which checks size and hash.
            log.exception("a download broke off", extra={"route": request.route})
            raise
        await send({"type": "http.response.body", "body": b""})
