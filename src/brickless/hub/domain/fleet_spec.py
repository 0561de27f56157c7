"""How a rollout's specification reads as JSON: in requests, in declarative files and in the database. Pure.

Strict: a member that is not known is refused, because a misspelt limit that is passed over would be no limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from brickless.hub.domain import fleet_labels
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.fleet import Phase, Spec
from brickless.hub.domain.fleet_phases import MAX_PHASES
from brickless.hub.domain.fleet_window import DAYS, DEVICE_ZONE, Window
from brickless.hub.domain.rollout_rule import Policy

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z|24:00\Z")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\Z")
_YEAR_S = 366 * 24 * 3600
_POLICY = tuple(field.name for field in fields(Policy))
_DEFAULT = Spec()
_NUMBERS: dict[str, tuple[int, int]] = {
    "deadline_s": (60, _YEAR_S),
    "life_s": (60, 10 * _YEAR_S),
    "max_deferrals": (0, 100),
    "deferral_s": (60, _YEAR_S),
    "priority": (-1000, 1000),
}


def _wire(name: str) -> str:
    return name.replace("_", "-")


def value_of(spec: Spec) -> dict[str, Any]:
    """The specification as a JSON value, everything in it."""
    window = spec.window
    return {
        "policy": {name: getattr(spec.policy, name) for name in _POLICY},
        "phases": [_phase_value(phase) for phase in spec.phases],
        "window": None if window is None else _window_value(window),
        **{_wire(name): getattr(spec, name) for name in _NUMBERS},
        "rollback-on-stop": spec.rollback_on_stop,
    }


def _phase_value(phase: Phase) -> dict[str, Any]:
    value: dict[str, Any] = {"selector": phase.selector, "soak-s": phase.soak_s}
    if phase.count is not None:
        value["count"] = phase.count
    if phase.percent is not None:
        value["percent"] = phase.percent
    return value


def _window_value(window: Window) -> dict[str, Any]:
    def clock(minute: int) -> str:
        return f"{minute // 60:02d}:{minute % 60:02d}"

    return {
        "start": clock(window.start_min),
        "end": clock(window.end_min),
        "days": [DAYS[day] for day in sorted(window.days)],
        "zone": window.zone,
    }


def dump(spec: Spec) -> str:
    """The text for the database."""
    return json.dumps(value_of(spec), separators=(",", ":"))


def load(text: str) -> Spec:
    """The specification that `dump` wrote."""
    return parse(json.loads(text))


def parse(value: Mapping[str, Any]) -> Spec:
    """A specification from a request; what is not said has its default. Raises Malformed that names the member."""
    known = {"policy", "phases", "window", "rollback-on-stop", *map(_wire, _NUMBERS)}
    _known("", value, known)
    numbers = {
        name: _integer(value, _wire(name), getattr(_DEFAULT, name), *bounds) for name, bounds in _NUMBERS.items()
    }
    return Spec(
        policy=_policy(value.get("policy")),
        phases=_phases(value.get("phases")),
        window=_window(value.get("window")),
        rollback_on_stop=_flag(value, "rollback-on-stop"),
        **numbers,
    )


def _known(where: str, value: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(value) - known):
        place = f"{where}.{unknown[0]}" if where else unknown[0]
        raise Malformed(f"{place!r} is no member of a rollout; known are {', '.join(sorted(known))}")


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Malformed(f"{where!r} must be an object")
    return value


def _flag(value: Mapping[str, Any], name: str) -> bool:
    found = value.get(name, False)
    if not isinstance(found, bool):
        raise Malformed(f"{name!r} must be true or false")
    return found


def _integer(value: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    found = value.get(name, default)
    if isinstance(found, Decimal) and found == found.to_integral_value():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise Malformed(f"{name!r} must be a whole number from {low} to {high}")
    return found


def _number(where: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float | Decimal):
        raise Malformed(f"{where!r} must be a number")
    return float(found)


def _policy(value: Any) -> Policy:
    if value is None:
        return Policy()
    given = _object("policy", value)
    _known("policy", given, set(_POLICY))
    read: dict[str, Callable[[Any], Any]] = dict.fromkeys(_POLICY, lambda found: _number("policy", found))
    members = {name: read[name](found) for name, found in given.items() if name != "canary"}
    if "canary" in given:
        members["canary"] = _integer(given, "canary", 1, 1, 1_000_000)
    try:
        return Policy(**members)
    except ValueError as error:
        raise Malformed(f"policy: {error}") from error


def _phases(value: Any) -> tuple[Phase, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_PHASES:
        raise Malformed(f"'phases' must be a list of at most {MAX_PHASES} phases")
    return tuple(_phase(f"phases[{number}]", one) for number, one in enumerate(value))


def _phase(where: str, value: Any) -> Phase:
    given = _object(where, value)
    _known(where, given, {"selector", "count", "percent", "soak-s"})
    selector = given.get("selector", "*")
    if not isinstance(selector, str):
        raise Malformed(f"'{where}.selector' must be a string")
    count = None if given.get("count") is None else _integer(given, "count", 1, 1, 10_000_000)
    percent = None if given.get("percent") is None else _number(f"{where}.percent", given["percent"])
    if percent is not None and not 0 < percent <= 100:
        raise Malformed(f"'{where}.percent' must lie above 0 and be at most 100")
    if count is not None and percent is not None:
        raise Malformed(f"{where!r} has a count or a percentage, not both")
    return Phase(str(fleet_labels.parse(selector)), count, percent, _integer(given, "soak-s", 0, 0, _YEAR_S))


def _minute(where: str, value: Any) -> int:
    if not isinstance(value, str) or not _CLOCK.match(value):
        raise Malformed(f"{where!r} must be a time of the day such as 22:30")
    return int(value[:2]) * 60 + int(value[3:])


def _window(value: Any) -> Window | None:
    if value is None:
        return None
    given = _object("window", value)
    _known("window", given, {"start", "end", "days", "zone"})
    days, zone = given.get("days", list(DAYS)), given.get("zone", DEVICE_ZONE)
    if not isinstance(days, list) or not all(day in DAYS for day in days):
        raise Malformed(f"'window.days' must be a list of {', '.join(DAYS)}")
    if not isinstance(zone, str) or not _ZONE.match(zone):
        raise Malformed("'window.zone' must be a time zone such as Europe/Berlin, UTC, or device")
    start, end = _minute("window.start", given.get("start")), _minute("window.end", given.get("end"))
    try:
        return Window(start, end, frozenset(DAYS.index(day) for day in days), zone)
    except ValueError as error:
        raise Malformed(f"window: {error}") from error
