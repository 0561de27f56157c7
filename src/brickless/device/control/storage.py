"""`POST /storage/gc`: a collection of garbage while the caller waits (device.md 2.5, 6.2)."""

from __future__ import annotations

from brickless.device.control.http import Response, json_response
from brickless.device.control.places import settings
from brickless.device.control.session import Call, method_error
from brickless.device.update.garbage import Garbage
from brickless.store.trails import Storage


def answer(call: Call) -> Response:
    """Serve it."""
    if (call.method, call.parts) != ("POST", ("storage", "gc")):
        raise method_error(call)
    garbage = Garbage(Storage(call.place.storage), settings(call.place), call.place.private)
    return json_response({"reclaimed": garbage.collect()})
