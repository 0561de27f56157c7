"""What events hold, as schemas for the OpenAPI document: the stream's, the webhooks' and the lines of logs."""

from __future__ import annotations

from typing import Any

from brickless.hub.domain import events
from brickless.hub.domain.fleet import RolloutState

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
_BOOL: dict[str, Any] = {"type": "boolean"}
_TRUE: dict[str, Any] = {"const": True}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_SHA: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _object(optional: tuple[str, ...] = (), /, **members: Any) -> dict[str, Any]:
    required = [name for name in members if name not in optional]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


_DEVICE = _object(nick=_TEXT, public=_BOOL)
#: The `data` of each kind of event.
DATA: dict[str, dict[str, Any]] = {
    "device.created": _DEVICE,
    "device.changed": {"oneOf": [_DEVICE, _object(**{"user-meta": _TRUE}), _object(labels=_TRUE)]},
    "device.removed": _DEVICE,
    "step.posted": _object(rev=_NUMBER, **{"state-sha": _SHA, "commit-msg": _TEXT}),
    "step.progress": _object(rev=_NUMBER, status=_TEXT, progress={"type": "object"}),
    "release.created": _object(name=_TEXT, fragment=_TEXT, source=_TEXT),
    "rollout.changed": _object(
        name=_TEXT, release=_SHA, state={"enum": [state.value for state in RolloutState]}, phase=_NUMBER, reason=_TEXT,
        devices=_NUMBER,
    ),
    "webhook.ping": _object(),
}  # fmt: skip
_LINE = _object(
    ("tsec", "tnano", "rev", "plat", "src", "lvl", "msg"),
    id=_TEXT, dev=_TEXT, own=_TEXT, tsec={"type": "integer"}, tnano={"type": "integer"}, rev=_TEXT, plat=_TEXT,
    src=_TEXT, lvl=_TEXT, msg=_TEXT, **{"time-created": _TIME},
)  # fmt: skip


def _name(kind: str) -> str:
    return "Event" + "".join(word.capitalize() for word in kind.split("."))


def _streamed(kind: str) -> dict[str, Any]:
    return _object(type={"const": f"{events.TYPE_PREFIX}{kind}"}, subject=_TEXT, time=_TIME, data=DATA[kind])


def _reference(kind: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{_name(kind)}"}


def schemas() -> dict[str, Any]:
    """One schema a kind, `Event` for any of them, `CloudEvent` for what webhooks carry, `LogLine` for a line."""
    return {
        **{_name(kind): {"description": text, **_streamed(kind)} for kind, text in events.KINDS.items()},
        "Event": {"oneOf": [_reference(kind) for kind in events.KINDS]},
        "CloudEvent": _object(
            specversion={"const": "1.0"}, id=_TEXT, source=_TEXT, type=_TEXT, subject=_TEXT, time=_TIME,
            datacontenttype={"const": "application/json"}, data={"anyOf": list(DATA.values())},
        ),
        "LogLine": _LINE,
    }  # fmt: skip


def answers() -> dict[str, dict[str, Any]]:
    """The successful answer of each stream, by method and path: the schema is that of one event's `data`."""
    found = {}
    for key, schema in (("GET /events/", "Event"), ("GET /logs/live", "LogLine")):
        content = {"text/event-stream": {"itemSchema": {"$ref": f"#/components/schemas/{schema}"}}}
        found[key] = {"description": "server-sent events; the schema is that of each one's data", "content": content}
    return found


def webhooks() -> dict[str, Any]:
    """What a webhook receives, for each kind of event."""
    found: dict[str, Any] = {}
    for kind, text in events.KINDS.items():
        members = {"type": {"const": f"{events.TYPE_PREFIX}{kind}"}, "data": DATA[kind]}
        schema = {"allOf": [{"$ref": "#/components/schemas/CloudEvent"}, {"properties": members}]}
        body = {"content": {"application/cloudevents+json": {"schema": schema}}}
        answer = {"2XX": {"description": "taken"}, "default": {"description": "tried again later"}}
        found[kind] = {"post": {"summary": text, "requestBody": body, "responses": answer}}
    return found
