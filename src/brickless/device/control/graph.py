"""`GET /xconnect-graph`: who may use which service of whom, by the running revision (device.md 5.11)."""

from __future__ import annotations

from collections.abc import Mapping

from brickless.core.state import State, parse_state
from brickless.device.control.containers import containers
from brickless.device.control.http import Response, json_response
from brickless.device.control.session import Call, method_error
from brickless.linux import lxc
from brickless.store.trails import Storage

ANY = "any"


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
    """One row for each consumer of each provider that is there."""
    rows: list[dict[str, object]] = []
    for name, consumer in sorted(state.containers.items()):
        for service in (*consumer.requires, *consumer.wants):
            for provider in state.containers.values():
                for export in provider.provides:
                    if (export.name, export.type) != (service.name, service.type):
                        continue
                    target = service.target or service.interface or f"/tmp/pvx_{name}_{service.name}.sock"  # noqa: S108 device.md 1.13
                    rows.append(
                        {
                            "consumer": name,
                            "consumer_pid": pids.get(name, 0),
                            "provider": provider.name,
                            "provider_pid": pids.get(provider.name, 0),
                            "name": service.name,
                            "type": service.type,
                            "role": service.role or ANY,
                            "interface": service.interface,
                            "target": target,
                            "socket": export.socket,
                        }
                    )
    return rows
