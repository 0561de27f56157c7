"""The OAuth routes of /auth (contract sections 1.6 and 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import text_field
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route
from brickless.hub.services.auth import Auth
from brickless.hub.services.oauth import Asked, OAuth

_MAX_BODY_BYTES = 16 * 1024
_CODE_COOKIE = "pkce_auth_code"
_URI_COOKIE = "pkce_redirect_uri"


class OAuthRoutes:
    """Handlers. Whoever makes /auth puts these routes beside its own."""

    def __init__(self, oauth: OAuth, auth: Auth, base_url: Callable[[Request], str]) -> None:
        self._oauth = oauth
        self._auth = auth
        self._base_url = base_url

    def routes(self) -> tuple[Route, ...]:
        """The routes below /auth."""
        return (
            Route("POST", "authorize", self.authorize, summary="Let an application act at once (implicit flow)"),
            Route("POST", "code", self.code, summary="A code with which an application gets a token"),
            Route("POST", "token", self.token, summary="Exchange a code, by the application itself"),
            Route("GET", "oauth/authorize", self.begin, public=True, summary="Begin an authorization with PKCE"),
            Route("POST", "oauth/token", self.redeem, public=True, summary="Exchange a PKCE code"),
        )

    @staticmethod
    async def _asked(request: Request) -> tuple[Asked, str]:
        body = await request.json_object(_MAX_BODY_BYTES)
        names = ("service", "scopes", "redirect_uri", "state", "response_type")
        asked = Asked(*(text_field(body, name, max_chars=4000) for name in names))
        return asked, text_field(body, "auth_code", max_chars=64)

    async def authorize(self, request: Request) -> Response:
        """POST /auth/authorize."""
        asked, _ = await self._asked(request)
        agreed = await self._oauth.implicit(request.caller, self._auth.claims(request.token), asked)
        return ok(
            {
                "token": agreed.secret,
                "redirect_uri": agreed.redirect_uri,
                "token_type": "bearer",
                "scopes": agreed.scopes,
            }
        )

    async def code(self, request: Request) -> Response:
        """POST /auth/code."""
        asked, auth_code = await self._asked(request)
        from_cookie = "" if auth_code or asked.service else _cookie(request, _CODE_COOKIE)
        pkce = auth_code or from_cookie
        agreed = await self._oauth.code(request.caller, self._auth.claims(request.token), asked, pkce)
        over = tuple(_set_cookie(request, name, "", 0) for name in (_CODE_COOKIE, _URI_COOKIE)) if from_cookie else ()
        response = ok({"code": agreed.secret, "scopes": agreed.scopes, "redirect_uri": agreed.redirect_uri})
        response.headers = over
        return response

    async def token(self, request: Request) -> Response:
        """POST /auth/token."""
        body = await request.json_object(_MAX_BODY_BYTES)
        code, comment = text_field(body, "access-code", max_chars=4000), text_field(body, "comment", max_chars=4000)
        token, granted = await self._oauth.exchange(request.caller, code, comment)
        return ok({"token": token, "token_type": "bearer", "scopes": granted})

    async def begin(self, request: Request) -> Response:
        """GET /auth/oauth/authorize: on to the page where a person agrees."""
        fields = dict(request.fields)
        code = await self._oauth.begin(fields)
        shown = {
            "auth_code": code.id,
            "client_id": code.client,
            "redirect_uri": code.redirect_uri,
            "response_type": "code",
            "scope": code.scope,
            "state": fields.get("state", "")[:1000],
        }
        cookies = (
            _set_cookie(request, _CODE_COOKIE, code.id, 300),
            _set_cookie(request, _URI_COOKIE, urlencode({"": code.redirect_uri})[1:], 300),
        )
        target = f"{self._base_url(request)}/oauth2/authorize?{urlencode(shown)}"
        return Response(status=307, headers=(("Location", target), *cookies))

    async def redeem(self, request: Request) -> Response:
        """POST /auth/oauth/token."""
        body = await request.json_object(_MAX_BODY_BYTES)
        names = ("grant_type", "access-code", "code_verifier", "redirect_uri", "client_id")
        try:
            fields = {name: text_field(body, name, max_chars=4000) for name in names}
        except Malformed as error:
            raise Malformed("Invalid request payload") from error
        if not fields["access-code"] or not fields["code_verifier"]:
            raise Malformed("Invalid request payload")
        return ok({"token": await self._oauth.redeem(fields), "token_type": "bearer"})


def _cookie(request: Request, name: str) -> str:
    try:
        found = SimpleCookie(request.header("cookie") or "").get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _set_cookie(request: Request, name: str, value: str, life_s: int) -> tuple[str, str]:
    secure = "; Secure" if request.scheme == "https" else ""
    return "Set-Cookie", f"{name}={value}; Max-Age={life_s}; Path=/; HttpOnly; SameSite=Lax{secure}"
