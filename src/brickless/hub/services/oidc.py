"""Use cases of signing in at an OpenID provider. It never decides by an e-mail address who somebody is.

An account belongs to a provider's subject because it was made for it, or because its owner, signed in, linked the two.
Who comes with the address of an account that he did not link is told to sign in and link it: otherwise whoever
registers an address first would own what its holder does later.
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.domain import oidc
from brickless.hub.domain.errors import Conflict, Forbidden
from brickless.hub.domain.oidc import Person, Provider
from brickless.hub.domain.values import Account
from brickless.hub.services import audit
from brickless.hub.services.auth import Auth
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports_operators import OidcClient

FLOW_LIFE_S = 600
_FLOW = "openid sign-in"
_SECRET_CHARS = 43


class Arrived(NamedTuple):
    """Who came back from the provider, and where he wanted to go."""

    account: Account
    place: str


class Oidc:
    """Signing in elsewhere."""

    def __init__(self, parts: Parts, auth: Auth, provider: Provider, client: OidcClient) -> None:
        self._parts = parts
        self._auth = auth
        self._client = client
        self.provider = provider

    async def begin(self, *, callback: str, place: str, account: Account | None) -> tuple[str, str]:
        """Where the browser goes, and what it keeps until it comes back; `account` is who wants to be linked."""
        word = self._parts.entropy.word
        state, nonce, verifier = word(_SECRET_CHARS), word(_SECRET_CHARS), word(_SECRET_CHARS)
        url = oidc.authorize_url(
            await self._client.endpoints(),
            self.provider,
            callback=callback,
            state=state,
            nonce=nonce,
            verifier=verifier,
        )
        claims: dict[str, object] = {
            "state": state, "nonce": nonce, "verifier": verifier, "place": place,
            "account": account.prn if account else "",
        }  # fmt: skip
        return url, self._parts.signer.sealed(_FLOW, claims, now_s=self._parts.now_s(), life_s=FLOW_LIFE_S)

    async def finish(self, flow: str, *, state: str, code: str, callback: str, address: str) -> Arrived:
        """Who came back. Raises Forbidden for what this browser did not begin, Conflict for a taken link."""
        begun = self._parts.signer.open_sealed(_FLOW, flow)
        if not state or begun.get("state") != state or not code:
            raise Forbidden("This browser did not begin this sign-in; try again")
        claims = await self._client.claims(code, verifier=str(begun["verifier"]), callback=callback)
        person = oidc.person(claims, self.provider, nonce=str(begun["nonce"]))
        account = await self._account(person, str(begun["account"]), address)
        return Arrived(account, str(begun["place"]))

    async def _account(self, person: Person, wants: str, address: str) -> Account:
        async with self._parts.db.read() as session:
            known = await session.identities.account(self.provider.issuer, person.subject)
            found = await session.accounts.by_prn(known or wants) if known or wants else None
        if wants and known and known != wants:
            raise Conflict(f"Somebody else's account is linked with this {self.provider.name} account")
        if found is None:
            found = await self._new(person, address)
        if known is None:
            await self._link(person, found)
        return found

    async def _link(self, person: Person, account: Account) -> None:
        audit.belongs_to(account.prn)
        async with self._parts.db.write() as session:
            now_ms = self._parts.clock.now_ms()
            if not await session.identities.link(self.provider.issuer, person.subject, account.prn, now_ms):
                raise Conflict(f"Another account is linked with this {self.provider.name} account")

    async def _new(self, person: Person, address: str) -> Account:
        parts = self._parts
        if not (self.provider.sign_up or parts.policy.sign_up):
            raise Forbidden("There is no account for you here; ask the hub's operator for one")
        if not person.email:
            raise Forbidden(f"{self.provider.name} did not verify your e-mail address")
        async with parts.db.read() as session:
            taken = await session.accounts.by_email(person.email) is not None
            nick = oidc.nick_of(person)
            if await session.accounts.by_nick(nick) is not None or self._auth.is_reserved(nick):
                nick = f"{nick}-{parts.entropy.word(5)}"
        if taken:
            raise Conflict(
                "There is an account with your e-mail address: sign in with its password, then link it under Settings"
            )
        parts.registrations.check(f"account {address}")
        parts.registrations.spend(f"account {address}")
        # Nobody knows this password: the account signs in at the provider, until its owner sets one by mail.
        return await self._auth.create_account(person.email, nick, parts.entropy.token())
