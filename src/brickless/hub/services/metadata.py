"""Use cases of user-meta and device-meta (contract section 2.3). A device's idle poll is answered from memory."""

from __future__ import annotations

from dataclasses import replace

from brickless.hub.domain import metas, prn
from brickless.hub.domain.errors import Forbidden, Malformed, NotFound
from brickless.hub.domain.jsontext import Value, load_stored, struct_map
from brickless.hub.domain.values import Device, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

USER_META = "user-meta"


class Metadata:
    """What people tell devices and devices tell people."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def user_meta(self, caller: Identity, name: str) -> bytes:
        """The account's map under the device's own, as struct JSON. Readers: the owner and the device."""
        own_poll = caller.is_device and caller.prn == prn.device(name)
        if own_poll:
            remembered = self._parts.polls.get(name, USER_META, "")
            if remembered is not None:
                return remembered
        ticket = self._parts.polls.ticket(name)
        async with self._parts.db.read() as session:
            device = await self._readable(session, caller, name)
            account_meta = await session.accounts.meta(device.owner) if device.owner else "{}"
        merged = metas.merged_user_meta(load_stored(account_meta), load_stored(device.user_meta))
        answer = bytes(struct_map(merged))
        if own_poll:
            self._parts.polls.put(name, USER_META, "", answer, ticket)
        return answer

    @staticmethod
    async def _readable(session: Session, caller: Identity, name: str) -> Device:
        if prn.is_id(name):
            device = await session.devices.get(name)
        else:
            device = await session.devices.by_nick(caller.account, name)
        if device is None:
            raise NotFound("There is no such device")
        if caller.prn not in {device.owner, device.prn}:
            raise Malformed("Only the owner and the device read user-meta")
        return device

    async def put_user_meta(self, caller: Identity, device_id: str, meta: dict[str, Value]) -> dict[str, Value]:
        """Replace the map. Writers: the owner and the device."""
        prn.require_id(device_id)
        text = metas.bounded(meta)
        async with self._parts.db.write() as session:
            device = await self._readable(session, caller, device_id)
            await session.devices.set_meta(device_id, user=text, device=None, modified_ms=self._parts.clock.now_ms())
        self._parts.changed(device.owner, device_id)
        return meta

    async def patch_user_meta(self, caller: Identity, name: str, patch: dict[str, Value]) -> dict[str, Value]:
        """Merge; null deletes. Only the owner may; answers the patch as it was sent."""
        if not caller.is_person:
            raise Malformed("Only the owner changes user-meta key by key")
        async with self._parts.db.write() as session:
            device = await self._readable(session, caller, name)
            text = metas.bounded(metas.patched(load_stored(device.user_meta), patch))
            await session.devices.set_meta(device.id, user=text, device=None, modified_ms=self._parts.clock.now_ms())
        self._parts.changed(device.owner, device.id)
        return patch

    async def put_device_meta(self, caller: Identity, device_id: str, meta: dict[str, Value]) -> None:
        """Replace what a device says about itself. A map that is equal to the stored one is not written again."""
        await self._write_device_meta(caller, device_id, meta, patch=False)

    async def patch_device_meta(self, caller: Identity, device_id: str, patch: dict[str, Value]) -> None:
        """Merge into what a device says about itself; null deletes."""
        await self._write_device_meta(caller, device_id, patch, patch=True)

    async def _write_device_meta(
        self, caller: Identity, device_id: str, meta: dict[str, Value], *, patch: bool
    ) -> None:
        if not caller.is_device:
            raise Malformed("Only a device writes its device-meta")
        prn.require_id(device_id)
        if caller.prn != prn.device(device_id):
            raise (
                Malformed("A device writes only its own device-meta") if patch else NotFound("There is no such device")
            )
        metas.bounded(meta)
        async with self._parts.db.write() as session:
            device = await session.devices.get(device_id)
            if device is None:
                raise NotFound("There is no such device")
            text = metas.bounded(metas.patched(load_stored(device.device_meta), meta) if patch else meta)
            if text == device.device_meta:
                return
            await session.devices.set_meta(device_id, user=None, device=text, modified_ms=self._parts.clock.now_ms())
        # device-meta is in no remembered answer: only dashboards hear of it.
        self._parts.events.device_changed(device.owner, device_id)

    async def account_meta(self, caller: Identity) -> dict[str, Value]:
        """The account-wide user-meta."""
        async with self._parts.db.read() as session:
            account = await session.accounts.by_prn(caller.prn)
        if account is None:
            raise Forbidden("There is no account for this caller")
        return load_stored(account.meta)

    async def put_account_meta(self, caller: Identity, meta: dict[str, Value]) -> dict[str, Value]:
        """Replace the account-wide user-meta; every device of the account sees it at its next poll."""
        text = metas.bounded(meta)
        audit.named(account=caller.nick)
        async with self._parts.db.write() as session:
            account = await session.accounts.by_prn(caller.prn)
            if account is None:
                raise Forbidden("There is no account for this caller")
            await session.accounts.update(replace(account, meta=text, modified_ms=self._parts.clock.now_ms()))
            device_ids = await session.devices.ids_of(caller.prn)
        self._parts.changed(caller.prn, *device_ids)
        return meta
