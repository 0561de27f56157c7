"""What every page has in common: who looks at it, the form that proves where it was made, headers, errors."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import jinja2

from brickless.hub.domain import access, scopes
from brickless.hub.domain.access import Permission
from brickless.hub.domain.errors import Forbidden, NotFound, RateLimited, Refusal
from brickless.hub.domain.fleet_lists import mood
from brickless.hub.domain.times import rfc3339
from brickless.hub.domain.values import Account, CallerType, Identity, Membership
from brickless.hub.http.errors import STATUS
from brickless.hub.http.messages import Request, Response, parse_query
from brickless.hub.http.router import Route
from brickless.hub.services import audit
from brickless.hub.services.dashboard import SESSION_LIFE_S, Dashboard

SESSION = "brickless_session"
_FORM = "brickless_form"
_MAX_FORM_BYTES = 256 * 1024
STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
NO_STORE = ("Cache-Control", "no-store")
HTML = "text/html; charset=utf-8"


class Visit(NamedTuple):
    """A signed-in person on a page. `caller` acts for himself, or for `org`; `fields` are the form's."""

    account: Account
    caller: Identity
    memberships: tuple[Membership, ...]
    org: Membership | None
    fields: dict[str, str]

    def may(self, *permissions: str) -> bool:
        """Whether the person may do what one of these permissions opens."""
        return access.allows(self.caller, *map(Permission, permissions))

    @property
    def acting_as(self) -> str:
        """Nick of the account whose things are shown."""
        return self.org.org_nick if self.org else self.account.nick


Page = Callable[[Request, Visit], Awaitable[Response]]


def cookies(request: Request) -> dict[str, str]:
    """The request's cookies; none when they do not parse."""
    try:
        return {key: morsel.value for key, morsel in SimpleCookie(request.header("cookie") or "").items()}
    except CookieError:
        return {}


def cookie(request: Request, name: str, value: str, life_s: int, *, same_site: str = "Strict") -> tuple[str, str]:
    """The header that sets a cookie which no script reads."""
    secure = "; Secure" if request.scheme == "https" else ""
    return "Set-Cookie", f"{name}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite={same_site}{secure}"


def identity(account: Account, org: Membership | None) -> Identity:
    """The caller that the services see: the person, or the person in an organisation's name."""
    return Identity(
        login=account.nick,
        nick=org.org_nick if org else account.nick,
        prn=org.org if org else account.prn,
        type=CallerType.USER.value,
        role="user" if org else account.role,
        owner="",
        scopes=frozenset({scopes.ALL}),
        expires_s=0,
        issued_s=0,
        actor=account.prn if org else "",
        member_role=org.role if org else "",
    )


