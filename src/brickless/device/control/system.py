"""What the device says about itself: `/buildinfo`, `/config`, `/config2`, `/daemons`, `/wakelocks` (device.md 6.2)."""

from __future__ import annotations

import os
import sys

from brickless.device import VERSION
from brickless.device.config import Config
from brickless.device.control.containers import body_object
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.places import settings
from brickless.device.control.session import Call, method_error
from brickless.device.supervise import awake

MANIFEST = "/etc/pantavisor/manifest"
BUILD_ID = "/etc/brickless/build-id"
UNSET = "(null)"
#: The runtime's processes: the name that `/daemons` shows, and the kernel's name for it.
DAEMONS = {"supervisor": "pv-supervisor", "agent": "pv-agent", "pv-xconnect": "pv-xconnect"}
SCOPES = ("boot", "update", "update_check", "devmeta", "usrmeta", "shutdown", "debug_shell", "poll")


def answer(call: Call) -> Response:
    """Serve them."""
    first, count = call.parts[0], len(call.parts)
    if call.method == "PUT" and first == "daemons" and count == 2:
        return _act_on_daemon(call, call.parts[1])
    if call.method != "GET" or count != 1:
        raise method_error(call)
    if first == "buildinfo":
        return Response(200, build_info().encode(), "text/plain")
    if first == "daemons":
        return json_response([{"name": n, "pid": pid_of(comm), "respawn": True} for n, comm in DAEMONS.items()])
    config = settings(call.place)
    if first == "config":
        return json_response(aliases(config))
    if first == "config2":
        return json_response(list(with_origin(config)))
    return json_response(wakelocks(config, call.place.private))


def build_info() -> str:
    """What runs here, a line each; the image's own manifest where it has one."""
    uname = os.uname()
    lines = [
        f"brickless {VERSION}",
        f"python {sys.version.partition(' ')[0]}",
        f"kernel {uname.sysname} {uname.release} {uname.machine}",
    ]
    for label, path in (("build ", BUILD_ID), ("", MANIFEST)):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                lines.append(label + stream.read(1 << 20).rstrip())
        except FileNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def aliases(config: Config) -> dict[str, str]:
    """The old answer: by legacy name. Secrets read `(hidden)`."""
    return {key.aliases[0]: value or UNSET for key, value, _ in config.entries() if key.aliases}


def with_origin(config: Config) -> list[dict[str, str]]:
    """Every key with the level that its value comes from. Secrets read `(hidden)`, whoever asks."""
    return [{"key": key.name, "value": value or UNSET, "modified": origin} for key, value, origin in config.entries()]


def pid_of(comm: str, proc: str = "/proc") -> int:
    """The oldest process of that name, 0 when there is none."""
    found = []
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/comm", encoding="utf-8", errors="replace") as stream:
                if stream.read(64).strip() == comm:
                    found.append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return min(found, default=0)


def _act_on_daemon(call: Call, name: str) -> Response:
    if name not in DAEMONS:
        raise HttpError(404, "Resource does not exist")
    action = body_object(call).get("action")
    if action not in ("start", "stop"):
        raise HttpError(400, "The action is start or stop")
    if action == "stop":
        raise HttpError(403, f"{name} is not stopped: the device would be out of reach; the init would start it again")
    return Response()


def wakelocks(config: Config, private: str) -> dict[str, object]:
    """What holds the device awake. `degraded`: locks are wanted, and this kernel has none."""
    mode = config.text("PV_POWER_MODE")
    held = awake.held(private)
    there = os.path.exists(os.path.join(config.text("PV_POWER_SYSFS_DIR"), "wake_lock"))
    return {
        "mode": mode,
        "count": len(held),
        "degraded": mode != "disabled" and not there,
        "autosleep": False,
        "settling": False,
        "polling": False,
        "run_window": False,
        "held": {scope: int(scope in held) for scope in SCOPES},
    }
