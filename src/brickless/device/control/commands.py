"""`POST /commands`: what a device is told to do (device.md 6.2). One at a time; an update is not disturbed."""

from __future__ import annotations

import os
from collections.abc import Callable

from brickless.core.canonical import loads
from brickless.core.errors import HostileInputError
from brickless.core.paths import check_revision
from brickless.device.config import Config, ConfigError
from brickless.device.control import places
from brickless.device.control.containers import body_object
from brickless.device.control.http import HttpError, Response
from brickless.device.control.session import Call, method_error
from brickless.store.lock import LockedError, lock
from brickless.store.trails import Storage

MAX_BODY_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 4096
BUSY_S, COMMAND_BUSY_S = 600, 120
#: What is refused while an update runs.
DISTURBING = frozenset(
    {
        "TRY_ONCE",
        "LOCAL_APPLY",
        "REBOOT_DEVICE",
        "POWEROFF_DEVICE",
        "LOCAL_RUN",
        "LOCAL_RUN_COMMIT",
        "MAKE_FACTORY",
        "UNCLAIM",
    }
)
#: Client states of the agent in which it works on an update (device.md 7.2).
_WORKING = frozenset({"prep download", "download"})


def answer(call: Call) -> Response:
    """Serve the endpoint."""
    if (call.method, call.parts) != ("POST", ("commands",)):
        raise method_error(call)
    given = body_object(call, MAX_BODY_BYTES)
    op, payload = given.get("op"), given.get("payload")
    if not isinstance(op, str) or not isinstance(payload, str):
        raise HttpError(400, 'A command is {"op": "...", "payload": "..."}: both are needed, both are texts')
    if op not in COMMANDS:
        raise HttpError(400, f"There is no command {op[:40]!r}: there are {', '.join(sorted(COMMANDS))}")
    if op in DISTURBING and is_updating(call):
        raise HttpError(503, "An update is ongoing", retry_after_s=BUSY_S)
    os.makedirs(call.place.private, mode=0o700, exist_ok=True)
    try:
        with lock(os.path.join(call.place.private, "command.lock"), timeout_s=0):
            return COMMANDS[op](call, payload)
    except LockedError:
        raise HttpError(503, "A command is pending", retry_after_s=COMMAND_BUSY_S) from None


def is_updating(call: Call) -> bool:
    """Whether a revision is tried or installed, or the agent fetches one."""
    from brickless.device.update.local import is_installing

    if call.status().get("trying") is not None or is_installing(call.place.private):
        return True
    try:
        with open(os.path.join(call.place.run, "device-meta", "pantahub.state"), encoding="utf-8") as stream:
            return stream.read(64) in _WORKING
    except FileNotFoundError:
        return False


def _power(op: str) -> Callable[[Call, str], Response]:
    def do(call: Call, payload: str) -> Response:
        return Response(then=lambda: _tell(call, op, payload))

    return do


def _tell(call: Call, op: str, message: str) -> None:
    """After the answer: the caller is to hear that it was heard."""
    call.ask(op, message=message[:200])


def _run(*, reboot: bool) -> Callable[[Call, str], Response]:
    def do(call: Call, payload: str) -> Response:
        return run_revision(call, payload, reboot=reboot)

    return do


def run_revision(call: Call, rev: str, *, reboot: bool = False) -> Response:
    """Have a revision that is on the device tried; it goes on after the answer, `/steps/<rev>/progress` tells."""
    from brickless.device.update.local import LocalUpdate

    try:
        check_revision(rev)
    except HostileInputError as error:
        raise HttpError(400, str(error)) from error
    storage = Storage(call.place.storage)
    if rev not in storage.revisions():
        raise HttpError(404, f"There is no revision {rev} on this device")
    if call.status().get("rev") == rev:
        raise HttpError(409, f"Revision {rev} is running already")
    update = LocalUpdate(storage, places.settings(call.place), call.supervisor, call.place.private)
    return Response(then=lambda: update.run(rev, reboot=reboot))


