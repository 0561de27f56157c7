"""`/drivers`: the kernel modules that the calling container's aliases stand for (device.md 5.8, 6.2)."""

from __future__ import annotations

import os

from brickless.core.container import Container
from brickless.core.state import State, parse_state
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.places import settings
from brickless.device.control.session import Call, method_error
from brickless.device.supervise import drivers
from brickless.device.supervise.drivers import Board
from brickless.store.trails import Storage

KINDS = ("required", "optional", "manual")


def answer(call: Call) -> Response:
    """Serve the endpoint; a caller of the host has no drivers."""
    storage = Storage(call.place.storage)
    state = parse_state(storage.state_bytes(storage.current() or "0"))
    container = state.containers.get(call.caller.container)
    if (call.method, len(call.parts)) == ("GET", 1):
        rows = listing(_board(call, state), container) if container is not None else []
        return json_response(rows or {})
    names = call.parts[1:-1]
    action = call.parts[-1]
    if call.method != "PUT" or action not in ("load", "unload") or len(names) > 1:
        raise method_error(call)
    if container is None:
        raise HttpError(500, "Drivers belong to containers: this request comes from none")
    known = {*container.drivers.required, *container.drivers.optional, *container.drivers.manual}
    if not known.issuperset(names):
        raise HttpError(404, "Resource does not exist")
    do = drivers.try_load if action == "load" else drivers.unload
    faults = do(_board(call, state), names or container.drivers.manual)
    if faults:
        raise HttpError(500, "; ".join(faults))
    return Response()


def _board(call: Call, state: State) -> Board:
    config = settings(call.place)
    user_meta = (os.path.join(call.place.run, "user-meta"), config.text("PV_CACHE_USRMETADIR"))
    table = state.bsp.drivers if state.bsp is not None else {}
    return Board(table, config.text("PV_BOOTLOADER_FITCONFIG"), user_meta)


def listing(board: Board, container: Container) -> list[dict[str, str]]:
    """One row an alias."""
    return [
        {"name": alias, "type": kind.upper(), "status": drivers.status(board, alias)}
        for kind in KINDS
        for alias in getattr(container.drivers, kind)
    ]
