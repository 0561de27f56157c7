"""Pages of the audit log, of tokens, and of settings: organisations, members, webhooks."""

from __future__ import annotations

from collections.abc import Callable

from brickless.hub.domain import scopes
from brickless.hub.domain.access import Permission, Role
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.filters import page_number
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route
from brickless.hub.services.webhooks import Wanted
from brickless.hub.web.device_pages import qr_image
from brickless.hub.web.site import Site, Visit
from brickless.hub.web.use_cases import UseCases

_OWN, _ANY = Permission.OWN, Permission.ANY
_AUDIT_PAGE = 100
_TOKENS = 1000
_SETTINGS, _TOKENS_PLACE = "/dash-ui/settings", "/dash-ui/tokens"


class SettingsPages:
    """Handlers of `/dash-ui/audit`, `/dash-ui/tokens` and `/dash-ui/settings`."""

    def __init__(self, site: Site, use: UseCases, base_url: Callable[[Request], str]) -> None:
        self._site = site
        self._use = use
        self._base_url = base_url

    def routes(self) -> tuple[Route, ...]:
        """The pages and their forms."""
        get, post, hook = self._site.get, self._site.post, "settings/webhooks/{id}"
        return (
            get("audit", self.audit, Permission.READ),
            get("tokens", self.tokens, _OWN),
            post("tokens/api", self.create_token, _OWN),
            post("tokens/api/{id}/delete", self.delete_token, _OWN),
            post("tokens/join", self.create_join_token, _OWN),
            post("tokens/join/{id}/disable", self.disable_join_token, _OWN),
            get("settings", self.settings, _ANY),
            get("invitation", self.invitation, Permission.SELF),
            post("settings/orgs", self.create_org, Permission.SELF),
            post("settings/accept", self.accept, Permission.SELF),
            post("settings/members/{nick}", self.set_role, _OWN),
            post("settings/members/{nick}/remove", self.remove_member, _ANY),
            post("settings/invitations", self.invite, _OWN),
            post("settings/invitations/{id}/revoke", self.revoke, _OWN),
            post("settings/webhooks", self.create_webhook, _OWN),
            get(hook, self.webhook, _OWN),
            post(f"{hook}/ping", self.ping, _OWN),
            post(f"{hook}/switch", self.switch, _OWN),
            post(f"{hook}/retry", self.retry, _OWN),
            post(f"{hook}/remove", self.remove_webhook, _OWN),
        )

    async def audit(self, request: Request, visit: Visit) -> Response:
        """GET audit."""
        before = page_number(request.field("before"), "before", default=0, maximum=10**12)
        found = await self._use.audit.entries(visit.caller, before=before or None, limit=_AUDIT_PAGE)
        following = f"/dash-ui/audit?before={found[-1].seq}" if found and found[-1].seq > 1 else ""
        verdict = await self._use.audit.verify(visit.caller) if request.field("verify") else None
        return self._site.page(request, "audit.html", visit, entries=found, following=following, verdict=verdict)

    # -- tokens ------------------------------------------------------------------------------------------------------

    async def tokens(self, request: Request, visit: Visit) -> Response:
        """GET tokens."""
        _, api = await self._use.tokens.of(visit.caller, offset=0, limit=_TOKENS)
        join = await self._use.devices.tokens(visit.caller)
        return self._site.page(request, "tokens.html", visit, api=api, join=join, scopes=scopes.BASE)

    def _shown_once(
        self, request: Request, visit: Visit, title: str, text: str, *, secret: str, back: str, qr: str = ""
    ) -> Response:
        return self._site.page(request, "said.html", visit, title=title, text=text, secret=secret, back=back, qr=qr)

    async def create_token(self, request: Request, visit: Visit) -> Response:
        """POST tokens/api."""
        wanted = scopes.PREFIX + visit.fields.get("scope", "")
        token, secret = await self._use.tokens.create(
            visit.caller, name=visit.fields.get("name", "").strip(), kind="SESSION", scope_list=(wanted,),
            expires_ms=None,
        )  # fmt: skip
        text = f"A program logs in with the name {visit.acting_as} and this token as its password."
        return self._shown_once(request, visit, f"The token {token.name}", text, secret=secret, back=_TOKENS_PLACE)

    async def delete_token(self, request: Request, visit: Visit) -> Response:
        """POST tokens/api/{id}/delete."""
        await self._use.tokens.delete(visit.caller, request.params["id"])
        return self._site.see(_TOKENS_PLACE)

    async def create_join_token(self, request: Request, visit: Visit) -> Response:
        """POST tokens/join."""
        token, text = await self._use.devices.create_token(visit.caller, visit.fields.get("nick", "").strip(), {})
        say = "Devices that register with it belong to this account. The QR code holds the same text."
        title = f"The join token {token.nick}"
        return self._shown_once(request, visit, title, say, secret=text, back=_TOKENS_PLACE, qr=qr_image(text))

    async def disable_join_token(self, request: Request, visit: Visit) -> Response:
        """POST tokens/join/{id}/disable."""
        await self._use.devices.disable_token(visit.caller, request.params["id"])
        return self._site.see(_TOKENS_PLACE)

    # -- organisations -----------------------------------------------------------------------------------------------

    async def settings(self, request: Request, visit: Visit) -> Response:
        """GET settings."""
        nick, reads, owns = visit.acting_as, visit.may(Permission.READ), visit.may(_OWN)
        organisations = self._use.organisations
        return self._site.page(
            request, "settings.html", visit, roles=tuple(Role), oidc=self._site.oidc,
            members=await organisations.members(visit.caller, nick) if visit.org and reads else [],
            invitations=await organisations.invitations(visit.caller, nick) if visit.org and owns else [],
            hooks=await self._use.webhooks.of(visit.caller) if owns else [],
            linked=bool(self._site.oidc) and await self._site.dashboard.is_linked(visit.account),
        )  # fmt: skip

    async def invitation(self, request: Request, visit: Visit) -> Response:
        """GET invitation: where the link of a mail leads; the token is behind the `#` and never in a request."""
        return self._site.page(request, "invitation.html", visit)

    async def create_org(self, _request: Request, visit: Visit) -> Response:
        """POST settings/orgs."""
        await self._use.organisations.create(visit.caller, visit.fields.get("nick", "").strip())
        return self._site.see(_SETTINGS)

    async def accept(self, _request: Request, visit: Visit) -> Response:
        """POST settings/accept."""
        await self._use.organisations.accept(visit.caller, visit.fields.get("token", ""))
        return self._site.see(_SETTINGS)

    async def set_role(self, request: Request, visit: Visit) -> Response:
        """POST settings/members/{nick}."""
        role = visit.fields.get("role", "")
        await self._use.organisations.set_role(visit.caller, visit.acting_as, request.params["nick"], role)
        return self._site.see(_SETTINGS)

    async def remove_member(self, request: Request, visit: Visit) -> Response:
        """POST settings/members/{nick}/remove."""
        await self._use.organisations.remove(visit.caller, visit.acting_as, request.params["nick"])
        return self._site.see("/" if request.params["nick"] == visit.account.nick else _SETTINGS)

    async def invite(self, request: Request, visit: Visit) -> Response:
        """POST settings/invitations."""
        email = visit.fields.get("email", "").strip()
        _, token = await self._use.organisations.invite(
            visit.caller, visit.acting_as, email, visit.fields.get("role", ""),
            accept_url=f"{self._base_url(request)}/dash-ui/invitation",
        )  # fmt: skip
        text = f"A mail with a link is on its way to {email}. This is the invitation itself, should the mail get lost."
        return self._shown_once(request, visit, "Invited", text, secret=token, back=_SETTINGS)

    async def revoke(self, request: Request, visit: Visit) -> Response:
        """POST settings/invitations/{id}/revoke."""
        await self._use.organisations.revoke(visit.caller, visit.acting_as, request.params["id"])
        return self._site.see(_SETTINGS)

    # -- webhooks ----------------------------------------------------------------------------------------------------

    async def create_webhook(self, _request: Request, visit: Visit) -> Response:
        """POST settings/webhooks."""
        kinds = tuple(visit.fields.get("kinds", "").replace(",", " ").split())
        made = await self._use.webhooks.create(visit.caller, Wanted(visit.fields.get("url", "").strip(), kinds))
        return self._site.see(f"{_SETTINGS}/webhooks/{made.id}")

    async def webhook(self, request: Request, visit: Visit) -> Response:
        """GET settings/webhooks/{id}."""
        hook = await self._use.webhooks.get(visit.caller, request.params["id"])
        deliveries = await self._use.webhooks.deliveries(visit.caller, hook.id)
        secret = self._use.webhooks.secret(hook)
        return self._site.page(request, "webhook.html", visit, hook=hook, deliveries=deliveries, secret=secret)

    def _see_hook(self, request: Request) -> Response:
        return self._site.see(f"{_SETTINGS}/webhooks/{request.params['id']}")

    async def ping(self, request: Request, visit: Visit) -> Response:
        """POST settings/webhooks/{id}/ping."""
        await self._use.webhooks.ping(visit.caller, request.params["id"])
        return self._see_hook(request)

    async def switch(self, request: Request, visit: Visit) -> Response:
        """POST settings/webhooks/{id}/switch."""
        hook = await self._use.webhooks.get(visit.caller, request.params["id"])
        await self._use.webhooks.change(visit.caller, hook.id, Wanted(enabled=not hook.enabled))
        return self._see_hook(request)

    async def retry(self, request: Request, visit: Visit) -> Response:
        """POST settings/webhooks/{id}/retry."""
        delivery = visit.fields.get("delivery", "")
        if not delivery:
            raise Malformed("The form names no delivery")
        await self._use.webhooks.retry(visit.caller, request.params["id"], delivery)
        return self._see_hook(request)

    async def remove_webhook(self, request: Request, visit: Visit) -> Response:
        """POST settings/webhooks/{id}/remove."""
        await self._use.webhooks.remove(visit.caller, request.params["id"])
        return self._site.see(_SETTINGS)