def _update_metadata(call: Call, payload: str) -> Response:
    from brickless.device.link import devmeta

    config = places.settings(call.place)
    storage = Storage(call.place.storage)
    if not devmeta.is_remote(config, storage.current() or "", call.place.private):
        raise HttpError(409, "The device is in local mode: nobody takes its metadata")
    try:
        values = loads(payload)
    except HostileInputError as error:
        raise HttpError(400, f"The payload is no JSON: {error}") from error
    if not isinstance(values, dict) or len(payload) > MAX_PAYLOAD_BYTES:
        raise HttpError(400, f"The payload is a JSON object of at most {MAX_PAYLOAD_BYTES} bytes")
    for key, value in values.items():
        text = value if isinstance(value, str) else _text(value)
        devmeta.change(config.text("PV_CACHE_DEVMETADIR"), call.place.run, devmeta.file_name(key), text)
    places.poke(call.place.private, "device-meta")
    return Response()


def _text(value: object) -> str:
    import json

    return json.dumps(value, separators=(",", ":"), default=str)


def _make_factory(call: Call, payload: str) -> Response:
    from brickless.device.update.factory import make_factory

    config = places.settings(call.place)
    if config.text("PH_CREDS_PRN") or config.text("PH_CREDS_ID"):
        raise HttpError(409, "The device is claimed: its factory revision belongs to its owner now")
    storage = Storage(call.place.storage)
    rev = payload or storage.current() or "0"
    try:
        make_factory(storage, rev)
    except FileNotFoundError as error:
        raise HttpError(404, f"Revision {rev} is not complete on this device: {error}") from error
    return Response()


def _run_gc(call: Call, _payload: str) -> Response:
    from brickless.device.update.garbage import Garbage

    Garbage(Storage(call.place.storage), places.settings(call.place), call.place.private).collect()
    return Response()


def _ssh(value: str) -> Callable[[Call, str], Response]:
    def do(call: Call, _payload: str) -> Response:
        set_option(call, "PV_DEBUG_SSH", value)
        return Response()

    return do


def set_option(call: Call, key: str, value: str) -> None:
    """Set a configuration key until the next boot, and have everyone read it. Raises HttpError for a bad value."""
    from brickless.device import config as configuration

    try:
        Config().put(configuration.COMMAND, key, value)
    except ConfigError as error:
        raise HttpError(400, str(error)) from error
    places.set_command(call.place.private, key, value)
    places.poke(call.place.private, "user-meta")
    call.ask("configure")


def _go_remote(call: Call, _payload: str) -> Response:
    from brickless.device.link import devmeta

    config = places.settings(call.place)
    if not config.flag("PV_CONTROL_REMOTE"):
        raise HttpError(409, "This device never talks to a hub: PV_CONTROL_REMOTE is 0")
    if devmeta.is_remote(config, Storage(call.place.storage).current() or "", call.place.private):
        return Response(204)
    path = os.path.join(call.place.private, places.GO_REMOTE)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    places.poke(call.place.private, "remote")
    return Response()


def _defer_reboot(call: Call, payload: str) -> Response:
    """There is no debug shell that could hold a reboot back: the supervisor says so, or takes the new time."""
    if not payload.isdigit() or len(payload) > 6:
        raise HttpError(400, "The payload is a number of seconds")
    call.ask("defer-reboot", seconds=int(payload))
    return Response()


def _unclaim(call: Call, _payload: str) -> Response:
    from brickless.device.link.identity import forget

    if not forget(os.path.join(call.place.storage, "config")):
        return Response(204)
    places.poke(call.place.private, "identity")
    return Response()


def _graph(_call: Call, _payload: str) -> Response:
    """The graph is made from the running revision whenever it is asked for: there is nothing to be kept up to date."""
    return Response()


COMMANDS: dict[str, Callable[[Call, str], Response]] = {
    "UPDATE_METADATA": _update_metadata,
    "REBOOT_DEVICE": _power("reboot"),
    "POWEROFF_DEVICE": _power("poweroff"),
    # A trial is once; what the reference accepts under these two names and forgets is done.
    "TRY_ONCE": _run(reboot=False),
    "LOCAL_APPLY": _run(reboot=False),
    "LOCAL_RUN": _run(reboot=False),
    "LOCAL_RUN_COMMIT": _run(reboot=True),
    "MAKE_FACTORY": _make_factory,
    "RUN_GC": _run_gc,
    "ENABLE_SSH": _ssh("1"),
    "DISABLE_SSH": _ssh("0"),
    "GO_REMOTE": _go_remote,
    "DEFER_REBOOT": _defer_reboot,
    "XCONNECT_GRAPH": _graph,
    "UNCLAIM": _unclaim,
}
