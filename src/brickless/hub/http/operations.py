"""What operators and their machines ask: is it alive, ready, how does it do (contract section 6.9), what it offers.

`/livez` and `/readyz` answer everybody and tell nothing else; `/healthz/` and `/metrics/` want the operator's secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time

from brickless.hub.domain import jsontext
from brickless.hub.http import errors
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.metrics import Metrics
from brickless.hub.http.openapi import document
from brickless.hub.http.router import Route, Router, Service
from brickless.hub.services.parts import Parts

_USER = "saadmin"
_CACHE_S = 30.0


class OperationRoutes:
    """Handlers for operators. `secret` is the password of the user `saadmin`."""

    def __init__(
        self, parts: Parts, metrics: Metrics, router: Router, secret: str, pages: tuple[Route, ...] = ()
    ) -> None:
        """`pages` show the interface's description to people."""
        self._pages = pages
        self._parts = parts
        self._metrics = metrics
        self._router = router
        self._secret = secret
        self._health: tuple[float, Response] | None = None

    def services(self) -> tuple[Service, ...]:
        """The routes."""

        def one(prefix: str, handler: Route) -> Service:
            return Service(prefix, (handler,), bearer=False)

        return (
            one("/livez/", Route("GET", "", self.live, public=True, summary="The process answers")),
            one("/readyz/", Route("GET", "", self.ready, public=True, summary="Database and storage answer, too")),
            one("/healthz/", Route("GET", "", self.health, summary="The same, for the operator, with its duration")),
            one("/metrics/", Route("GET", "", self.metrics, summary="Prometheus metrics, for the operator")),
            one("/features/", Route("GET", "", self.features, public=True, summary="Which parts this hub has")),
            Service(
                "/swagger/",
                (
                    Route("GET", "doc.json", self.document, public=True, summary="This interface as OpenAPI"),
                    *self._pages,
                ),
                bearer=False,
            ),
        )

    def refused(self, request: Request) -> Response | None:
        """The answer to whoever is not the operator."""
        scheme, _, text = (request.header("authorization") or "").partition(" ")
        if not text or scheme.lower() != "basic":
            return self._challenge()
        try:
            given = base64.b64decode(text, validate=True)
        except binascii.Error:
            return errors.framework(400, "Invalid authentication")
        if b":" not in given:
            return errors.framework(400, "Invalid authentication")
        if not hmac.compare_digest(given, f"{_USER}:{self._secret}".encode()):
            return self._challenge()
        return None

    @staticmethod
    def _challenge() -> Response:
        return errors.framework(401, "Not Authorized", (("WWW-Authenticate", "Basic realm=Pantahub Health @ hub"),))

    async def live(self, _request: Request) -> Response:
        """GET /livez."""
        return ok({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: 503 while the database or the storage of objects does not answer."""
        for name, ask in (("database", self._ask_database), ("objects", self._ask_objects)):
            try:
                await ask()
            except Exception:
                errors.log.exception("not ready: no answer", extra={"of": name})
                return Response(jsontext.struct({"status": name}), status=503, headers=(("Retry-After", "5"),))
        return ok({"status": "ok"})

    async def _ask_objects(self) -> None:
        await self._parts.blobs.has("0" * 64)

    async def _ask_database(self) -> None:
        async with self._parts.db.read() as session:
            await session.devices.get("")

    async def health(self, request: Request) -> Response:
        """GET /healthz/; the answer is kept for half a minute."""
        refused = self.refused(request)
        if refused is not None:
            return refused
        now_s = time.monotonic()
        if self._health is None or now_s - self._health[0] > _CACHE_S:
            started_ns = time.perf_counter_ns()
            start_time = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            await self._ask_database()
            duration = time.perf_counter_ns() - started_ns
            answer = ok({"code": 0, "duration": duration, "start-time": start_time})
            self._health = (now_s, answer)
        return self._health[1]

    async def metrics(self, request: Request) -> Response:
        """GET /metrics/."""
        refused = self.refused(request)
        if refused is not None:
            return refused
        return Response(self._metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    async def features(self, _request: Request) -> Response:
        """GET /features: for clients that adapt to what a hub has."""
        answer = ok({"features": {"mqtt": False, "webhooks": True, "mfa": False}})
        answer.headers = (("Cache-Control", "max-age=60"),)
        return answer

    async def document(self, _request: Request) -> Response:
        """GET /swagger/doc.json."""
        return ok(document(self._router.services))
