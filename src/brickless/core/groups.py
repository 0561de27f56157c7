"""Groups of containers: boot order, and the defaults of their members (contract device.md 1.5, 1.11)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from brickless.core.node import Node, shown

MAX_GROUPS = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]{0,63}")
_DURATION = re.compile(r"([0-9]{1,6})(s|min|h)?")
_UNIT_S = {None: 1, "s": 1, "min": 60, "h": 3600}


class StatusGoal(StrEnum):
    """How far a container must come for its revision to count as running, in rising order."""

    MOUNTED = "MOUNTED"
    STARTED = "STARTED"
    READY = "READY"


class RestartPolicy(StrEnum):
    """`system`: a change of the container reboots the device; `container`: only the container is started anew."""

    SYSTEM = "system"
    CONTAINER = "container"


class RecoveryPolicy(StrEnum):
    """When a container that exited is started again."""

    NO = "no"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"


class AutoRecovery(NamedTuple):
    """How a container that exited comes back. `max_retries` 0 means unlimited; all times are seconds.

    `backoff_policy` is `reboot`, `never` or `duration`, and `backoff_s` belongs to the last.
    """

    policy: RecoveryPolicy
    max_retries: int = 0
    retry_delay_s: int = 0
    reset_window_s: int = 0
    backoff_factor: float = 1.0
    stable_timeout_s: int = 0
    backoff_policy: str = "reboot"
    backoff_s: int = 0

    def delay_s(self, attempt: int) -> float:
        """Return the wait before restart `attempt` (1 is the first), at most a day: a factor grows without bound."""
        delay_s = float(self.retry_delay_s)
        for _ in range(min(attempt - 1, 64) if self.backoff_factor > 1 else 0):
            delay_s = min(delay_s * self.backoff_factor, 86400.0)
        return delay_s


class Group(NamedTuple):
    """A group. `timeout_s` None means the device's `PV_UPDATER_GOALS_TIMEOUT`."""

    name: str
    status_goal: StatusGoal = StatusGoal.STARTED
    timeout_s: int | None = None
    restart_policy: RestartPolicy = RestartPolicy.CONTAINER
    auto_recovery: AutoRecovery | None = None
    description: str = ""


STOCK_GROUPS: tuple[Group, ...] = (
    Group("data", StatusGoal.MOUNTED, 30, RestartPolicy.SYSTEM),
    Group("root", StatusGoal.STARTED, 30, RestartPolicy.SYSTEM),
    Group("platform", StatusGoal.STARTED, 30, RestartPolicy.SYSTEM),
    Group(
        "app",
        StatusGoal.STARTED,
        30,
        RestartPolicy.CONTAINER,
        AutoRecovery(RecoveryPolicy.ON_FAILURE, 5, 5, 0, 2.0, 30, "reboot"),
    ),
)
"""The groups of a device whose revision has neither `device.json` nor `groups.json`."""


def parse_groups(node: Node) -> tuple[Group, ...]:
    """Read an array of groups. Raises `StateError`."""
    groups: list[Group] = []
    for element in node.elements():
        group = _parse_group(element)
        if any(group.name == other.name for other in groups):
            element.at("name", group.name).fail("group-duplicate", f"the group {group.name!r} is there twice")
        groups.append(group)
        if len(groups) > MAX_GROUPS:
            node.fail("group-count", f"more than {MAX_GROUPS} groups")
    if not groups:
        node.fail("group-none", "there must be at least one group")
    return tuple(groups)


def _parse_group(node: Node) -> Group:
    name = node.required("name")
    if not _NAME.fullmatch(name.text()):
        name.fail("group-name", f"{shown(name.text())} is no name of a group")
    recovery = node.get("auto_recovery")
    timeout = node.get("timeout")
    return Group(
        name.text(),
        node.choice_of("status_goal", StatusGoal, "status-goal") or StatusGoal.STARTED,
        None if timeout is None else node.count_of("timeout"),
        node.choice_of("restart_policy", RestartPolicy, "restart-policy") or RestartPolicy.CONTAINER,
        None if recovery is None else parse_auto_recovery(recovery),
        _free_text(node, "description"),
    )


def _free_text(node: Node, key: str) -> str:
    value = node.object().get(key)
    if value is not None and not isinstance(value, str):
        node.at(key, value).fail("not-a-string", "must be a string")
    return value or ""


def parse_auto_recovery(node: Node) -> AutoRecovery:
    """Read an `auto_recovery` object. The reference takes an unknown policy for `no`; we refuse it."""
    policy = node.choice_of("policy", RecoveryPolicy, "recovery-policy") or RecoveryPolicy.NO
    backoff = node.get("backoff_policy")
    backoff_policy, backoff_s = ("reboot", 0) if backoff is None else _parse_backoff(backoff)
    return AutoRecovery(
        policy,
        node.count_of("max_retries"),
        node.count_of("retry_delay"),
        node.count_of("reset_window"),
        node.factor_of("backoff_factor", 1.0),
        node.count_of("stable_timeout"),
        backoff_policy,
        backoff_s,
    )


def _parse_backoff(node: Node) -> tuple[str, int]:
    text = str(node.value) if isinstance(node.value, int) and not isinstance(node.value, bool) else node.text()
    if text in {"reboot", "never"}:
        return text, 0
    match = _DURATION.fullmatch(text)
    if not match:
        node.fail("backoff-policy", f"{shown(text)} is none of reboot, never, or a time such as 30s, 5min, 1h")
    return "duration", int(match[1]) * _UNIT_S[match[2]]
