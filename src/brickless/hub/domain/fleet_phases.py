"""The order in which devices get a release: by phase, and at random within one. Pure.

The order must not depend on whether a device will fail (docs/explanation/rollouts.md), so it is drawn from a hash of
the rollout's and the device's ids: random, and the same after every restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import ceil

from brickless.hub.domain import fleet_labels
from brickless.hub.domain.fleet import Phase

MAX_PHASES = 32


def position(rollout_id: str, device_id: str) -> int:
    """The device's random place, 0 to 2^48."""
    return int.from_bytes(hashlib.sha256(f"{rollout_id} {device_id}".encode()).digest()[:6], "big")


def waves(phases: tuple[Phase, ...], rollout_id: str, devices: Mapping[str, fleet_labels.Labels]) -> dict[str, int]:
    """The number of each device's phase, from 0. What no phase takes comes last, in a phase of its own."""
    left = sorted(devices, key=lambda device_id: position(rollout_id, device_id))
    found: dict[str, int] = {}
    for number, phase in enumerate(phases):
        selector = fleet_labels.parse(phase.selector)
        fitting = [device_id for device_id in left if selector.matches(devices[device_id])]
        taken = fitting[: _limit(phase, len(devices))]
        found.update(dict.fromkeys(taken, number))
        left = [device_id for device_id in left if device_id not in found]
    found.update(dict.fromkeys(left, len(phases)))
    return found


def _limit(phase: Phase, devices: int) -> int | None:
    if phase.count is not None:
        return phase.count
    return None if phase.percent is None else ceil(devices * phase.percent / 100)


def wave_of_joiner(phases: tuple[Phase, ...], labels: fleet_labels.Labels) -> int:
    """The phase of a device that comes later: the first one that is all about its labels, else the last."""
    for number, phase in enumerate(phases):
        whole = phase.count is None and phase.percent is None
        if whole and fleet_labels.parse(phase.selector).matches(labels):
            return number
    return len(phases)


def soak_ms(phases: tuple[Phase, ...], wave: int) -> int:
    """How long to watch after phase `wave` before the next."""
    return phases[wave].soak_s * 1000 if wave < len(phases) else 0
