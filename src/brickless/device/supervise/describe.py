"""How containers, groups and the revision stand, in the words of device.md 5.1 and 6.2. Pure: from units to values.

One fault of the reference is not copied: there a container that crashes, recovers or was stopped by a failure does not
lower the status of its group. Here it does, so `READY` means that everything that should run, runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brickless.core.canonical import JsonValue
from brickless.core.container import roles_of
from brickless.core.groups import AutoRecovery, Group, RestartPolicy
from brickless.device.supervise.unit import Goal, Status, Unit

# From worst to best: what a group is called when its members differ.
_RANK = (
    Status.STOPPED,
    Status.RECOVERING,
    Status.STOPPING,
    Status.NONE,
    Status.INSTALLED,
    Status.BLOCKED,
    Status.MOUNTED,
    Status.STARTING,
    Status.STARTED,
    Status.READY,
)


def status_of(units: Iterable[Unit], now_s: float) -> Status:
    """The worst status among those that are not at their goal; READY when all are."""
    open_ones = [unit.status for unit in units if unit.goal(now_s) in (Goal.UNACHIEVED, Goal.TIMEDOUT)]
    return min(open_ones, key=_RANK.index, default=Status.READY)


def container(unit: Unit, *, default_mgmt: bool) -> dict[str, JsonValue]:
    """One container: the members of `GET /containers`, and what only the runtime's own processes ask for."""
    described = unit.job.container
    answer: dict[str, JsonValue] = {
        "name": unit.name,
        "group": described.group,
        "status": unit.status.name,
        "status_goal": str(described.status_goal),
        "restart_policy": str(described.restart_policy),
        "roles": list(roles_of(described, default_mgmt=default_mgmt)),
    }
    recovery = described.auto_recovery
    if recovery is not None:
        answer["auto_recovery"] = {
            "policy": str(recovery.policy),
            "max_retries": recovery.max_retries,
            "current_retries": unit.retries,
            "stable_timeout": recovery.stable_timeout_s,
            "is_stable": _word(unit.is_stable),
            "backoff_policy": _backoff(recovery),
        }
    if described.restart_policy is RestartPolicy.CONTAINER:
        answer["user_stopped"] = _word(unit.user_stopped)
    answer["pid"] = unit.handle.pid if unit.handle is not None else 0
    return answer


def group(one: Group, members: Sequence[Unit], now_s: float) -> dict[str, JsonValue]:
    """One row of `GET /groups`."""
    answer: dict[str, JsonValue] = {
        "name": one.name,
        "status_goal": str(one.status_goal),
        "restart_policy": str(one.restart_policy),
        "status": status_of(members, now_s).name,
    }
    if one.auto_recovery is not None:
        answer["auto_recovery"] = {
            "max_retries": one.auto_recovery.max_retries,
            "stable_timeout": one.auto_recovery.stable_timeout_s,
            "backoff_policy": _backoff(one.auto_recovery),
        }
    return answer


def groups(known: Sequence[Group], units: Iterable[Unit], now_s: float) -> list[JsonValue]:
    """All groups in boot order."""
    members: dict[str, list[Unit]] = {one.name: [] for one in known}
    for unit in units:
        members.setdefault(unit.job.container.group, []).append(unit)
    return [group(one, members[one.name], now_s) for one in known]


def _backoff(recovery: AutoRecovery) -> str:
    """The policy as a manifest writes it."""
    return f"{recovery.backoff_s}s" if recovery.backoff_policy == "duration" else recovery.backoff_policy


def _word(value: bool) -> str:
    """The reference writes these two as strings."""
    return "true" if value else "false"
