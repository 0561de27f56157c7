"""Which objects an account may use: those whose bytes it handed in, and those that are public (contract section 4.4).

Knowing a SHA-256 gives nobody the bytes: an account has an object once it uploaded it, or once a public device's step
names it and its record is linked to that source.
"""

from __future__ import annotations

from dataclasses import replace

from brickless.hub.domain.errors import Unprocessable
from brickless.hub.domain.state import CheckedState
from brickless.hub.domain.values import StoredObject
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.subscriptions import require_space

_SHOWN = 5


async def require_objects(parts: Parts, session: Session, owner: str, state: CheckedState, *, autolink: bool) -> None:
    """Refuse a state that names objects which the owner has not. Links public ones first, when `autolink`.

    Raises Unprocessable that names the first missing objects: a device would fail to download them.
    """
    # Kept until the step that names them is written: a collection that ran meanwhile would see neither.
    records = await session.objects.kept(owner, state.objects)
    missing = [sha for sha in state.objects if sha not in records or not records[sha].has_bytes]
    if missing and autolink:
        sources = await session.objects.public_sources(missing)
        links = [linked(source, owner, source.name, parts.clock.now_ms()) for source in sources.values()]
        if links:
            await require_space(parts, session, owner, sum(link.size_bytes for link in links))
            await session.objects.put_many(links)
        missing = [sha for sha in missing if sha not in sources]
    if missing:
        names = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise Unprocessable(f"The hub does not have {len(missing)} of the objects that the state names: {names}")


def linked(source: StoredObject, owner: str, name: str, now_ms: int) -> StoredObject:
    """A record of `owner` for bytes that somebody else made public."""
    return replace(source, owner=owner, name=name, linked=True, has_bytes=True, created_ms=now_ms, modified_ms=now_ms)
