"""What requests to /fleets hold, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from brickless.hub.domain.fleet import MemberState
from brickless.hub.domain.fleet_window import DAYS

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_NUMBER: dict[str, Any] = {"type": "number"}
_LABELS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
_FLAG: dict[str, Any] = {"type": "boolean"}
_CLOCK: dict[str, Any] = {"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]$"}


def _strict(required: tuple[str, ...] = (), /, **members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(required), "additionalProperties": False}


SPEC = _strict(
    policy=_strict(background=_NUMBER, alarm=_NUMBER, budget=_NUMBER, evidence=_NUMBER, doubt=_NUMBER, canary=_COUNT),
    phases={
        "type": "array",
        "maxItems": 32,
        "items": _strict(selector=_TEXT, count=_COUNT, percent=_NUMBER, **{"soak-s": _COUNT}),
    },
    window={
        "oneOf": [
            {"type": "null"},
            _strict(
                ("start", "end"),
                start=_CLOCK,
                end=_CLOCK,
                days={"type": "array", "items": {"enum": list(DAYS)}},
                zone=_TEXT,
            ),
        ]
    },
    priority={"type": "integer"},
    **{
        "deadline-s": _COUNT, "life-s": _COUNT, "max-deferrals": _COUNT, "deferral-s": _COUNT,
        "rollback-on-stop": _FLAG,
    },
)  # fmt: skip
_DRAFT = _strict(("release", "selector"), release=_TEXT, selector=_TEXT, name=_TEXT, spec=SPEC)
_REASON = _strict(reason=_TEXT)

BODIES: dict[str, dict[str, Any]] = {
    "PATCH /fleets/devices": _strict(("selector", "labels"), selector=_TEXT, labels=_LABELS),
    "PATCH /fleets/devices/{id}/labels": _LABELS,
    "PUT /fleets/types/{name}": _strict(description=_TEXT),
    "POST /fleets/releases": _strict(
        device=_TEXT, revision=_COUNT, state={"type": "object"}, fragment=_TEXT, name=_TEXT, note=_TEXT,
        types={"type": "array", "items": _TEXT}, **{"allow-unsigned": _FLAG},
    ),
    "POST /fleets/rollouts": _DRAFT,
    "POST /fleets/preview": _DRAFT,
    **{
        f"POST /fleets/rollouts/{{rollout}}/{action}": _REASON
        for action in ("pause", "resume", "abort", "finish", "rollback")
    },
}  # fmt: skip
QUERIES: dict[str, dict[str, Any]] = {
    "GET /fleets/devices": {"selector": _TEXT, "page[after]": _TEXT, "page[size]": _COUNT},
    "GET /fleets/releases": {"page[offset]": _COUNT, "page[size]": _COUNT},
    "GET /fleets/rollouts": {"page[offset]": _COUNT, "page[size]": _COUNT},
    "GET /fleets/rollouts/{rollout}/devices": {
        "state": {"enum": [state.value for state in MemberState]}, "page[after]": _TEXT, "page[size]": _COUNT,
    },
}  # fmt: skip
