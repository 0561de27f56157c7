"""Use cases of accounts and tokens: login, refresh, registration, verification, recovery (contract section 1)."""

from __future__ import annotations

import re
from dataclasses import replace

from brickless.hub.domain import identity as identities
from brickless.hub.domain import prn, scopes
from brickless.hub.domain.errors import Forbidden, LoginFailed, Malformed, NotFound, Precondition, Unauthenticated
from brickless.hub.domain.values import Account, CallerType, Identity
from brickless.hub.services import audit
from brickless.hub.services.apps import Apps
from brickless.hub.services.oauth import OAuth
from brickless.hub.services.parts import Parts
from brickless.hub.services.tokens import ApiTokens

_EMAIL = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9.-]{1,190}\Z")
_NICK = re.compile(r"[a-zA-Z0-9_\-+%]{3,23}\Z")
MAX_PASSWORD_CHARS = 256
#: First segments of the hub's own addresses; `/<nick>/<device>/.pvrremote` must never be one of them.
RESERVED_NICKS = frozenset(
    {
        "auth", "objects", "devices", "trails", "plog", "logs", "healthz", "dash", "subscriptions", "metrics", "apps",
        "profiles", "dash-ui", "features", "oauth2", "reset_password", "orgs", "audit", "events", "webhooks", "fleets",
        "cron", "callbacks", "exports", "tokens", "changes", "local-s3", "swagger", "readyz", "livez", "s3",
    }
)  # fmt: skip
_MAX_NAME_CHARS = 400
_RECOVERY = "password recovery"


