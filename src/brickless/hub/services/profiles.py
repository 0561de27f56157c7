"""Use cases of profiles (contract section 6.8): what people say about themselves."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import replace

from brickless.hub.domain import jsontext
from brickless.hub.domain.errors import Forbidden, NotFound, Precondition
from brickless.hub.domain.jsontext import Value, text_field
from brickless.hub.domain.values import Account, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts

FIELDS = ("fullName", "bio", "picture", "website", "location", "github", "gitlab", "company", "twitter")
_MAX_TEXT_CHARS = 2000
_MAX_PICTURE_BYTES = 1000 * 1000


def picture(text: str) -> str:
    """A picture as a data URL. Raises Precondition unless it is a square PNG or JPEG below 1000 KB."""
    head, comma, encoded = text.partition(",") if text.startswith("data:") else ("", "", text)
    if head and not comma:
        raise Precondition("The picture's data URL has no data")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Precondition("The picture must be base64") from error
    if len(data) >= _MAX_PICTURE_BYTES:
        raise Precondition(f"The picture must have less than {_MAX_PICTURE_BYTES} bytes")
    size = _png_size(data) or _jpeg_size(data)
    if size is None:
        raise Precondition("The picture must be a PNG or a JPEG")
    if size[0] != size[1] or size[0] == 0:
        raise Precondition("The picture must be square")
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{encoded}"


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk (PNG specification, 11.2.2)."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the frame header (ITU T.81, B.2.2)."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + max(2, length)
    return None


class Profiles:
    """Profiles of accounts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def find(self, caller: Identity, prefix: str, *, offset: int, limit: int) -> list[Account]:
        """Accounts with public devices, and the caller's own, whose nick begins so."""
        async with self._parts.db.read() as session:
            return await session.accounts.shown(caller.prn, prefix, offset=offset, limit=limit)

    async def get(self, caller: Identity, nick: str) -> Account:
        """One of them. Raises NotFound for every other account, whether it exists or not."""
        async with self._parts.db.read() as session:
            found = await session.accounts.shown(caller.prn, nick, offset=0, limit=1, exact=True)
        if not found:
            raise NotFound("There is no such profile")
        return found[0]

    async def put(self, caller: Identity, body: dict[str, Value]) -> Account:
        """Replace the caller's profile; members that are missing stay. Raises Precondition for a bad picture."""
        changes: dict[str, Value] = {}
        for name in FIELDS:
            if body.get(name) is not None:
                limit = 2 * _MAX_PICTURE_BYTES if name == "picture" else _MAX_TEXT_CHARS
                text = text_field(body, name, max_chars=limit)
                changes[name] = picture(text) if name == "picture" and text else text
        audit.named(account=caller.nick)
        async with self._parts.db.write() as session:
            account = await session.accounts.by_prn(caller.prn)
            if account is None:
                raise Forbidden("There is no account for this caller")
            profile = jsontext.stored({**jsontext.load_stored(account.profile), **changes})
            account = replace(account, profile=profile, modified_ms=self._parts.clock.now_ms())
            await session.accounts.update(account)
        return account
