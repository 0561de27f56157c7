"""Use cases of devices: registration, claim, lists, changes, join tokens (contract section 2)."""

from __future__ import annotations

import hmac
import re
from dataclasses import replace
from typing import NamedTuple

from brickless.hub.domain import metas, ownership, prn
from brickless.hub.domain.errors import Conflict, Forbidden, LoginFailed, Malformed, NotFound
from brickless.hub.domain.filters import TextFilter
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.values import CallerType, Device, Identity, JoinToken
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.subscriptions import require_device

_NICK = re.compile(r"[a-zA-Z0-9_\-+%]{1,64}\Z")
_MAX_SECRET_CHARS = 128
UNREGISTERED = "__unregistered__"


class Shown(NamedTuple):
    """A device with what this caller may see of it besides the record: `secret` only when it was just set."""

    device: Device
    secret: str = ""
    challenge: str = ""
    owner_nick: str = ""
    metas: bool = True


class Draft(NamedTuple):
    """What a request says about a device; None means it does not say it."""

    nick: str | None = None
    secret: str | None = None
    public: bool | None = None
    user_meta: dict[str, Value] | None = None
    device_meta: dict[str, Value] | None = None


class Devices:
    """Devices and their owners."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def register(self, caller: Identity | None, auto_token: str | None, draft: Draft, *, address: str) -> Shown:
        """A new device: owned by the caller, by the join token's owner, or by nobody yet.

        Raises Malformed for a bad nick or join token, Conflict when the owner has a device of that nick.
        """
        owner, user_meta, claimed, ovmode = "", {}, True, ""
        if caller is not None:
            if not caller.is_person:
                raise Forbidden("Only people create devices for themselves")
            owner, user_meta = caller.prn, draft.user_meta or {}
        elif auto_token is not None:
            token = await self._enabled_token(auto_token)
            owner, user_meta = token.owner, load_stored(token.default_user_meta)
            ovmode = ownership.of_device(token.ovmode)
        else:
            self._parts.registrations.check(f"device {address}")
            claimed = False
        draft = draft._replace(device_meta={} if caller is not None else draft.device_meta)
        shown = await self._new_device(owner, user_meta, draft, claimed=claimed, ovmode=ovmode)
        if not claimed:
            self._parts.registrations.spend(f"device {address}")
        return shown

    async def _enabled_token(self, text: str) -> JoinToken:
        async with self._parts.db.read() as session:
            token = await session.join_tokens.by_hash(self._parts.secrets.hash_token(text.strip()))
        if token is None or token.disabled:
            raise Malformed("The join token is unknown or disabled")
        return token

    async def _new_device(
        self, owner: str, user_meta: dict[str, Value], draft: Draft, *, claimed: bool, ovmode: str
    ) -> Shown:
        parts = self._parts
        entropy, now_ms = parts.entropy, parts.clock.now_ms()
        if draft.nick:
            self._check_nick(draft.nick)
        secret = draft.secret or entropy.word(15)
        self._check_secret(secret)
        device = Device(
            id=entropy.record_id(),
            nick=draft.nick or (entropy.pet_name("_") if claimed else self._unregistered_nick()),
            owner=owner,
            secret_hash=await parts.secrets.hash_device_secret(secret, generated=not draft.secret),
            challenge="" if claimed else entropy.pet_name("-"),
            public=False,
            user_meta=metas.bounded(user_meta),
            device_meta=metas.bounded(draft.device_meta or {}),
            created_ms=now_ms,
            modified_ms=now_ms,
            ovmode=ovmode,
        )
        audit.about(owner, f"id={device.id}")
        async with parts.db.write() as session:
            if owner:
                await require_device(parts, session, owner)
            added = await session.devices.add(device)
            if not added and not draft.nick:  # a pet name met another one: a longer one will not
                device = replace(device, nick=f"{device.nick}_{entropy.word(6)}")
                added = await session.devices.add(device)
        if not added:
            raise Conflict("device already exists")
        parts.changed(owner, device.id)
        return Shown(device, secret=secret, challenge=device.challenge)

    def _unregistered_nick(self) -> str:
        entropy = self._parts.entropy
        return f"{UNREGISTERED}{entropy.pet_name('_').rpartition('_')[2]}_{entropy.letters(10)}"

    @staticmethod
    def _check_nick(nick: str) -> None:
        if not _NICK.match(nick):
            raise Malformed("A device nick has 1 to 64 characters: letters, digits, '_', '-', '+' and '%'")

    @staticmethod
    def _check_secret(secret: str) -> None:
        if len(secret) > _MAX_SECRET_CHARS:
            raise Malformed(f"A device secret has at most {_MAX_SECRET_CHARS} characters")

    async def find(
        self,
        caller: Identity,
        filters: tuple[TextFilter, ...],
        *,
        owner: str | None,
        owner_nick: str | None,
        offset: int,
        limit: int | None,
    ) -> list[Shown]:
        """The caller's devices, or another account's public ones without what is private in them."""
        async with self._parts.db.read() as session:
            if owner is None and owner_nick is None:
                if not caller.is_person:
                    filters = (*filters, TextFilter("prn", "=", caller.prn))
                found = await session.devices.find(
                    caller.account, filters, public_only=False, offset=offset, limit=limit
                )
                return [Shown(device, challenge=device.challenge) for device in found]
            target = await self._namespace(session, caller, owner, owner_nick)
            found = await session.devices.find(target, filters, public_only=True, offset=offset, limit=limit)
        return [Shown(device, metas=target == caller.account) for device in found]

    @staticmethod
    async def _namespace(session: Session, caller: Identity, owner: str | None, owner_nick: str | None) -> str:
        if owner is not None:
            try:
                prn.parse(owner)
            except Malformed as error:
                raise Forbidden(error.message) from error
            return owner
        if owner_nick is not None:
            account = await session.accounts.by_nick(owner_nick)
            if account is None:
                raise Forbidden("There is no such account")
            return account.prn
        return caller.account

    async def get(
        self, caller: Identity, name: str, *, owner: str | None = None, owner_nick: str | None = None
    ) -> Shown:
        """One device by id, or by nick in the caller's or another account's namespace."""
        async with self._parts.db.read() as session:
            if prn.is_id(name):
                device = await session.devices.get(name)
                if device is None:
                    raise NotFound("There is no such device")
            else:
                namespace = await self._namespace(session, caller, owner, owner_nick)
                device = await session.devices.by_nick(namespace, name)
                if device is None:
                    raise Malformed("There is no device of this nick")
            return await self._shown_to(session, caller, device)

    async def get_by_nicks(self, caller: Identity, user_nick: str, device_nick: str) -> Shown:
        """One device by its owner's nick and its own."""
        if not caller.is_person and not caller.is_device:
            raise Forbidden("Only people and devices look up devices")
        async with self._parts.db.read() as session:
            account = await session.accounts.by_nick(user_nick)
            if account is None:
                raise Forbidden("There is no such account")
            device = await session.devices.by_nick(account.prn, device_nick)
            if device is None:
                raise NotFound("There is no such device")
            return await self._shown_to(session, caller, device)

    async def _shown_to(self, session: Session, caller: Identity, device: Device) -> Shown:
        mine = caller.prn in {device.owner, device.prn}
        if not mine and not device.public:
            raise Forbidden("This device is private")
        owner = await session.accounts.by_prn(device.owner) if device.owner else None
        owner_nick = owner.nick if owner else ""
        if not mine:
            return Shown(device, owner_nick=owner_nick, metas=False)
        if owner is not None and owner.meta != "{}":
            merged = metas.merged_user_meta(load_stored(owner.meta), load_stored(device.user_meta))
            device = replace(device, user_meta=metas.bounded(merged))
        return Shown(device, challenge=device.challenge, owner_nick=owner_nick)

    async def put(self, caller: Identity, device_id: str, draft: Draft, *, challenge: str, address: str) -> Shown:
        """Claim with the right challenge, or change what the caller may change.

        Raises NotFound, Forbidden, Malformed (a nick that is taken) and RateLimited (guessing challenges).
        """
        prn.require_id(device_id)
        parts = self._parts
        limit_keys = (f"claimer {caller.prn}", f"claimed {device_id}", f"address {address}")
        parts.claims.check(*limit_keys)
        secret_hash = await self._new_secret_hash(draft.secret)
        try:
            async with parts.db.write() as session:
                device = await session.devices.get(device_id)
                if device is None:
                    raise NotFound("There is no such device")
                self._check_put(caller, device, draft)
                self._check_challenge(device, challenge)
                changed = self._changed(caller, device, draft, secret_hash)
                if changed.owner != device.owner:
                    await require_device(parts, session, changed.owner)
                updated = await session.devices.update(changed)
                if not updated and not draft.nick and changed.nick != device.nick:
                    # A pet name met another one: a longer one will not.
                    changed = replace(changed, nick=f"{changed.nick}_{parts.entropy.word(6)}")
                    updated = await session.devices.update(changed)
                if not updated:
                    raise Malformed("The nick is taken by another device of this account")
        except LoginFailed as error:
            parts.claims.spend(*limit_keys)
            raise Forbidden("The challenge is wrong") from error
        parts.changed(changed.owner, device_id)
        return Shown(changed, secret=draft.secret or "", challenge=changed.challenge)

    async def _new_secret_hash(self, secret: str | None) -> str | None:
        if secret is None:
            return None
        if not secret:
            raise Forbidden("A device needs a secret")
        self._check_secret(secret)
        return await self._parts.secrets.hash_device_secret(secret, generated=False)

    @staticmethod
    def _check_challenge(device: Device, challenge: str) -> None:
        if device.challenge and not hmac.compare_digest(device.challenge.encode(), challenge.encode()):
            raise LoginFailed

    @staticmethod
    def _check_put(caller: Identity, device: Device, draft: Draft) -> None:
        if caller.is_device:
            if caller.prn != device.prn:
                raise Forbidden("A device changes only itself")
            if draft.public is not None and draft.public != device.public:
                raise Forbidden("Only the owner makes a device public or private")
        elif not caller.is_person or (device.owner and device.owner != caller.prn):
            raise Forbidden("This device belongs to somebody else")

    def _changed(self, caller: Identity, device: Device, draft: Draft, secret_hash: str | None) -> Device:
        if draft.nick:
            self._check_nick(draft.nick)
        changed = replace(
            device,
            nick=draft.nick or device.nick,
            secret_hash=secret_hash or device.secret_hash,
            public=device.public if draft.public is None else draft.public,
            modified_ms=self._parts.clock.now_ms(),
        )
        if caller.is_device:
            if draft.device_meta is not None:
                changed = replace(changed, device_meta=metas.bounded(draft.device_meta))
            return changed
        if draft.user_meta is not None:
            changed = replace(changed, user_meta=metas.bounded(draft.user_meta))
        if device.challenge:
            nick = changed.nick
            if nick.startswith(UNREGISTERED):
                nick = self._parts.entropy.pet_name("_")
            changed = replace(changed, owner=caller.prn, challenge="", nick=nick)
        return changed

    async def rename(self, caller: Identity, device_id: str, nick: str) -> Device:
        """Change the nick; an empty one changes nothing. Raises Conflict when it is taken."""
        async with self._parts.db.write() as session:
            device = await self._own(session, caller, device_id, devices_too=True)
            if not nick:
                return device
            self._check_nick(nick)
            changed = replace(device, nick=nick, modified_ms=self._parts.clock.now_ms())
            if not await session.devices.update(changed):
                raise Conflict("The nick is taken by another device of this account")
        self._parts.changed(device.owner, device_id)
        return changed

    @staticmethod
    async def _own(session: Session, caller: Identity, device_id: str, *, devices_too: bool = False) -> Device:
        prn.require_id(device_id)
        device = await session.devices.get(device_id)
        if device is None:
            raise NotFound("There is no such device")
        if caller.is_device:
            if not devices_too or caller.prn != device.prn:
                raise Forbidden("Only the owner of the device may do this")
        elif not caller.is_person or device.owner != caller.prn:
            raise Forbidden("This device belongs to somebody else")
        return device

    async def set_public(self, caller: Identity, device_id: str, *, public: bool) -> Shown:
        """Make a device, and with it its trail, readable for everybody, or private again."""
        async with self._parts.db.write() as session:
            device = await self._own(session, caller, device_id)
            changed = replace(device, public=public, modified_ms=self._parts.clock.now_ms())
            await session.devices.update(changed)
        self._parts.changed(device.owner, device_id)
        return Shown(changed)

    async def delete(self, caller: Identity, device_id: str) -> Shown:
        """Make a device garbage: it cannot log in any more and disappears, its trail with it."""
        async with self._parts.db.write() as session:
            device = await self._own(session, caller, device_id)
            changed = replace(device, garbage=True, modified_ms=self._parts.clock.now_ms())
            await session.devices.update(changed)
        self._parts.changed(device.owner, device_id)
        return Shown(changed)

    # -- join tokens ---------------------------------------------------------------------------------------------------

    async def create_token(
        self, caller: Identity, nick: str, user_meta: dict[str, Value], ovmode: str = ""
    ) -> tuple[JoinToken, str]:
        """A join token and its text, which is shown this once. `ovmode`: see `Ownership.of_token`."""
        if caller.type not in {CallerType.USER, CallerType.SESSION}:
            raise Malformed("Only people create join tokens")
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        if nick:
            self._check_nick(nick)
        text = parts.entropy.token()
        token = JoinToken(
            id=parts.entropy.record_id(),
            nick=nick or parts.entropy.pet_name("_"),
            owner=caller.prn,
            token_hash=parts.secrets.hash_token(text),
            default_user_meta=metas.bounded(user_meta),
            disabled=False,
            created_ms=now_ms,
            modified_ms=now_ms,
            ovmode=ovmode,
        )
        audit.named(id=token.id, nick=token.nick)
        async with parts.db.write() as session:
            await session.join_tokens.add(token)
        return token, text

    async def tokens(self, caller: Identity) -> list[JoinToken]:
        """The caller's join tokens that still work."""
        if caller.type not in {CallerType.USER, CallerType.SESSION}:
            raise Malformed("Only people have join tokens")
        async with self._parts.db.read() as session:
            return await session.join_tokens.of(caller.prn)

    async def token(self, caller: Identity, token_id: str) -> JoinToken:
        """One join token of the caller."""
        prn.require_id(token_id)
        async with self._parts.db.read() as session:
            token = await session.join_tokens.get(token_id, caller.prn)
        if token is None:
            raise NotFound("There is no such join token")
        return token

    async def disable_token(self, caller: Identity, token_id: str) -> None:
        """Stop a join token from working."""
        prn.require_id(token_id)
        async with self._parts.db.write() as session:
            if not await session.join_tokens.disable(token_id, caller.prn, self._parts.clock.now_ms()):
                raise NotFound("There is no such join token")
