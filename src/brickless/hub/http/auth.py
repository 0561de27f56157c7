"""The routes of /auth (contract section 1)."""

from __future__ import annotations

from collections.abc import Callable

from brickless.hub.domain import jsontext
from brickless.hub.domain.errors import Forbidden, LoginFailed, Malformed, Unauthenticated
from brickless.hub.domain.jsontext import text_field
from brickless.hub.http import encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route, Service
from brickless.hub.services.auth import Auth

_MAX_LOGIN_BYTES = 16 * 1024


def require_user_agent(request: Request) -> None:
    """Raise Forbidden for clients that are older than the protocol: they send no User-Agent."""
    if not request.header("user-agent"):
        raise Forbidden("Incompatible Client; upgrade pantavisor")


class AuthRoutes:
    """Handlers of /auth. `base_url` tells where a client reaches the hub."""

    def __init__(self, auth: Auth, base_url: Callable[[Request], str], more: tuple[Route, ...] = ()) -> None:
        """`more` are routes of others below /auth."""
        self._more = more
        self._auth = auth
        self._base_url = base_url

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("POST", "login", self.login, public=True, summary="Log in with a name and a password"),
            Route("GET", "login", self.refresh, summary="Exchange a valid token for a fresh one"),
            Route("GET", "auth_status", self.auth_status, summary="The claims of the token"),
            Route("GET", "", self.own, summary="The caller's account"),
            Route("GET", "accounts", self.accounts, summary="The caller's accounts"),
            Route("POST", "accounts", self.register, public=True, summary="Sign up"),
            Route("GET", "verify", self.verify, public=True, summary="Verify an e-mail address"),
            Route("POST", "recover", self.recover, public=True, summary="Ask for a mail that sets a new password"),
            Route("POST", "password", self.password, public=True, summary="Set a password with the mail's token"),
            Route("POST", "sessions", self.session, public=True, summary="A token without an account"),
        )
        return Service("/auth/", (*routes, *self._more))

    async def login(self, request: Request) -> Response:
        """POST /auth/login: nothing but the token in the answer, which a client takes as the last string."""
        require_user_agent(request)
        body = await request.json_object(_MAX_LOGIN_BYTES)
        if not body:
            raise Malformed("A JSON object with username and password is expected")
        try:
            username, password = text_field(body, "username"), text_field(body, "password")
            scope = text_field(body, "scope")
        except Malformed as error:
            raise LoginFailed(detail=error.message) from error
        return ok({"token": await self._auth.login(username, password, scope, address=request.address)})

    async def refresh(self, request: Request) -> Response:
        """GET /auth/login."""
        if not request.token:
            raise Unauthenticated
        return ok({"token": await self._auth.refresh(request.token)})

    async def auth_status(self, request: Request) -> Response:
        """GET auth_status, which five services have: the claims of the caller's token, with sorted keys."""
        claims = sorted(self._auth.claims(request.token).items())
        return Response(jsontext.struct({key: value for key, value in claims if isinstance(value, str | int)}))

    async def own(self, request: Request) -> Response:
        """GET /auth/."""
        return Response(encoding.account(await self._auth.own_account(request.caller)))

    async def accounts(self, request: Request) -> Response:
        """GET /auth/accounts."""
        as_admin = request.field("asadmin") is not None
        found = await self._auth.accounts(request.caller, as_admin=as_admin)
        return Response(jsontext.canonical_array(map(encoding.account, found)))

    async def register(self, request: Request) -> Response:
        """POST /auth/accounts."""
        body = await request.json_object(_MAX_LOGIN_BYTES)
        account = await self._auth.register(
            text_field(body, "email"),
            text_field(body, "nick"),
            text_field(body, "password"),
            address=request.address,
            verify_url=f"{self._base_url(request)}/auth/verify",
            has_id=bool(body.get("id")),
        )
        return Response(encoding.account(account))

    async def verify(self, request: Request) -> Response:
        """GET /auth/verify."""
        account = await self._auth.verify_email(request.field("id") or "", request.field("challenge") or "")
        return Response(encoding.account(account))

    async def recover(self, request: Request) -> Response:
        """POST /auth/recover."""
        body = await request.json_object(_MAX_LOGIN_BYTES)
        reset_url = f"{self._base_url(request)}/reset_password"
        await self._auth.recover(text_field(body, "email"), reset_url=reset_url, address=request.address)
        return Response(b"true")

    async def password(self, request: Request) -> Response:
        """POST /auth/password."""
        body = await request.json_object(_MAX_LOGIN_BYTES)
        await self._auth.set_password(text_field(body, "token", max_chars=4096), text_field(body, "password"))
        return Response(b"true")

    async def session(self, request: Request) -> Response:
        """POST /auth/sessions."""
        await request.body(_MAX_LOGIN_BYTES)
        return ok({"token": self._auth.session_token(address=request.address)})
