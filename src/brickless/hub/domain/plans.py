"""Plans and what they allow (contract section 6.4). Pure: a plan that somebody customised never changes another one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from brickless.hub.domain.errors import Precondition

PREFIX = "prn::subscriptions:"
_GIB = 1024**3
_UNITS = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": _GIB, "TIB": 1024**4}
_SIZE = re.compile(r"(\d{1,15})\s*([A-Za-z]{0,3})\Z")


class Limits(NamedTuple):
    """What an account may have; None is no limit."""

    objects_bytes: int | None
    bandwidth_bytes: int | None
    devices: int | None


NO_LIMITS = Limits(None, None, None)
PLANS: Mapping[str, Limits] = {
    "FREE": Limits(2 * _GIB, 2 * _GIB, 25),
    "VIP": Limits(20 * _GIB, 10 * _GIB, 100),
    "CUSTOM": NO_LIMITS,
    "UNLIMITED": NO_LIMITS,
    "LOCKED": Limits(0, 0, 0),
    "CANCELLED": Limits(0, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """The plan of one account. `attrs` and `history` are JSON texts."""

    id: str
    subject: str
    plan: str
    issuer: str
    attrs: str
    history: str
    created_ms: int
    modified_ms: int


def plan_name(text: str) -> str:
    """The name in `prn::subscriptions:NAME`, or the name itself. Raises Precondition for an unknown one."""
    name = text.removeprefix(PREFIX)
    if name not in PLANS:
        raise Precondition(f"There is no plan {text[:60]!r}; there are {', '.join(sorted(PLANS))}")
    return name


def _amount(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62:
        return value
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found is None or found[2].upper() not in _UNITS:
        raise Precondition(f"{name} must be a number, or one with a unit such as 20GiB")
    return int(found[1]) * _UNITS[found[2].upper()]


def limits(plan: str, attrs: Mapping[str, object]) -> Limits:
    """What the plan allows, with the attributes that were given for this account alone."""
    base = PLANS[plan]
    names = {"OBJECTS": "objects_bytes", "BANDWIDTH": "bandwidth_bytes", "DEVICES": "devices"}
    unknown = set(attrs) - set(names)
    if unknown:
        raise Precondition(f"There is no attribute {min(unknown)[:60]!r}; there are {', '.join(sorted(names))}")
    return base._replace(**{names[name]: _amount(name, value) for name, value in attrs.items()})
