"""`/containers`, `/groups` and `/signal` (device.md 6.2)."""

from __future__ import annotations

from brickless.core.canonical import loads
from brickless.core.errors import HostileInputError
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.session import Call, method_error

MAX_BODY_BYTES = 4096
ACTIONS = ("start", "stop", "restart")


def answer(call: Call) -> Response:
    """Serve the three."""
    first = call.parts[0]
    if (call.method, call.parts) == ("GET", ("containers",)):
        return json_response([{key: one[key] for key in one if key != "pid"} for one in containers(call)])
    if call.method == "PUT" and first == "containers" and len(call.parts) == 2:
        return _act(call, call.parts[1])
    if (call.method, call.parts) == ("GET", ("groups",)):
        return json_response(call.status()["groups"])
    if (call.method, call.parts) == ("POST", ("signal",)):
        return _signal(call)
    raise method_error(call)


def containers(call: Call) -> list[dict[str, object]]:
    """The running revision's containers, as the supervisor describes them."""
    found = call.status().get("containers")
    return [dict(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def body_object(call: Call, most: int = MAX_BODY_BYTES) -> dict[str, object]:
    """The body as a JSON object. Raises HttpError 400."""
    try:
        value = loads(call.request.body.read(most))
    except HostileInputError as error:
        raise HttpError(400, f"The body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise HttpError(400, "The body is no JSON object")
    return dict(value)


def _act(call: Call, name: str) -> Response:
    action = body_object(call).get("action")
    if action not in ACTIONS:
        raise HttpError(400, f"The action is one of {', '.join(ACTIONS)}")
    found = next((one for one in containers(call) if one["name"] == name), None)
    if found is None:
        raise HttpError(404, "Resource does not exist")
    if found["restart_policy"] != "container":
        raise HttpError(403, f"The container {name} has the restart policy system: only an update or a reboot stops it")
    call.ask(str(action), name=name)
    return Response()


def _signal(call: Call) -> Response:
    given = body_object(call)
    kind = given.get("type")
    if kind not in ("ready", "alive"):
        raise HttpError(400, "The type of a signal is ready")
    if not call.caller.container or kind != "ready":
        raise HttpError(500, "Signal not expected from this platform")
    call.ask("ready", name=call.caller.container)
    return Response()
