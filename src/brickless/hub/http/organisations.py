"""The routes of /orgs: organisations, members, invitations, and the token with which a member acts."""

from __future__ import annotations

from collections.abc import Callable

from brickless.hub.domain.jsontext import text_field
from brickless.hub.domain.values import Account, Invitation, Membership
from brickless.hub.http import encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route, Service
from brickless.hub.services.auth import Auth
from brickless.hub.services.organisations import Organisations

_MAX_BODY_BYTES = 16 * 1024


def _org(value: Account, role: str) -> dict[str, object]:
    return {"nick": value.nick, "prn": value.prn, "role": role, "time-created": encoding.rfc3339(value.created_ms)}


def _member(value: Membership) -> dict[str, object]:
    return {
        "nick": value.account_nick,
        "prn": value.account,
        "role": value.role,
        "time-created": encoding.rfc3339(value.created_ms),
    }


def _invitation(value: Invitation) -> dict[str, object]:
    return {
        "id": value.id,
        "email": value.email,
        "role": value.role,
        "inviter": value.inviter,
        "time-created": encoding.rfc3339(value.created_ms),
        "expire-at": encoding.rfc3339(value.expires_ms),
    }


class OrganisationRoutes:
    """Handlers of /orgs."""

    def __init__(self, organisations: Organisations, auth: Auth, base_url: Callable[[Request], str]) -> None:
        self._organisations = organisations
        self._auth = auth
        self._base_url = base_url

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("POST", "", self.create, summary="Make an organisation; the caller is its owner"),
            Route("GET", "", self.mine, summary="The caller's organisations and roles"),
            Route("POST", "accept", self.accept, summary="Accept an invitation"),
            Route("GET", "{org}", self.get, summary="One organisation"),
            Route("DELETE", "{org}", self.dissolve, summary="Remove an organisation that owns no devices"),
            Route("POST", "{org}/token", self.token, summary="A token with which the caller acts for the organisation"),
            Route("GET", "{org}/members", self.members, summary="Members and their roles"),
            Route("PUT", "{org}/members/{member}", self.set_role, summary="Change a member's role"),
            Route("DELETE", "{org}/members/{member}", self.remove, summary="End a membership"),
            Route("GET", "{org}/invitations", self.invitations, summary="Open invitations"),
            Route("POST", "{org}/invitations", self.invite, summary="Invite somebody by e-mail"),
            Route("DELETE", "{org}/invitations/{id}", self.revoke, summary="Withdraw an invitation"),
            Route("PUT", "{org}/devices/{id}", self.give, summary="Give one's own device to the organisation"),
        )
        return Service("/orgs/", routes)

    async def create(self, request: Request) -> Response:
        """POST /orgs/."""
        body = await request.json_object(_MAX_BODY_BYTES)
        return ok(_org(await self._organisations.create(request.caller, text_field(body, "nick")), "owner"))

    async def mine(self, request: Request) -> Response:
        """GET /orgs/."""
        found = await self._organisations.mine(request.caller)
        return ok([{"nick": value.org_nick, "prn": value.org, "role": value.role} for value in found])

    async def accept(self, request: Request) -> Response:
        """POST /orgs/accept."""
        body = await request.json_object(_MAX_BODY_BYTES)
        value = await self._organisations.accept(request.caller, text_field(body, "token"))
        return ok({"nick": value.org_nick, "prn": value.org, "role": value.role})

    async def get(self, request: Request) -> Response:
        """GET /orgs/{org}."""
        return ok(_org(*await self._organisations.get(request.caller, request.params["org"])))

    async def dissolve(self, request: Request) -> Response:
        """DELETE /orgs/{org}."""
        await self._organisations.dissolve(request.caller, request.params["org"])
        return ok({})

    async def token(self, request: Request) -> Response:
        """POST /orgs/{org}/token."""
        return ok({"token": await self._auth.act_for(request.caller, request.params["org"], request.token)})

    async def members(self, request: Request) -> Response:
        """GET /orgs/{org}/members."""
        return ok(
            [_member(value) for value in await self._organisations.members(request.caller, request.params["org"])]
        )

    async def set_role(self, request: Request) -> Response:
        """PUT /orgs/{org}/members/{member}."""
        role = text_field(await request.json_object(_MAX_BODY_BYTES), "role")
        await self._organisations.set_role(request.caller, request.params["org"], request.params["member"], role)
        return ok({"nick": request.params["member"], "role": role})

    async def remove(self, request: Request) -> Response:
        """DELETE /orgs/{org}/members/{member}."""
        await self._organisations.remove(request.caller, request.params["org"], request.params["member"])
        return ok({})

    async def invitations(self, request: Request) -> Response:
        """GET /orgs/{org}/invitations."""
        found = await self._organisations.invitations(request.caller, request.params["org"])
        return ok([_invitation(value) for value in found])

    async def invite(self, request: Request) -> Response:
        """POST /orgs/{org}/invitations: the token is in this answer and in the mail, and nowhere else."""
        body = await request.json_object(_MAX_BODY_BYTES)
        value, token = await self._organisations.invite(
            request.caller,
            request.params["org"],
            text_field(body, "email"),
            text_field(body, "role"),
            accept_url=f"{self._base_url(request)}/dash-ui/invitation",
        )
        return ok({**_invitation(value), "token": token})

    async def revoke(self, request: Request) -> Response:
        """DELETE /orgs/{org}/invitations/{id}."""
        await self._organisations.revoke(request.caller, request.params["org"], request.params["id"])
        return ok({})

    async def give(self, request: Request) -> Response:
        """PUT /orgs/{org}/devices/{id}."""
        device = await self._organisations.give(request.caller, request.params["org"], request.params["id"])
        return ok({"id": device.id, "nick": device.nick, "owner": device.owner})
