"""OAuth for third-party applications: implicit, code with exchange, and PKCE (contract sections 1.6 and 1.7).

What differs from the reference on purpose: tokens expire, a code works once, redirect addresses match letter for
letter, and a token that an application was given cannot give another one to anybody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import NamedTuple
from urllib.parse import urlencode

from brickless.hub.domain import apps as rules
from brickless.hub.domain import identity as identities
from brickless.hub.domain import prn, scopes
from brickless.hub.domain.apps import App
from brickless.hub.domain.errors import Forbidden, Malformed, Unauthenticated
from brickless.hub.domain.values import Account, CallerType, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.ports_apps import Code, Grant

_CODE_LIFE_S = 300
_CODE = "oauth code"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}\Z")
_MAX_COMMENT_CHARS = 400


class Asked(NamedTuple):
    """What an application asks for."""

    service: str
    scopes: str
    redirect_uri: str
    state: str
    response_type: str


class Agreed(NamedTuple):
    """What it gets: a code or a token, and the address that hands it over."""

    secret: str
    redirect_uri: str
    scopes: str


class Consent(NamedTuple):
    """What a person is asked: who wants to act for him, with which scopes, and where the answer goes."""

    name: str
    scopes: tuple[str, ...]
    redirect_uri: str


def _with_query(uri: str, fields: dict[str, str]) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(sorted(fields.items()))}"


class OAuth:
    """Grants of people to applications."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def _may_agree(caller: Identity, claims: dict[str, object], *, users_only: bool) -> None:
        if not caller.is_person or (users_only and caller.type != CallerType.USER) or prn.is_anonymous(caller.prn):
            raise Forbidden("Only people let an application act for them")
        if "aud" in claims or "token_id" in claims or caller.actor:
            raise Forbidden("This token was itself given to a program; log in yourself to agree")

    @staticmethod
    async def _checked(session: Session, caller: Identity, asked: Asked) -> tuple[App, tuple[str, ...], str]:
        app = await session.apps.find(asked.service) if asked.service else None
        if app is None:
            raise Malformed("There is no such application")
        words = rules.granted(app, asked.scopes)
        if scopes.ALL not in caller.scopes and not caller.scopes.issuperset(words):
            raise Forbidden("Nobody can grant scopes that he has not")
        return app, words, rules.redirect_uri(app, asked.redirect_uri)

    async def consent(self, caller: Identity, asked: Asked, pkce: str) -> Consent:
        """What the page says on which a person agrees; nothing is agreed yet. Raises what agreeing would raise."""
        self._may_agree(caller, {}, users_only=True)
        async with self._parts.db.read() as session:
            if not pkce:
                app, words, uri = await self._checked(session, caller, asked)
                return Consent(app.name or app.nick, words, uri)
            code = await self._open_code(session, pkce)
            known = await session.apps.find(code.client)
        name = (known.name or known.nick) if known is not None else f"a program that calls itself {code.client!r}"
        return Consent(name, tuple(code.scope.split()), code.redirect_uri)

    async def _open_code(self, session: Session, code_id: str) -> Code:
        code = await session.authorizations.code(code_id)
        if code is None or code.expires_ms <= self._parts.clock.now_ms():
            raise Malformed("Authorization code is invalid or expired")
        return code

    @staticmethod
    def refused(redirect_uri: str, state: str) -> str:
        """Where a person goes who did not agree."""
        return _with_query(redirect_uri, {"error": "access_denied", "state": state})

    async def implicit(self, caller: Identity, claims: dict[str, object], asked: Asked) -> Agreed:
        """POST /auth/authorize: a token at once, in the fragment of the redirect."""
        self._may_agree(caller, claims, users_only=False)
        async with self._parts.db.write() as session:
            app, words, uri = await self._checked(session, caller, asked)
            token = await self._grant(session, app.prn, caller.prn, caller.nick, " ".join(words), "", caller)
        fields = {
            "access_token": token,
            "expires_in": str(self._parts.policy.token_life_s),
            "scope": " ".join(words),
            "state": asked.state,
            "token_type": "bearer",
        }
        return Agreed(token, f"{uri}#{urlencode(sorted(fields.items()))}", " ".join(words))

    async def code(self, caller: Identity, claims: dict[str, object], asked: Asked, pkce: str) -> Agreed:
        """POST /auth/code: a code for the application; with the id of a PKCE state, that state's own."""
        self._may_agree(caller, claims, users_only=True)
        if pkce:
            return await self._agree_pkce(caller, asked, pkce)
        parts, now_s = self._parts, self._parts.now_s()
        async with parts.db.write() as session:
            app, words, uri = await self._checked(session, caller, asked)
            if app.type == "public" and asked.response_type == "code":
                raise Malformed("A public application cannot keep a secret: it needs PKCE, or the implicit flow")
            audit.named(app=app.prn, account=caller.prn)
            code_id = parts.entropy.word(32)
            scope = " ".join(words)
            await session.authorizations.add_code(
                Code(code_id, app.prn, uri, "", scope, caller.prn, (now_s + _CODE_LIFE_S) * 1000)
            )
        sealed: dict[str, object] = {
            "jti": code_id,
            "approver_prn": caller.prn,
            "approver_nick": caller.nick,
            "approver_type": caller.type,
            "approver_roles": caller.role,
            "service": app.prn,
            "scopes": scope,
        }
        code = parts.signer.sealed(_CODE, sealed, now_s=now_s, life_s=_CODE_LIFE_S)
        return Agreed(code, _with_query(uri, {"code": code, "state": asked.state}), scope)

    async def exchange(self, caller: Identity, code: str, comment: str) -> tuple[str, str]:
        """POST /auth/token by the application itself: a token of the approver, and its scopes. A code works once."""
        if caller.type != CallerType.SERVICE:
            raise Unauthenticated
        try:
            claims = self._parts.signer.open_sealed(_CODE, code)
        except Forbidden as error:
            raise Unauthenticated(detail="the code is wrong or over") from error
        if claims["service"] != caller.prn:
            raise Unauthenticated(detail="the code is for another application")
        async with self._parts.db.write() as session:
            taken = await session.authorizations.take_code(str(claims["jti"]))
            owner = await session.accounts.by_prn(str(claims["approver_prn"]))
            if taken is None or owner is None or await session.apps.find(caller.prn) is None:
                raise Unauthenticated(detail="the code was used, or its approver or application is gone")
            comment = comment[:_MAX_COMMENT_CHARS]
            token = await self._grant(session, caller.prn, owner.prn, owner.nick, taken.scope, comment, owner)
        return token, taken.scope

    async def _grant(
        self, session: Session, client: str, owner: str, nick: str, scope: str, comment: str, who: Identity | Account
    ) -> str:
        """Write a grant down and make a token of it."""
        parts = self._parts
        audit.named(app=client, account=owner)
        grant = Grant(parts.entropy.record_id(), client, owner, comment, scope, parts.clock.now_ms())
        await session.authorizations.add_grant(grant)
        claims: dict[str, object] = {
            "id": owner,
            "nick": nick,
            "prn": owner,
            "type": who.type,
            "roles": "user" if who.type == CallerType.USER else "session",
            "scopes": scope,
            "aud": client,
            "token_id": grant.id,
        }
        life_s = parts.policy.token_life_s
        return parts.signer.bearer(identities.lifetime(claims, now_s=parts.now_s(), life_s=life_s))

    async def still_granted(self, grant_id: str) -> bool:
        """Whether what was granted may be refreshed: the application is still there."""
        async with self._parts.db.read() as session:
            grant = await session.authorizations.grant(grant_id)
            return grant is not None and await session.apps.find(grant.client) is not None

    # -- PKCE --------------------------------------------------------------------------------------------------------

    async def begin(self, fields: dict[str, str]) -> Code:
        """GET /auth/oauth/authorize: remember for five minutes what a client that holds a verifier asks for."""
        client, uri = fields.get("client_id", ""), fields.get("redirect_uri", "")
        challenge, method = fields.get("code_challenge", ""), fields.get("code_challenge_method", "")
        if not (client and uri and challenge and method):
            raise Malformed("Missing required PKCE parameters")
        if method != "S256" or not _CHALLENGE.match(challenge):
            raise Malformed("Unsupported code challenge method")
        if fields.get("response_type", "code") != "code":
            raise Malformed("The response_type must be code")
        parts = self._parts
        async with parts.db.write() as session:
            app = await session.apps.find(client)
            if app is not None:
                uri, scope = rules.redirect_uri(app, uri), fields.get("scope", "")
                rules.granted(app, scope)
            elif rules.is_loopback(uri):
                # A command-line client needs no registration: the code only ever reaches its user's own machine.
                scope = " ".join(scopes.expand(fields.get("scope", "")) or (scopes.ALL,))
            else:
                raise Malformed("There is no such application")
            client = app.prn if app is not None else client[:200]
            code = Code(parts.entropy.word(40), client, uri, challenge, scope, "", (parts.now_s() + 300) * 1000)
            audit.named(app=client)
            await session.authorizations.add_code(code)
        return code

    async def _agree_pkce(self, caller: Identity, asked: Asked, code_id: str) -> Agreed:
        async with self._parts.db.write() as session:
            code = await self._open_code(session, code_id)
            words = frozenset(code.scope.split())
            if scopes.ALL not in caller.scopes and not caller.scopes.issuperset(words):
                raise Forbidden("Nobody can grant scopes that he has not")
            audit.named(app=code.client, account=caller.prn)
            if not await session.authorizations.agree(code_id, caller.prn):
                raise Malformed("Authorization code already used or expired")
        return Agreed(code_id, _with_query(code.redirect_uri, {"code": code_id, "state": asked.state}), code.scope)

    async def redeem(self, fields: dict[str, str]) -> str:
        """POST /auth/oauth/token: a token for whoever proves that the code is his. Whatever happens, the code is over.

        Raises Malformed with the sentences that clients know.
        """
        if fields["grant_type"] != "authorization_code":
            raise Malformed("The grant type is not supported")
        verifier = fields["code_verifier"]
        parts = self._parts
        async with parts.db.write() as session:
            code = await session.authorizations.take_code(fields["access-code"])
            owner = await session.accounts.by_prn(code.account) if code is not None and code.account else None
            if code is not None:
                audit.about(code.account, f"app={code.client} account={code.account}")
        if code is None or not code.challenge or code.expires_ms <= parts.clock.now_ms():
            raise Malformed("Authorization code is invalid or expired")
        if owner is None:
            raise Malformed("Authorization code already used or expired")
        if fields["redirect_uri"] != code.redirect_uri:
            raise Malformed("Provided redirect_uri does not match the one in the authorization request")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode(errors="replace")).digest()).rstrip(b"=")
        if not _VERIFIER.match(verifier) or not hmac.compare_digest(digest, code.challenge.encode()):
            raise Malformed("Code verifier is invalid")
        claims = identities.account_claims(owner, owner.nick, tuple(code.scope.split()))
        life_s = parts.policy.anonymous_token_life_s
        return parts.signer.bearer(identities.lifetime(claims, now_s=parts.now_s(), life_s=life_s))
