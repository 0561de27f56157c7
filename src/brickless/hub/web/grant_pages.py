"""Pages that applications and mails send people to: agreeing that an application acts for them, and a new password.

`/oauth2/authorize` and `/reset_password` are the wire's addresses (contract sections 1.5 to 1.7).
"""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import urlsplit

from brickless.hub.domain import scopes
from brickless.hub.domain.errors import Malformed, Refusal
from brickless.hub.http.errors import STATUS
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route, Service
from brickless.hub.services.auth import Auth
from brickless.hub.services.oauth import Asked, Consent, OAuth
from brickless.hub.web.site import HEADERS, HTML, NO_STORE, Site, Visit, identity

#: What the address may say, and the names that clients use for the same.
_FIELDS = ("auth_code", "client_id", "service", "scope", "scopes", "redirect_uri", "state", "response_type")
_MAX_CHARS = 4000
_POLICY = "Content-Security-Policy"


def _asked(fields: dict[str, str]) -> Asked:
    return Asked(
        service=fields.get("service") or fields.get("client_id", ""),
        scopes=fields.get("scopes") or fields.get("scope", ""),
        redirect_uri=fields.get("redirect_uri", ""),
        state=fields.get("state", ""),
        response_type=fields.get("response_type", "") or "code",
    )


def _known(fields: dict[str, str]) -> dict[str, str]:
    found = {name: fields[name] for name in _FIELDS if fields.get(name)}
    if any(len(value) > _MAX_CHARS for value in found.values()):
        raise Malformed("The address that the application made is too long")
    return found


class GrantPages:
    """Handlers."""

    def __init__(self, site: Site, oauth: OAuth, auth: Auth) -> None:
        self._site = site
        self._oauth = oauth
        self._auth = auth

    def routes(self) -> tuple[Route, ...]:
        """The routes below `/dash-ui/`, where people are signed in."""
        return self._site.get("grant", self.grant), self._site.post("grant", self.answer)

    def services(self) -> tuple[Service, ...]:
        """The addresses that others know."""
        reset = (
            Route("GET", "", self.reset, public=True),
            Route("POST", "", self.set_password, public=True),
            Route("GET", "reset.js", self.script, public=True),
        )
        return (
            Service("/oauth2/", (Route("GET", "authorize", self.authorize, public=True),), bearer=False),
            Service("/reset_password/", reset, bearer=False),
        )

    async def authorize(self, request: Request) -> Response:
        """GET /oauth2/authorize: on to the page where people are signed in, with the same questions."""
        return self._site.see(f"/dash-ui/grant?{request.query_string.decode('latin-1')}")

    async def grant(self, request: Request, visit: Visit) -> Response:
        """GET grant: what the application wants."""
        fields = _known(dict(request.fields))
        consent = await self._oauth.consent(identity(visit.account, None), _asked(fields), fields.get("auth_code", ""))
        described = dict(scopes.BASE)
        wanted = [described.get(word.removeprefix(scopes.PREFIX), word) for word in consent.scopes]
        page = self._site.page(request, "grant.html", visit, consent=consent, wanted=wanted, fields=fields)
        page.headers = tuple(
            (name, _open_to(value, consent) if name == _POLICY else value) for name, value in page.headers
        )
        return page

    async def answer(self, _request: Request, visit: Visit) -> Response:
        """POST grant: yes or no, and back to the application."""
        fields, caller = _known(visit.fields), identity(visit.account, None)
        asked, code = _asked(fields), fields.get("auth_code", "")
        if visit.fields.get("answer") != "allow":
            consent = await self._oauth.consent(caller, asked, code)
            return _away(self._oauth.refused(consent.redirect_uri, asked.state))
        if asked.response_type == "token" and not code:
            return _away((await self._oauth.implicit(caller, {}, asked)).redirect_uri)
        return _away((await self._oauth.code(caller, {}, asked, code)).redirect_uri)

    # -- a new password ----------------------------------------------------------------------------------------------

    async def reset(self, request: Request) -> Response:
        """GET /reset_password: a script puts the token into the form; it is behind the `#`, where no log sees it."""
        return self._site.page(request, "reset.html", None, error="", done=False)

    async def set_password(self, request: Request) -> Response:
        """POST /reset_password."""
        try:
            fields = await self._site.form(request)
            await self._auth.set_password(fields.get("token", "").strip(), fields.get("password", ""))
        except Refusal as error:
            status = STATUS[type(error)]
            return self._site.page(request, "reset.html", None, status=status, error=error.message, done=False)
        return self._site.page(request, "reset.html", None, error="", done=True)

    async def script(self, _request: Request) -> Response:
        """GET /reset_password/reset.js."""
        data = files("brickless.hub.web").joinpath("static", "reset.js").read_bytes()
        return Response(data, content_type="text/javascript; charset=utf-8", headers=HEADERS)


def _open_to(policy: str, consent: Consent) -> str:
    """The content policy of a form whose answer leads to the application."""
    parts = urlsplit(consent.redirect_uri)
    return policy.replace("form-action 'self'", f"form-action 'self' {parts.scheme}://{parts.netloc}")


def _away(place: str) -> Response:
    """To an address that the application registered, or on the person's own machine."""
    if not place.isascii() or not place.isprintable():
        raise Malformed("The application's address cannot be opened")
    return Response(status=303, content_type=HTML, headers=(*HEADERS, NO_STORE, ("Location", place)))
