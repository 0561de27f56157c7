"""Use cases of objects: the 200/409 protocol, signed URLs, uploads and downloads (contract section 4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import NamedTuple

from brickless.hub.domain import prn
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound, TooLarge, Unavailable
from brickless.hub.domain.objects import ObjectRequest, storage_id
from brickless.hub.domain.state import is_sha, objects_by_path
from brickless.hub.domain.values import Identity, StoredObject
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Claims, Session
from brickless.hub.services.possession import linked
from brickless.hub.services.subscriptions import require_space
from brickless.hub.services.trails import Trails

#: An object that is announced again counts as new when it is older than this; collections keep what is new for days.
_FRESH_MS = 3600 * 1000


class Access(NamedTuple):
    """An object with the tokens of its signed URLs; `put` is empty for who must not upload."""

    record: StoredObject
    get: str
    put: str
    now_s: int

    @property
    def kind(self) -> str:
        """The value of Pantahub-Object-Type."""
        return "link" if self.record.linked else "object"


class Objects:
    """Objects of accounts, and the signed URLs through which their bytes pass."""

    def __init__(self, parts: Parts, trails: Trails) -> None:
        self._parts = parts
        self._trails = trails

    def access(self, caller: Identity, record: StoredObject, issuer: str, *, upload: bool = True) -> Access:
        """The record with signed URLs for this caller; without `upload` only for a download."""
        now_s, life_s = self._parts.now_s(), self._parts.policy.signed_url_life_s

        def token(method: str) -> str:
            claims = Claims(
                method, record.sha, record.size_bytes, record.name, storage_id(record.owner, record.sha),
                not record.linked, record.owner,
            )  # fmt: skip
            return self._parts.signer.object_url_token(
                claims, subject=caller.prn, issuer=issuer, now_s=now_s, life_s=life_s
            )

        return Access(record, token("GET"), token("PUT") if upload and caller.account == record.owner else "", now_s)

    async def register(
        self, caller: Identity, request: ObjectRequest, *, autolink: bool, owner: str | None = None
    ) -> tuple[StoredObject, bool]:
        """Announce an object; True when its bytes are there already and need no upload."""
        owner = caller.account if owner is None else owner
        if not owner:
            raise Forbidden("The device is not claimed yet")
        if request.size_bytes > self._parts.policy.max_object_bytes:
            raise TooLarge(f"An object may have at most {self._parts.policy.max_object_bytes} bytes")
        now_ms = self._parts.clock.now_ms()
        audit.named(sha=request.sha, name=request.name)
        async with self._parts.db.write() as session:
            known = await session.objects.held(owner, request.sha)
            if known is not None and known.has_bytes:
                return await self._wanted_again(session, known, now_ms), True
            if autolink:
                source = (await session.objects.public_sources([request.sha])).get(request.sha)
                if source is not None:
                    record = linked(source, owner, request.name, now_ms)
                    await require_space(self._parts, session, owner, record.size_bytes)
                    await session.objects.put(record)
                    return record, True
            replaced_bytes = known.size_bytes if known is not None else 0
            await require_space(self._parts, session, owner, request.size_bytes - replaced_bytes)
            record = StoredObject(
                owner=owner,
                sha=request.sha,
                name=request.name,
                size_bytes=request.size_bytes,
                mime_type=request.mime_type,
                has_bytes=False,
                linked=False,
                created_ms=known.created_ms if known is not None else now_ms,
                modified_ms=now_ms,
            )
            await session.objects.put(record)
        return record, False

    @staticmethod
    async def _wanted_again(session: Session, known: StoredObject, now_ms: int) -> StoredObject:
        """An object that is there stays for the step that its announcement promises, however old it is."""
        if now_ms - known.modified_ms < _FRESH_MS:
            return known
        renewed = replace(known, modified_ms=now_ms)
        await session.objects.put(renewed)
        return renewed

    async def register_for_step(
        self, caller: Identity, trail_id: str, rev: int, request: ObjectRequest, *, autolink: bool
    ) -> tuple[StoredObject, bool]:
        """Announce an object in the account of a step's owner. Callers: that owner, and the device."""
        async with self._parts.db.read() as session:
            trail = await self._trails.readable(session, caller, trail_id)
            if caller.prn not in {trail.owner, trail.device}:
                raise Forbidden("Only the owner and the device add objects to a step")
            if await session.trails.step(trail_id, rev) is None:
                raise NotFound("There is no such revision")
        return await self.register(caller, request, autolink=autolink, owner=trail.owner)

    async def of(self, caller: Identity) -> list[StoredObject]:
        """The caller's objects. A device sees those that its own steps name, not those of its siblings."""
        if not caller.account:
            raise Forbidden("The device is not claimed yet")
        async with self._parts.db.read() as session:
            if caller.is_device:
                names = await session.trails.objects_of(prn.device_id(caller.prn) or "")
                return list((await session.objects.many(caller.owner, names)).values())
            return await session.objects.of(caller.account)

    async def get(self, caller: Identity, sha: str) -> StoredObject:
        """One object of the caller's account; a device gets only what its own steps name."""
        if not is_sha(sha):
            raise Malformed("An object is named by 64 lower-case hex characters")
        async with self._parts.db.read() as session:
            record = await session.objects.get(caller.account, sha) if caller.account else None
            if record is None or not await self._may_have(session, caller, sha):
                raise Forbidden("There is no such object in this account")
        return record

    @staticmethod
    async def _may_have(session: Session, caller: Identity, sha: str) -> bool:
        return not caller.is_device or await session.trails.names(prn.device_id(caller.prn) or "", sha)

    async def of_step(self, caller: Identity, trail_id: str, rev: int) -> list[StoredObject]:
        """The objects of a step, each named by its path in the state."""
        async with self._parts.db.read() as session:
            await self._trails.readable(session, caller, trail_id)
            step = await session.trails.step(trail_id, rev)
            if step is None:
                raise NotFound("There is no such revision")
            by_path = objects_by_path(step.state)
            records = await session.objects.many(step.owner, sorted(set(by_path.values())))
        missing = [sha for sha in by_path.values() if sha not in records]
        if missing:
            raise Forbidden(f"The object {missing[0]} is not available")
        return [replace(records[by_path[path]], name=path) for path in sorted(by_path)]

    async def one_of_step(self, caller: Identity, trail_id: str, rev: int, sha: str) -> StoredObject:
        """One object that a step's state names. Raises Forbidden for every other one."""
        for record in await self.of_step(caller, trail_id, rev) if is_sha(sha) else ():
            if record.sha == sha:
                return record
        raise Forbidden("Invalid Object")

    async def rename(self, caller: Identity, sha: str, name: str, *, owner: str, body_sha: str) -> StoredObject:
        """Change the object's name, the only thing that may change."""
        async with self._parts.db.write() as session:
            record = await session.objects.get(caller.account, sha) if is_sha(sha) and caller.account else None
            if record is None:
                raise Malformed("There is no such object in this account")
            if owner != record.owner or body_sha != record.sha:
                raise Malformed("'owner' and 'sha256sum' must be those of the object")
            if caller.is_device:
                raise Forbidden("Only people rename objects")
            record = replace(record, name=name, modified_ms=self._parts.clock.now_ms())
            await session.objects.put(record)
        return record

    async def delete(self, caller: Identity, sha: str) -> StoredObject:
        """Forget an object that no step names. Raises Conflict while one does."""
        if caller.is_device:
            raise Forbidden("Only people delete objects")
        async with self._parts.db.write() as session:
            record = await session.objects.held(caller.account, sha) if is_sha(sha) else None
            if record is None:
                raise Forbidden("There is no such object in this account")
            if await session.objects.in_use(caller.account, sha):
                raise Conflict("A revision of one of the account's devices names this object")
            await session.objects.remove(caller.account, sha)
        return record

    # -- bytes -------------------------------------------------------------------------------------------------------

    async def opened(self, token: str, method: str) -> Claims:
        """What a signed URL allows now. Raises Forbidden for a bad token, another method, or a record that is gone."""
        claims = self._parts.signer.verify_object_url(token)
        if claims.method != method:
            raise Forbidden("The signed URL is for another method")
        async with self._parts.db.read() as session:
            if await session.objects.get(claims.owner, claims.sha) is None:
                raise Forbidden("The object of this signed URL is gone")
        return claims

    async def stored_size(self, claims: Claims) -> int:
        """How many bytes a download has. Raises NotFound when nobody uploaded them yet."""
        async with self._parts.db.read() as session:
            record = await session.objects.get(claims.owner, claims.sha)
        size_bytes = await self._parts.blobs.size_bytes(claims.sha) if record is not None and record.has_bytes else None
        if size_bytes is None:
            raise NotFound("The bytes of this object were not uploaded yet")
        return size_bytes

    def read(self, claims: Claims, start: int, length: int) -> AsyncGenerator[bytes | bytearray, None]:
        """The bytes of a download, which count for the account whose object it is."""
        self._parts.traffic.count(claims.owner, sent_bytes=length)
        return self._parts.blobs.read(claims.sha, start, length)

    async def upload(self, claims: Claims, chunks: AsyncIterator[bytes]) -> None:
        """Take an upload: exactly the announced size and hash, or nothing. It proves that the account has the bytes."""
        await self._parts.blobs.put(claims.sha, claims.size_bytes, chunks)
        self._parts.traffic.count(claims.owner, received_bytes=claims.size_bytes)
        async with self._parts.db.write() as session:
            record = await session.objects.held(claims.owner, claims.sha)
            if record is None:
                raise Forbidden("The object of this signed URL is gone")
            if not await self._parts.blobs.has(claims.sha):
                # Between the two a garbage collection found bytes without a record.
                raise Unavailable("The upload was collected as garbage; send it again")
            if not record.has_bytes:
                await session.objects.put(
                    replace(
                        record, has_bytes=True, size_bytes=claims.size_bytes, modified_ms=self._parts.clock.now_ms()
                    )
                )
