"""`/user-meta` and `/device-meta` (device.md 6.2, 7.6): flat objects of strings, each key a file."""

from __future__ import annotations

import os
import re

from brickless.device.config import Config
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.places import poke, settings
from brickless.device.control.session import Call, method_error
from brickless.device.link import devmeta
from brickless.device.link.usermeta import UserMeta
from brickless.store import atomic

MAX_VALUE_BYTES = 4096
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}")


def answer(call: Call) -> Response:
    """Serve both."""
    first = call.parts[0]
    if call.method == "GET" and len(call.parts) == 1:
        config = settings(call.place)
        values = devmeta.everything(call.place, config, call.status()) if first == "device-meta" else _user(config)
        return json_response(values)
    if call.method not in ("PUT", "DELETE") or len(call.parts) != 2:
        raise method_error(call)
    key = call.parts[1]
    if not _KEY.fullmatch(key):
        raise HttpError(400, "A key has 1 to 128 letters, digits and characters of _.:@+-, and no dot at its start")
    value = _value(call) if call.method == "PUT" else None
    if first == "user-meta":
        _change_user(call, key, value)
    else:
        _change_device(call, key, value)
    return Response()


def _value(call: Call) -> str:
    data = call.request.body.read(64 * 1024)
    if not data:
        raise HttpError(400, "An empty value is not stored: delete the key instead")
    if len(data) > MAX_VALUE_BYTES:
        raise HttpError(400, f"A value has at most {MAX_VALUE_BYTES} bytes, this one {len(data)}")
    return data.decode("utf-8", "replace")


def _user(config: Config) -> dict[str, object]:
    return {
        key: devmeta.embedded(value) for key, value in devmeta.values_in(config.text("PV_CACHE_USRMETADIR")).items()
    }


def _change_user(call: Call, key: str, value: str | None) -> None:
    config = settings(call.place)
    cache = config.text("PV_CACHE_USRMETADIR")
    values = devmeta.values_in(cache)
    if value is None and key not in values:
        raise HttpError(404, "Resource does not exist")
    if value is not None:
        values[key] = value
    else:
        del values[key]
    trail = os.path.join(call.place.storage, "trails", "current")
    atomic.make_dirs(cache)
    mine = UserMeta(config, cache, call.place.run, trail, _silent)
    mine.restore()
    mine.replace(values)
    poke(call.place.private, "user-meta")
    call.ask("configure")


def _silent(_sentence: str) -> None:
    """The agent reads the same values and says what is wrong with them."""


def _change_device(call: Call, key: str, value: str | None) -> None:
    folder = settings(call.place).text("PV_CACHE_DEVMETADIR")
    path = os.path.join(folder, key)
    if value is None and not os.path.isfile(path):
        raise HttpError(404, "Resource does not exist")
    devmeta.change(folder, call.place.run, key, value)
    poke(call.place.private, "device-meta")
