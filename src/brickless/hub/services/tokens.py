"""Use cases of personal API tokens (contract section 6.2): for programs that act in a person's name."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import replace

from brickless.hub.domain import prn, scopes
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed
from brickless.hub.domain.values import ApiToken, CallerType, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}\Z")
_BASE = frozenset(scopes.PREFIX + word for word, _ in scopes.BASE)
#: A token is never more than the person who made it: the type decides what a login with it may do.
TYPES = frozenset({CallerType.USER.value, CallerType.SESSION.value})
_YEAR_MS = 365 * 24 * 3600 * 1000
_SECRET_CHARS = 16


def _packed(record_id: str, secret: str) -> str:
    return base64.urlsafe_b64encode(f"{record_id}:{secret}".encode()).decode().rstrip("=")


def unpacked(text: str) -> tuple[str, str] | None:
    """Id and secret in the text of a token; None for every other text."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    record_id, colon, secret = plain.partition(":")
    return (record_id, secret) if colon and prn.is_id(record_id) and secret else None


class ApiTokens:
    """Tokens of people."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def _person(caller: Identity) -> None:
        if caller.type != CallerType.USER:
            raise Forbidden("Only people have API tokens")

    async def create(
        self, caller: Identity, *, name: str, kind: str, scope_list: tuple[str, ...], expires_ms: int | None
    ) -> tuple[ApiToken, str]:
        """A token and its text, which is shown this once. It never has a scope that the caller has not."""
        self._person(caller)
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        given = bool(name)
        name = name or parts.entropy.pet_name("_")
        if not _NAME.match(name):
            raise Malformed("A token's name has 1 to 100 printable characters")
        if kind not in TYPES:
            raise Malformed(f"A token's type is one of {', '.join(sorted(TYPES))}")
        if not scope_list or not _BASE.issuperset(scope_list):
            raise Malformed("A token needs scopes, written as in GET /apps/scopes with their whole name")
        if scopes.ALL not in caller.scopes and not caller.scopes.issuperset(scope_list):
            raise Forbidden("A token cannot have scopes that its maker has not")
        if expires_ms is not None and expires_ms <= now_ms:
            raise Malformed("A token must expire later than now")
        secret = parts.entropy.word(_SECRET_CHARS)
        token = ApiToken(
            id=parts.entropy.record_id(),
            owner=caller.prn,
            name=name,
            type=kind,
            secret_hash=parts.secrets.hash_token(secret),
            scopes=" ".join(scope_list),
            created_ms=now_ms,
            modified_ms=now_ms,
            expires_ms=now_ms + _YEAR_MS if expires_ms is None else expires_ms,
        )
        audit.named(id=token.id, name=name)
        async with parts.db.write() as session:
            if await session.accounts.by_prn(caller.prn) is None:
                raise Forbidden("Only accounts have API tokens")
            added = await session.api_tokens.add(token)
            if not added and not given:  # a pet name met another one: a longer one will not
                token = replace(token, name=f"{name}_{parts.entropy.word(6)}")
                added = await session.api_tokens.add(token)
            if not added:
                raise Conflict("token name is already taken")
        return token, _packed(token.id, secret)

    async def of(self, caller: Identity, *, offset: int, limit: int) -> tuple[int, list[ApiToken]]:
        """How many tokens the caller has, and one page of them."""
        if not caller.is_person:
            raise Forbidden("Only people have API tokens")
        async with self._parts.db.read() as session:
            found = await session.api_tokens.of(caller.prn)
        return len(found), found[offset : offset + limit]

    async def get(self, caller: Identity, record_id: str) -> ApiToken:
        """One token of the caller."""
        self._person(caller)
        async with self._parts.db.read() as session:
            token = await session.api_tokens.get(record_id) if prn.is_id(record_id) else None
        if token is None or token.owner != caller.prn:
            raise Forbidden("There is no such token")
        return token

    async def delete(self, caller: Identity, record_id: str) -> None:
        """Stop a token from working."""
        token = await self.get(caller, record_id)
        async with self._parts.db.write() as session:
            await session.api_tokens.remove(token.id)

    async def still_valid(self, record_id: str) -> bool:
        """Whether what was logged in with this token may go on."""
        async with self._parts.db.read() as session:
            token = await session.api_tokens.get(record_id)
        return token is not None and token.expires_ms > self._parts.clock.now_ms()

    async def claims(self, name: str, text: str) -> dict[str, object] | None:
        """The claims of a login with a token; None when it is none, or not one for this name, or over."""
        pair = unpacked(text)
        if pair is None:
            return None
        async with self._parts.db.read() as session:
            token = await session.api_tokens.get(pair[0])
            owner = await session.accounts.by_prn(token.owner) if token is not None else None
        if token is None or owner is None:
            return None
        if not hmac.compare_digest(token.secret_hash, self._parts.secrets.hash_token(pair[1])):
            return None
        names = {token.name, owner.nick, owner.email, owner.prn}
        if name not in names or token.expires_ms <= self._parts.clock.now_ms():
            return None
        # An organisation's own token acts in its name; every call looks whether it still exists.
        actor = {"actor": prn.api_token(token.id)} if owner.type == CallerType.ORG else {}
        return {
            **actor,
            "id": name,
            "nick": token.name,
            "prn": token.owner,
            "type": token.type,
            "roles": token.type.lower(),
            "scopes": token.scopes,
            "token_id": token.id,
        }
