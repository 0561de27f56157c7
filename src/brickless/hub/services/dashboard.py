"""Sessions of people in browsers, and what keeps their pages live."""

from __future__ import annotations

from collections.abc import Iterable

from brickless.hub.domain import access
from brickless.hub.domain.access import Permission
from brickless.hub.domain.errors import Forbidden, LoginFailed, NotFound
from brickless.hub.domain.events import Cursor, Event
from brickless.hub.domain.values import Account, CallerType, Identity, Membership
from brickless.hub.services.auth import Auth
from brickless.hub.services.parts import Parts

SESSION_LIFE_S = 12 * 3600
_SESSION = "dashboard session"
_FORM = "dashboard form"


class Dashboard:
    """Who is signed in, in whose name, and what happened since he looked."""

    def __init__(self, parts: Parts, auth: Auth) -> None:
        self._parts = parts
        self._auth = auth

    async def sign_in(self, name: str, password: str, *, address: str) -> str:
        """The session's text for a cookie. Raises LoginFailed or RateLimited; only people sign in here."""
        token = await self._auth.login(name, password, "", address=address)
        caller = self._auth.verify(token)
        if caller.type != CallerType.USER or caller.actor or "-" in caller.prn.partition("auth:/anon")[2]:
            raise LoginFailed
        return self.session_of(caller.prn)

    def session_of(self, account: str, org: str = "") -> str:
        """The session of an account, acting for an organisation or for itself; both are PRNs."""
        claims: dict[str, object] = {"prn": account, "org": org}
        return self._parts.signer.sealed(_SESSION, claims, now_s=self._parts.now_s(), life_s=SESSION_LIFE_S)

    def acting(self, account: Account, memberships: Iterable[Membership], org_nick: str) -> str:
        """A session in the organisation's name; an empty nick is oneself. Raises NotFound for one of others."""
        if not org_nick:
            return self.session_of(account.prn)
        for one in memberships:
            if one.org_nick == org_nick:
                return self.session_of(account.prn, one.org)
        raise NotFound("You do not belong to this organisation")

    async def session(self, text: str) -> tuple[Account, list[Membership], Membership | None] | None:
        """Whose session it is, what he belongs to and in whose name he acts with the role of now.

        None when it is over, forged or its account is gone; who left an organisation acts for himself again.
        """
        try:
            claims = self._parts.signer.open_sealed(_SESSION, text)
        except Forbidden:
            return None
        async with self._parts.db.read() as session:
            account = await session.accounts.by_prn(str(claims.get("prn")))
            if account is None or account.type == CallerType.ORG:
                return None
            memberships = await session.organisations.of(account.prn)
        org = next((one for one in memberships if one.org == claims.get("org")), None)
        return account, memberships, org

    def form_token(self, cookie: str) -> str:
        """What a form must send back: it proves that the page which this browser's cookie belongs to made the form."""
        claims: dict[str, object] = {"cookie": cookie}
        return self._parts.signer.sealed(_FORM, claims, now_s=self._parts.now_s(), life_s=SESSION_LIFE_S)

    def check_form(self, cookie: str, token: str) -> None:
        """Raise Forbidden for a form that another site made."""
        if not cookie or self._parts.signer.open_sealed(_FORM, token).get("cookie") != cookie:
            raise Forbidden("This form is too old or was not made here; load the page again")

    async def is_linked(self, account: Account) -> bool:
        """Whether the account signs in at the OpenID provider."""
        async with self._parts.db.read() as session:
            return await session.identities.of(account.prn)

    # -- what keeps pages live ---------------------------------------------------------------------------------------

    async def end_of_events(self) -> Cursor:
        """The place after everything that happened until now."""
        async with self._parts.db.read() as session:
            return await session.events.end()

    async def events_after(self, caller: Identity, cursor: Cursor, *, limit: int) -> list[Event] | None:
        """What happened to the caller's things since; None when he may not see it any more."""
        async with self._parts.db.read() as session:
            if caller.actor:
                role = await session.organisations.role(caller.account, caller.actor)
                if role is None or not access.granted(role, (Permission.READ, Permission.INSTALL)):
                    return None
            return await session.events.after(caller.account, cursor, limit=limit)