class Site:
    """Renders pages and guards them."""

    def __init__(self, dashboard: Dashboard, *, oidc: str = "") -> None:
        self.dashboard = dashboard
        self.oidc = oidc
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("brickless.hub.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["mood"] = mood
        self._templates.filters["rfc3339"] = rfc3339
        self._templates.filters["path"] = lambda text: quote(str(text), safe="")

    # -- routes ------------------------------------------------------------------------------------------------------

    def get(self, pattern: str, page: Page, *needs: Permission) -> Route:
        """A page that whoever has one of these permissions may see."""
        return Route("GET", pattern, self._guarded(page, needs), public=True)

    def post(self, pattern: str, page: Page, *needs: Permission) -> Route:
        """What a form of ours does, for whoever has one of these permissions."""
        return Route("POST", pattern, self._guarded(page, needs), public=True)

    def _guarded(self, page: Page, needs: tuple[Permission, ...]) -> Callable[[Request], Awaitable[Response]]:
        async def handler(request: Request) -> Response:
            visit = await self.visit(request)
            if visit is None:
                return self.sign_in_form(request, "", 200)
            audit.by(visit.caller)
            try:
                access.require(visit.caller, *needs)
                if request.method == "POST":
                    visit = visit._replace(fields=await self.form(request))
                return await page(request, visit)
            except Refusal as error:
                return self.refused(request, visit, error)

        handler.needs = needs  # type: ignore[attr-defined]  # what a test compares with the roles
        return handler

    # -- who ---------------------------------------------------------------------------------------------------------

    async def visit(self, request: Request) -> Visit | None:
        """Who looks, as the session's cookie says; None when nobody is signed in."""
        session = cookies(request).get(SESSION, "")
        found = await self.dashboard.session(session) if session else None
        if found is None:
            return None
        account, memberships, org = found
        return Visit(account, identity(account, org), tuple(memberships), org, {})

    @staticmethod
    def form_cookie(request: Request) -> str:
        """The browser's form cookie; a new one is remembered on the request, so that page and cookie agree."""
        found = cookies(request).get(_FORM) or request.params.get(_FORM) or secrets.token_urlsafe(16)
        request.params[_FORM] = found
        return found

    async def form(self, request: Request) -> dict[str, str]:
        """The form's fields. Raises Forbidden for one that another site made or sent."""
        origin = request.header("origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise Forbidden("The form was sent from another site")
        fields = dict(parse_query(await request.body(_MAX_FORM_BYTES)))
        self.dashboard.check_form(cookies(request).get(_FORM, ""), fields.get("form", ""))
        return fields

    # -- answers -----------------------------------------------------------------------------------------------------

    def page(
        self, request: Request, template: str, visit: Visit | None, *, status: int = 200, **values: object
    ) -> Response:
        """A page from its template."""
        text = self._templates.get_template(template).render(
            visit=visit, form_token=self.dashboard.form_token(self.form_cookie(request)), here=request.path, **values
        )
        form = cookie(request, _FORM, self.form_cookie(request), SESSION_LIFE_S)
        return Response(text.encode(), status=status, content_type=HTML, headers=(*HEADERS, NO_STORE, form))

    def fragment(self, template: str, **values: object) -> str:
        """A part of a page."""
        return self._templates.get_template(template).render(**values)

    def refused(self, request: Request, visit: Visit, error: Refusal) -> Response:
        """The page that says what was refused, and why."""
        status = STATUS[type(error)]
        return self.page(request, "refused.html", visit, status=status, message=error.message, code=status)

    def sign_in_form(self, request: Request, error: str, status: int, name: str = "") -> Response:
        """The form that signs in."""
        values = {"error": error, "name": name, "oidc": self.oidc, "next": self.next_of(request)}
        return self.page(request, "sign_in.html", None, status=status, **values)

    @staticmethod
    def next_of(request: Request) -> str:
        """Where a person wanted to go, when it is one of our pages."""
        if request.method != "GET" or not request.path.startswith("/dash-ui/"):
            return "/"
        query = request.query_string.decode("latin-1")
        return request.path + (f"?{query}" if query else "")

    @staticmethod
    def see(place: str, *more: tuple[str, str]) -> Response:
        """Go and look at another of our pages."""
        safe = place if place.startswith("/") and not place.startswith(("//", "/\\")) and place.isprintable() else "/"
        where = ("Location", quote(safe, safe="/?&=#%+,:!*()-._~;@$'"))
        return Response(status=303, content_type=HTML, headers=(*HEADERS, NO_STORE, where, *more))

    # -- signing in and out ------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        """POST sign-in."""
        name = ""
        try:
            fields = await self.form(request)
            name = fields.get("name", "")
            session = await self.dashboard.sign_in(name, fields.get("password", ""), address=request.address)
        except RateLimited as error:
            again = f"Too many attempts. Try again in {error.retry_after_s} seconds."
            return self.sign_in_form(request, again, 429, name)
        except Refusal as error:
            status = STATUS[type(error)]
            message = "Unknown name or wrong password." if status == 401 else error.message
            return self.sign_in_form(request, message, status, name)
        return self.see(fields.get("next") or "/", cookie(request, SESSION, session, SESSION_LIFE_S))

    async def sign_out(self, request: Request) -> Response:
        """POST sign-out."""
        try:
            await self.form(request)
        except Refusal as error:
            return self.sign_in_form(request, error.message, 403)
        return self.see("/", cookie(request, SESSION, "", 0))

    async def act(self, request: Request, visit: Visit) -> Response:
        """POST act: go on as oneself, or in an organisation's name."""
        session = self.dashboard.acting(visit.account, visit.memberships, visit.fields.get("org", ""))
        return self.see("/", cookie(request, SESSION, session, SESSION_LIFE_S))

    async def static(self, request: Request) -> Response:
        """GET static/{name}: one of our files."""
        name = request.params["name"]
        if name not in STATIC:
            raise NotFound("There is no such file")
        data = files("brickless.hub.web").joinpath("static", name).read_bytes()
        return Response(data, content_type=STATIC[name], headers=(*HEADERS, ("Cache-Control", "no-cache")))
