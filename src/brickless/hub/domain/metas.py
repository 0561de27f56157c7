"""user-meta and device-meta: flat maps of JSON values that people and devices write (contract section 2.2). Pure."""

from __future__ import annotations

from brickless.hub.domain.errors import TooLarge
from brickless.hub.domain.jsontext import Value, stored

MAX_KEYS = 2000
MAX_BYTES = 512 * 1024


def merged_user_meta(account_meta: dict[str, Value], device_meta: dict[str, Value]) -> dict[str, Value]:
    """The user-meta that a device sees: the account's under the device's own."""
    return {**account_meta, **device_meta}


def patched(current: dict[str, Value], patch: dict[str, Value]) -> dict[str, Value]:
    """A shallow merge; null deletes the key, which is what clients mean by it."""
    result = {**current, **patch}
    return {key: value for key, value in result.items() if value is not None}


def bounded(meta: dict[str, Value]) -> str:
    """The stored text of a map. Raises TooLarge beyond MAX_KEYS keys or MAX_BYTES bytes."""
    if len(meta) > MAX_KEYS:
        raise TooLarge(f"The metadata has more than {MAX_KEYS} keys")
    text = stored(meta)
    if len(text.encode()) > MAX_BYTES:
        raise TooLarge(f"The metadata is larger than {MAX_BYTES} bytes")
    return text
