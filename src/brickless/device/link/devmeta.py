"""Device metadata as files: what containers see below /pantavisor/device-meta, and what is set by hand (device.md 7.6).

`<C>.<key>` belongs to container C and is shown to it alone, as `<key>`. What the device itself says wins over what is
set by hand under the same key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from brickless.core.canonical import JsonInput, loads
from brickless.core.errors import HostileInputError
from brickless.device.config import Config
from brickless.device.control.places import GO_REMOTE, Place
from brickless.device.link import facts
from brickless.device.link.usermeta import mirror
from brickless.store import atomic

MAX_KEYS = 200


def file_name(key: str) -> str:
    """The name of the file of a key: no folders, never hidden."""
    return key.replace("/", ".").lstrip(".")[:128] or "_"


def values_in(folder: str) -> dict[str, str]:
    """The keys of a folder with their values."""
    return facts.local_keys(folder)


def embedded(text: str) -> JsonInput:
    """A value that is a JSON object or list, as one; any other text as it is (device.md 7.6)."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return loads(text)
    except HostileInputError:
        return text


def is_remote(config: Config, current: str, private: str) -> bool:
    """Whether the device may talk to its hub now (device.md 2.1 and 7.8)."""
    if not config.flag("PV_CONTROL_REMOTE"):
        return False
    if not current.startswith("locals/") or config.flag("PV_CONTROL_REMOTE_ALWAYS"):
        return True
    return os.path.exists(os.path.join(private, GO_REMOTE))


def change(cache: str, run: str, key: str, value: str | None) -> None:
    """Set a key by hand, or take it away (None). Raises OSError; `ENOSPC` in words when there are too many keys."""
    atomic.make_dirs(cache)
    path = os.path.join(cache, key)
    if value is None:
        atomic.discard(path)
    else:
        if len(os.listdir(cache)) >= MAX_KEYS and not os.path.exists(path):
            raise OSError(28, f"there are {MAX_KEYS} keys of device metadata already", cache)
        atomic.write_file(path, value.encode())
    own = values_in(cache)
    shown = os.path.join(run, "device-meta", key)
    if value is None:
        atomic.discard(shown)
    else:
        os.makedirs(os.path.dirname(shown), exist_ok=True)
        atomic.write_file(shown, value.encode(), durable=False)
    container, dot, _ = key.partition(".")
    folder = os.path.join(run, f"device-meta.{container}")
    if dot and os.path.isdir(folder):
        mirror(folder, _of_container(own, container))


def publish(run: str, values: Mapping[str, JsonInput], containers: Iterable[str]) -> None:
    """Show all keys to the containers that manage the device, and to every container its own."""
    texts = {file_name(key): _text(value) for key, value in values.items()}
    mirror(os.path.join(run, "device-meta"), texts)
    for container in containers:
        mirror(os.path.join(run, f"device-meta.{container}"), _of_container(texts, container))


def _of_container(values: Mapping[str, str], container: str) -> dict[str, str]:
    prefix = f"{container}."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _text(value: JsonInput) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def everything(place: Place, config: Config, status: Mapping[str, object]) -> dict[str, JsonInput]:
    """All device metadata as it is now. `status` is the supervisor's; what the agent knows is read where it said it."""
    said = values_in(os.path.join(place.run, "device-meta"))
    current = str(status.get("rev") or "")
    about = facts.About(
        revision=current,
        claimed=said.get("pantahub.claimed") == "1",
        online=said.get("pantahub.online") == "1",
        state=said.get("pantahub.state", "init"),
        address=said.get("pantahub.address", ""),
        status=str(status.get("status") or "UNKNOWN"),
        flash={},
        mode="remote" if is_remote(config, current, place.private) else "local",
    )
    local = {key: embedded(text) for key, text in values_in(config.text("PV_CACHE_DEVMETADIR")).items()}
    found = facts.facts(about, place.storage, config.integer("PV_STORAGE_GC_RESERVED"), local)
    if "flash" in said:
        found["flash"] = json.loads(said["flash"])
    return found
