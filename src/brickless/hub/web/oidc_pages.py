"""Signing in at an OpenID provider, and linking an account with it."""

from __future__ import annotations

from collections.abc import Callable

from brickless.hub.domain.errors import Forbidden, Refusal
from brickless.hub.http.errors import STATUS
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route
from brickless.hub.services.dashboard import SESSION_LIFE_S
from brickless.hub.services.oidc import FLOW_LIFE_S, Oidc
from brickless.hub.web.site import SESSION, Site, cookie, cookies

_FLOW = "brickless_oidc"
_CALLBACK = "/dash-ui/oidc/callback"


class OidcPages:
    """Handlers of `/dash-ui/oidc`."""

    def __init__(self, site: Site, oidc: Oidc, base_url: Callable[[Request], str]) -> None:
        self._site = site
        self._oidc = oidc
        self._base_url = base_url

    def routes(self) -> tuple[Route, ...]:
        """Going there and coming back."""
        return (
            Route("POST", "oidc/start", self.start, public=True),
            Route("GET", "oidc/callback", self.callback, public=True),
        )

    def _callback(self, request: Request) -> str:
        return f"{self._base_url(request)}{_CALLBACK}"

    async def start(self, request: Request) -> Response:
        """POST oidc/start: a page that leads to the provider. No redirect: a form of ours leads to no other site."""
        try:
            fields = await self._site.form(request)
            visit = await self._site.visit(request)
            url, flow = await self._oidc.begin(
                callback=self._callback(request),
                place=fields.get("next") or "/",
                account=visit.account if visit else None,
            )
        except Refusal as error:
            return self._site.sign_in_form(request, error.message, STATUS[type(error)])
        # Lax, because the provider's answer is a navigation from another site.
        kept = cookie(request, _FLOW, flow, FLOW_LIFE_S, same_site="Lax")
        return self._leading(request, url, f"On to {self._oidc.provider.name}", kept)

    def _leading(self, request: Request, place: str, title: str, *cookies_set: tuple[str, str]) -> Response:
        page = self._site.page(request, "leading.html", None, title=title, place=place)
        page.headers = (*page.headers, *cookies_set)
        return page

    async def callback(self, request: Request) -> Response:
        """GET oidc/callback: the provider's answer.

        The session's cookie goes only with navigations that begin here, so the browser is led on by a page of ours.
        """
        gone = cookie(request, _FLOW, "", 0, same_site="Lax")
        try:
            if request.field("error"):
                raise Forbidden(f"{self._oidc.provider.name} said: {(request.field('error') or '')[:100]}")
            arrived = await self._oidc.finish(
                cookies(request).get(_FLOW, ""),
                state=request.field("state") or "",
                code=request.field("code") or "",
                callback=self._callback(request),
                address=request.address,
            )
        except Refusal as error:
            return self._site.sign_in_form(request, error.message, STATUS[type(error)])
        session = cookie(request, SESSION, self._site.dashboard.session_of(arrived.account.prn), SESSION_LIFE_S)
        place = dict(self._site.see(arrived.place).headers)["Location"]
        return self._leading(request, place, "Signed in", session, gone)
