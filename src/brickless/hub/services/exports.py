"""Use case of exports (contract section 6.6): a revision as one tar file, for whoever may read the device."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from brickless.core import canonical
from brickless.hub.domain.errors import Forbidden, NotFound
from brickless.hub.domain.state import objects_by_path
from brickless.hub.domain.values import Identity, Step, StoredObject
from brickless.hub.services.parts import Parts


class Export(NamedTuple):
    """What goes into the file: the state, reduced to what was asked for, and its objects in the order of paths."""

    state: bytes
    objects: tuple[StoredObject, ...]
    modified_s: int


def selected(path: str, parts: tuple[str, ...]) -> bool:
    """Whether the parts keep a key: each names a beginning, `-` in front takes it away again."""
    wanted = [part for part in parts if not part.startswith("-")]
    unwanted = [part[1:] for part in parts if part.startswith("-")]
    return (not wanted or path.startswith(tuple(wanted))) and not (unwanted and path.startswith(tuple(unwanted)))


class Exports:
    """Revisions as tar files."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def find(
        self, caller: Identity | None, user_nick: str, device_nick: str, rev: str, parts: tuple[str, ...]
    ) -> Export:
        """The revision, for its owner, its device, or everybody when it is public. Raises Forbidden and NotFound."""
        async with self._parts.db.read() as session:
            account = await session.accounts.by_nick(user_nick)
            if account is None:
                raise Forbidden("There is no such account")
            device = await session.devices.by_nick(account.prn, device_nick)
            allowed = device is not None and (
                device.public or (caller is not None and caller.prn in {device.owner, device.prn})
            )
            if device is None or not allowed:
                raise NotFound("No Access")
            number = await session.trails.newest_rev(device.id) if rev == "latest" else _number(rev)
            step = await session.trails.step(device.id, number) if number is not None else None
            if step is None:
                raise NotFound("There is no such revision")
            state, by_path = _reduced(step, parts)
            records = await session.objects.many(step.owner, by_path.values())
        shas = list(dict.fromkeys(by_path[path] for path in sorted(by_path)))
        if missing := [sha for sha in shas if sha not in records]:
            raise NotFound(f"The object {missing[0]} is not available any more")
        return Export(state, tuple(records[sha] for sha in shas), step.modified_ms // 1000)

    async def stream(self, export: Export) -> AsyncGenerator[bytes | bytearray, None]:
        """The tar file, the same bytes each time."""
        yield _head("json", len(export.state), export.modified_s) + export.state + _padding(len(export.state))
        for record in export.objects:
            yield _head(f"objects/{record.sha}", record.size_bytes, record.created_ms // 1000)
            chunks: AsyncIterator[bytes | bytearray] = self._parts.blobs.read(record.sha, 0, record.size_bytes)
            async for chunk in chunks:
                yield chunk
            yield _padding(record.size_bytes)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _reduced(step: Step, parts: tuple[str, ...]) -> tuple[bytes, dict[str, str]]:
    by_path = objects_by_path(step.state)
    if not parts:
        return step.state, by_path
    value = canonical.loads(step.state)
    if not isinstance(value, dict):
        raise TypeError("a stored state is no object")
    kept = {path: item for path, item in value.items() if selected(path, parts)}
    return canonical.dumps(kept), {path: sha for path, sha in by_path.items() if path in kept}


def _head(name: str, size_bytes: int, mtime_s: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size_bytes, mtime_s, 0o600
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
