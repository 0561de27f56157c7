"""The dashboard: one page for people, kept live by server-sent events; without scripts it stands still."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from urllib.parse import urlsplit

import jinja2

from brickless.hub.domain.errors import Forbidden, LoginFailed, NotFound, RateLimited, Refusal
from brickless.hub.domain.values import Account
from brickless.hub.http.messages import Request, Response, parse_query
from brickless.hub.http.router import Route, Service
from brickless.hub.services.dashboard import MAX_ROWS, SESSION_LIFE_S, Dashboard, Row

_SESSION = "brickless_session"
_FORM = "brickless_form"
_TICK_S = 5.0
_MAX_FORM_BYTES = 8 * 1024
_STATIC = {"dashboard.css": "text/css; charset=utf-8", "dashboard.js": "text/javascript; charset=utf-8"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
_NO_STORE = ("Cache-Control", "no-store")

Subscribe = Callable[[str], AbstractContextManager["asyncio.Queue[str | None]"]]


def _cookies(request: Request) -> dict[str, str]:
    try:
        return {key: morsel.value for key, morsel in SimpleCookie(request.header("cookie") or "").items()}
    except CookieError:
        return {}


def _cookie(request: Request, name: str, value: str, life_s: int) -> tuple[str, str]:
    secure = "; Secure" if request.scheme == "https" else ""
    return "Set-Cookie", f"{name}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}"


class Pages:
    """Handlers of `/` and of what the page loads below `/dash-ui/`."""

    def __init__(self, dashboard: Dashboard, subscribed: Subscribe) -> None:
        self._dashboard = dashboard
        self._subscribed = subscribed
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("brickless.hub.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def services(self) -> tuple[Service, ...]:
        """The page itself, and its parts."""
        parts = (
            Route("POST", "sign-in", self.sign_in, public=True),
            Route("POST", "sign-out", self.sign_out, public=True),
            Route("GET", "events", self.events, public=True),
            Route("GET", "static/{name}", self.static, public=True),
        )
        page = (Route("GET", "", self.page, public=True), Route("HEAD", "", self.page, public=True))
        return Service("/", page, bearer=False), Service("/dash-ui/", parts, bearer=False)

    # -- the page ----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """GET /: the devices, or the form that signs in."""
        account = await self._account(request)
        if account is None:
            return self._sign_in_form(request, "", 200)
        rows = await self._dashboard.rows(account)
        text = self._templates.get_template("devices.html").render(
            account=account,
            rows=rows,
            max_rows=MAX_ROWS,
            form_token=self._dashboard.form_token(self._form_cookie(request)),
        )
        return self._html(request, text)

    async def _account(self, request: Request) -> Account | None:
        session = _cookies(request).get(_SESSION, "")
        return await self._dashboard.session(session) if session else None

    @staticmethod
    def _form_cookie(request: Request) -> str:
        """The browser's form cookie; a new one is remembered on the request, so that page and cookie agree."""
        found = _cookies(request).get(_FORM) or request.params.get(_FORM) or secrets.token_urlsafe(16)
        request.params[_FORM] = found
        return found

    def _html(self, request: Request, text: str, *, status: int = 200) -> Response:
        cookie = _cookie(request, _FORM, self._form_cookie(request), SESSION_LIFE_S)
        return Response(
            text.encode(),
            status=status,
            content_type="text/html; charset=utf-8",
            headers=(*_HEADERS, _NO_STORE, cookie),
        )

    def _sign_in_form(self, request: Request, error: str, status: int, name: str = "") -> Response:
        token = self._dashboard.form_token(self._form_cookie(request))
        text = self._templates.get_template("sign_in.html").render(error=error, name=name, form_token=token)
        return self._html(request, text, status=status)

    # -- forms -------------------------------------------------------------------------------------------------------

    async def _form(self, request: Request) -> dict[str, str]:
        """The form's fields. Raises Forbidden for one that another site made or sent."""
        origin = request.header("origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise Forbidden("The form was sent from another site")
        fields = dict(parse_query(await request.body(_MAX_FORM_BYTES)))
        self._dashboard.check_form(_cookies(request).get(_FORM, ""), fields.get("form", ""))
        return fields

    async def sign_in(self, request: Request) -> Response:
        """POST sign-in."""
        name = ""
        try:
            fields = await self._form(request)
            name = fields.get("name", "")
            session = await self._dashboard.sign_in(name, fields.get("password", ""), address=request.address)
        except LoginFailed:
            return self._sign_in_form(request, "Unknown name or wrong password.", 401, name)
        except RateLimited as error:
            again = f"Too many attempts. Try again in {error.retry_after_s} seconds."
            return self._sign_in_form(request, again, 429, name)
        except Refusal as error:
            return self._sign_in_form(request, error.message, 403)
        return self._see_page(_cookie(request, _SESSION, session, SESSION_LIFE_S))

    async def sign_out(self, request: Request) -> Response:
        """POST sign-out."""
        try:
            await self._form(request)
        except Refusal as error:
            return self._sign_in_form(request, error.message, 403)
        return self._see_page(_cookie(request, _SESSION, "", 0))

    @staticmethod
    def _see_page(cookie: tuple[str, str]) -> Response:
        return Response(
            status=303,
            content_type="text/html; charset=utf-8",
            headers=(*_HEADERS, _NO_STORE, ("Location", "/"), cookie),
        )

    # -- what the page loads -----------------------------------------------------------------------------------------

    async def static(self, request: Request) -> Response:
        """GET static/{name}: one of two files."""
        name = request.params["name"]
        if name not in _STATIC:
            raise NotFound("There is no such file")
        data = files("brickless.hub.web").joinpath("static", name).read_bytes()
        return Response(data, content_type=_STATIC[name], headers=(*_HEADERS, ("Cache-Control", "no-cache")))

    async def events(self, request: Request) -> Response:
        """GET events: rows as they change, and when devices called."""
        account = await self._account(request)
        if account is None:
            raise Forbidden("Sign in first")
        return Response(
            self._stream(request, account), content_type="text/event-stream", headers=(*_HEADERS, _NO_STORE)
        )

    async def _stream(self, request: Request, account: Account) -> AsyncGenerator[bytes, None]:
        gone = asyncio.create_task(request.gone())
        try:
            with self._subscribed(account.prn) as queue:
                # What changed while nobody listened: the whole list once, then only what changes.
                rows = await self._dashboard.rows(account)
                known = {row.id for row in rows}
                for row in rows:
                    yield self._row_event(row)
                async for event in self._changes(account, queue, gone, known):
                    yield event
        finally:
            gone.cancel()

    async def _changes(
        self, account: Account, queue: asyncio.Queue[str | None], gone: asyncio.Task[None], known: set[str]
    ) -> AsyncGenerator[bytes, None]:
        while True:
            waiting = asyncio.create_task(queue.get())
            done, _ = await asyncio.wait({waiting, gone}, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if waiting not in done:
                waiting.cancel()
            if gone in done:
                return
            if waiting not in done:
                yield _event("seen", self._dashboard.seen_lately(known))
                continue
            changed = waiting.result()
            if changed is None:
                return
            async for event in self._changed_rows(account, changed, known):
                yield event

    async def _changed_rows(self, account: Account, changed: str, known: set[str]) -> AsyncGenerator[bytes, None]:
        rows = await self._dashboard.rows(account, changed or None)
        if changed and not rows:
            known.discard(changed)
            yield _event("gone", {"id": changed})
        for row in rows:
            known.add(row.id)
            yield self._row_event(row)

    def _row_event(self, row: Row) -> bytes:
        html = self._templates.get_template("row.html").render(row=row)
        return _event("row", {"id": row.id, "html": html})


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
