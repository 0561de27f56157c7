"""`GET /xconnect-graph`: who may use which service of whom, by the running revision (device.md 5.11)."""

from __future__ import annotations

from collections.abc import Mapping

from brickless.core import services
from brickless.core.services import BUILTIN
from brickless.core.state import State, parse_state
from brickless.device.control.containers import containers
from brickless.device.control.http import Response, json_response
from brickless.device.control.session import Call, method_error
from brickless.linux import lxc
from brickless.store.trails import Storage


def answer(call: Call) -> Response:
    """Serve it."""
    if (call.method, len(call.parts)) != ("GET", 1):
        raise method_error(call)
    storage = Storage(call.place.storage)
    pids = {str(one["name"]): _init(one["pid"]) for one in containers(call)}
    return json_response(links(parse_state(storage.state_bytes(storage.current() or "0")), pids))


def _init(monitor: object) -> int:
    pid = lxc.init_pid(monitor) if isinstance(monitor, int) and monitor else None
    return pid or 0


def links(state: State, pids: Mapping[str, int]) -> list[dict[str, object]]:
    """One row for each link of `core.services.graph`, with the inits of both ends; the runtime's own bus has pid 0."""
    return [
        {
            "consumer": link.consumer,
            "consumer_pid": pids.get(link.consumer, 0),
            "provider": link.provider,
            "provider_pid": 0 if link.provider == BUILTIN else pids.get(link.provider, 0),
            "name": link.name,
            "type": link.type,
            "role": link.role,
            "interface": link.interface,
            "target": link.target,
            "socket": link.socket,
        }
        for link in services.graph(state.containers).links
    ]