class Auth:
    """Who may call, and as whom."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tokens = ApiTokens(parts)
        self._apps = Apps(parts)
        self._oauth = OAuth(parts)

    async def login(self, username: str, password: str, scope: str, *, address: str) -> str:
        """A token for a name and a password. Raises LoginFailed, or RateLimited after too many failures."""
        if not username or not password or len(username) > _MAX_NAME_CHARS or len(password) > MAX_PASSWORD_CHARS:
            raise LoginFailed
        parts = self._parts
        by_name, by_address = f"name {username.partition('==>')[0].lower()}", f"address {address}"
        parts.logins.check(by_name, by_address)
        try:
            claims, life_s = await self._claims(username, password, scope)
        except LoginFailed:
            parts.logins.spend(by_name, by_address)
            raise
        return parts.signer.bearer(identities.lifetime(claims, now_s=parts.now_s(), life_s=life_s))

    async def _claims(self, username: str, password: str, scope: str) -> tuple[dict[str, object], int]:
        policy = self._parts.policy
        if username == prn.ANONYMOUS:
            name = prn.anonymous(self._parts.entropy.record_id())
            return identities.anonymous_claims(name, scopes.anonymous(scope)), policy.anonymous_token_life_s
        granted = scopes.expand(scope) or (scopes.ALL,)
        device_id = prn.device_id(username)
        if device_id is not None:
            return await self._device_claims(device_id, password, granted), policy.token_life_s
        if prn.is_app(username):
            return await self._apps.claims(username, password), policy.token_life_s
        by_token = await self._tokens.claims(username, password)
        if by_token is not None:
            return by_token, policy.anonymous_token_life_s
        name, arrow, other = username.partition("==>")
        if arrow and (by_token := await self._tokens.claims(name, password)) is not None:
            return await self._member_by_token(by_token, other, username), policy.anonymous_token_life_s
        account = await self._account(name, password)
        if arrow and (member := await self._member(account, other, username, granted)) is not None:
            return member, policy.token_life_s
        claims = identities.account_claims(account, username, granted)
        if arrow and account.role == "admin":
            claims["call-as"] = await self._call_as(account, other)
        return claims, policy.token_life_s

    async def _member(
        self, account: Account, org: str, login: str, granted: tuple[str, ...]
    ) -> dict[str, object] | None:
        """The claims of an account that acts for an organisation of which it is a member; None when it is none."""
        async with self._parts.db.read() as session:
            found = await session.accounts.by_nick(org)
            if found is None or await session.organisations.role(found.prn, account.prn) is None:
                return None
        return identities.member_claims(found, account.prn, login, granted)

    async def _member_by_token(self, by_token: dict[str, object], org: str, login: str) -> dict[str, object]:
        """A program with a member's API token: it acts for the organisation with no more than the token's scopes."""
        account = await self._find(str(by_token["prn"]))
        if account is None or account.type == CallerType.ORG:
            raise LoginFailed
        claims = await self._member(account, org, login, tuple(str(by_token["scopes"]).split()))
        if claims is None:
            raise LoginFailed
        return {**claims, "token_id": by_token["token_id"]}

    async def act_for(self, caller: Identity, org: str, token: str) -> str:
        """A token with which a person acts for an organisation, with the scopes that his own has.

        Raises NotFound when he is no member; an outsider cannot tell an organisation from a name that is free.
        """
        account = await self.own_account(caller)
        claims = await self._member(account, org, f"{account.nick}==>{org}", tuple(sorted(caller.scopes)))
        if claims is None:
            raise NotFound("There is no such organisation")
        # What came from an API token ends with it.
        claims.update((key, value) for key, value in self.claims(token).items() if key == "token_id")
        life_s = max(1, min(caller.expires_s - self._parts.now_s(), self._parts.policy.token_life_s))
        issued_s = caller.issued_s or None
        return self._parts.signer.bearer(
            identities.lifetime(claims, now_s=self._parts.now_s(), life_s=life_s, issued_s=issued_s)
        )

    async def _device_claims(self, device_id: str, secret: str, granted: tuple[str, ...]) -> dict[str, object]:
        async with self._parts.db.read() as session:
            device = await session.devices.get(device_id)
        if not await self._parts.secrets.verify(secret, device.secret_hash if device else "") or device is None:
            raise LoginFailed
        return identities.device_claims(device, granted)

    async def _find(self, name: str) -> Account | None:
        async with self._parts.db.read() as session:
            if name.startswith("prn:"):
                return await session.accounts.by_prn(name)
            if _EMAIL.match(name):
                return await session.accounts.by_email(name)
            return await session.accounts.by_nick(name)

    async def _account(self, name: str, password: str) -> Account:
        account = await self._find(name)
        if not await self._parts.secrets.verify(password, account.password_hash if account else ""):
            raise LoginFailed
        if account is None or account.challenge:
            raise LoginFailed(detail="the e-mail address is not verified yet")
        return account

    async def _call_as(self, admin: Account, name: str) -> dict[str, object]:
        device_id = prn.device_id(name)
        if device_id is not None:
            async with self._parts.db.read() as session:
                device = await session.devices.get(device_id)
            if device is None:
                raise LoginFailed
            return {**identities.device_claims(device), "id": f"{admin.prn}==>{device.prn}"}
        account = await self._find(name)
        if account is None:
            raise LoginFailed
        claims = identities.account_claims(account, f"{admin.prn}==>{name}")
        # An organisation has no login of its own: an administrator acts as if it were a person.
        return {**claims, "type": CallerType.USER.value} if account.type == CallerType.ORG else claims

    def verify(self, token: str) -> Identity:
        """Who a bearer token belongs to. Raises Unauthenticated, or Forbidden when it names nobody."""
        return identities.from_claims(self._parts.signer.verify_bearer(token))

    def claims(self, token: str) -> dict[str, object]:
        """The claims that count of a valid token."""
        return identities.effective(self._parts.signer.verify_bearer(token))

    async def refresh(self, token: str) -> str:
        """The same claims for another while.

        Raises Unauthenticated once the refresh window is over, or when the device or API token behind it is gone.
        """
        claims = self._parts.signer.verify_bearer(token)
        issued_s = claims.get("orig_iat")
        now_s = self._parts.now_s()
        if not isinstance(issued_s, int) or isinstance(issued_s, bool):
            raise Unauthenticated("Token is not refreshable")
        if now_s > issued_s + self._parts.policy.token_refresh_window_s:
            raise Unauthenticated
        if not await self._still_there(claims):
            raise Unauthenticated
        life_s = self._parts.policy.token_life_s
        return self._parts.signer.bearer(identities.lifetime(claims, now_s=now_s, life_s=life_s, issued_s=issued_s))

    async def _still_there(self, claims: dict[str, object]) -> bool:
        token_id = claims.get("token_id")
        if isinstance(token_id, str):
            still = self._oauth.still_granted if "aud" in claims else self._tokens.still_valid
            return await still(token_id)
        device_id = prn.device_id(str(claims.get("prn")))
        if device_id is None:
            return True
        async with self._parts.db.read() as session:
            return await session.devices.get(device_id) is not None

    async def own_account(self, caller: Identity) -> Account:
        """The caller's account. Raises NotFound for callers that have none."""
        async with self._parts.db.read() as session:
            account = await session.accounts.by_prn(caller.prn)
        if account is None:
            raise NotFound("There is no account for this caller")
        return account

    async def accounts(self, caller: Identity, *, as_admin: bool) -> list[Account]:
        """The caller's accounts, or all of them for an administrator who asks. Raises Forbidden for others who ask."""
        async with self._parts.db.read() as session:
            if as_admin:
                if caller.role != "admin":
                    raise Forbidden("Only administrators list all accounts")
                return await session.accounts.everyone(10_000)
            account = await session.accounts.by_prn(caller.prn)
        return [account] if account is not None and account.prn.startswith("prn:::accounts:") else []

    async def register(
        self, email: str, nick: str, password: str, *, address: str, verify_url: str, has_id: bool
    ) -> Account:
        """A new account from a sign-up. Raises Precondition for what is missing, malformed or taken."""
        parts = self._parts
        if not parts.policy.sign_up:
            raise Forbidden("This hub does not take sign-ups; ask its operator for an account")
        parts.registrations.check(f"account {address}")
        if has_id:
            raise Precondition("An account's id is given by the hub")
        self._check_account_fields(email, nick, password)
        challenge = parts.entropy.word(15) if parts.policy.verify_email else ""
        account = await self.create_account(email, nick, password, challenge=challenge, verify_url=verify_url)
        parts.registrations.spend(f"account {address}")
        return account

    @staticmethod
    def _check_account_fields(email: str, nick: str, password: str) -> None:
        for value, name in ((email, "email"), (password, "password"), (nick, "nick")):
            if not value:
                raise Precondition(f"Accounts need {'an' if name == 'email' else 'a'} {name}")
        if not _EMAIL.match(email):
            raise Precondition("This is not an e-mail address")
        if nick.lower() in RESERVED_NICKS:
            raise Precondition("This nick is reserved: addresses of the hub begin with it")
        if not _NICK.match(nick):
            raise Precondition("A nick has 3 to 23 characters: letters, digits, '_', '-', '+' and '%'")
        if len(password) > MAX_PASSWORD_CHARS:
            raise Precondition(f"A password has at most {MAX_PASSWORD_CHARS} characters")

    @staticmethod
    def is_reserved(nick: str) -> bool:
        """Whether addresses of the hub begin with this nick."""
        return nick.lower() in RESERVED_NICKS

    async def create_account(
        self,
        email: str,
        nick: str,
        password: str,
        *,
        challenge: str = "",
        verify_url: str = "",
        role: str = "user",
        demo: bool = False,
    ) -> Account:
        """Store a new account, and the mail with its challenge. Raises Precondition when nick or address is taken."""
        parts = self._parts
        self._check_account_fields(email, nick, password)
        record_id, now_ms = parts.entropy.record_id(), parts.clock.now_ms()
        account = Account(
            id=record_id,
            prn=prn.demo_account(nick) if demo else prn.account(record_id),
            nick=nick,
            email=email,
            type=CallerType.USER.value,
            role=role,
            password_hash=await parts.secrets.hash_password(password),
            challenge=challenge,
            meta="{}",
            profile="{}",
            created_ms=now_ms,
            modified_ms=now_ms,
        )
        audit.about(account.prn, f"account={account.nick}")
        async with parts.db.write() as session:
            if not await session.accounts.add(account):
                raise Precondition("Email or Nick already in use")
            if challenge:
                link = f"{verify_url}?id={account.id}&challenge={challenge}"
                await parts.post.post(session, email, "Verify your account", f"Open this address:\n\n{link}\n")
        if challenge:
            await parts.post.hurry()
        return account

    async def verify_email(self, record_id: str, challenge: str) -> Account:
        """Clear a fresh account's challenge. Raises Malformed, Forbidden (unknown) or Precondition (wrong, used)."""
        prn.require_id(record_id)
        async with self._parts.db.write() as session:
            account = await session.accounts.by_id(record_id)
            if account is None:
                raise Forbidden("There is no such account")
            if not challenge or account.challenge != challenge:
                raise Precondition("The challenge is wrong or was used already")
            audit.about(account.prn, f"account={account.nick}")
            account = replace(account, challenge="", modified_ms=self._parts.clock.now_ms())
            await session.accounts.update(account)
        return account

    async def recover(self, email: str, *, reset_url: str, address: str) -> None:
        """Mail a link that sets a new password. An unknown address gets the same answer as a known one."""
        if not email:
            raise Precondition("An e-mail address is needed")
        parts = self._parts
        parts.registrations.check(f"recover {address}")
        parts.registrations.spend(f"recover {address}")
        async with parts.db.read() as session:
            account = await session.accounts.by_email(email)
        if account is None:
            return
        claims: dict[str, object] = {"prn": account.prn, "modified": account.modified_ms}
        token = parts.signer.sealed(_RECOVERY, claims, now_s=parts.now_s(), life_s=parts.policy.recovery_token_life_s)
        text = f"Open this address:\n\n{reset_url}#token={token}\n"
        async with parts.db.write() as session:
            await parts.post.post(session, account.email, "Set a new password", text)
        await parts.post.hurry()

    async def set_password(self, token: str, password: str) -> None:
        """Set a password with a recovery token. Raises Malformed for a bad token or one that was used."""
        if not token or not password or len(password) > MAX_PASSWORD_CHARS:
            raise Malformed("A token and a password are needed")
        parts = self._parts
        try:
            claims = parts.signer.open_sealed(_RECOVERY, token)
        except Forbidden as error:
            raise Malformed("The token is wrong or no longer valid") from error
        password_hash = await parts.secrets.hash_password(password)
        async with parts.db.write() as session:
            account = await session.accounts.by_prn(str(claims["prn"]))
            if account is None:
                raise NotFound("There is no such account")
            audit.about(account.prn, f"account={account.nick}")
            if account.modified_ms != claims["modified"]:
                raise Malformed("The account changed since the mail was sent; ask for another mail")
            # The mail reached its reader, which proves the address; one millisecond more makes the token single-use.
            now_ms = max(parts.clock.now_ms(), account.modified_ms + 1)
            await session.accounts.update(
                replace(account, password_hash=password_hash, challenge="", modified_ms=now_ms)
            )

    def session_token(self, *, address: str) -> str:
        """A token for a visitor without an account, of type SESSION; it owns nothing yet.

        Raises Forbidden where sign-ups are closed: whoever has one may register devices and store objects.
        """
        parts = self._parts
        if not parts.policy.sign_up:
            raise Forbidden("This hub does not take visitors without an account")
        parts.registrations.check(f"session {address}")
        parts.registrations.spend(f"session {address}")
        record_id = parts.entropy.record_id()
        claims: dict[str, object] = {
            "id": f"__SESSION__{record_id}",
            "nick": f"__SESSION__{record_id}",
            "prn": prn.session(record_id),
            "type": CallerType.SESSION.value,
            "roles": "session",
            "scopes": scopes.ALL,
        }
        return parts.signer.bearer(identities.lifetime(claims, now_s=parts.now_s(), life_s=parts.policy.token_life_s))
