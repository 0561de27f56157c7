"""What must happen to go from one revision to another: a reboot, or these containers stopped and those started.

The rule is the contract's (device.md 4.6): an entry that belongs to no container forces a reboot, and so does one
whose container has the restart policy `system` in either revision. Everything else restarts only its container.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from brickless.core.canonical import equal
from brickless.core.container import Container
from brickless.core.groups import RestartPolicy
from brickless.core.state import State

_SHOWN = 3
# Files that only authors and verifiers read: the reference does not compare them either.
_UNCOMPARED = frozenset({"src.json", "build.json"})


class Transition(NamedTuple):
    """The way between two revisions.

    `reasons` say for people why it is a reboot, or what is restarted. `stop` is in the order of stopping (the last
    group first), `start` and `keep` in boot order; all three are empty when the device reboots.
    """

    reboot: bool
    reasons: tuple[str, ...]
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def plan(old: State, new: State, *, force_reboot: str = "") -> Transition:
    """Compare two revisions. `force_reboot` is the bootloader's reason to reboot in any case, "" for none."""
    touched, reasons = _sort_changes(old, new)
    if force_reboot:
        reasons.insert(0, force_reboot)
    for name in sorted(touched):
        for side, state in (("", old), ("new ", new)):
            container = state.containers.get(name)
            if container is not None and container.restart_policy is RestartPolicy.SYSTEM:
                reasons.append(f"{touched[name]}, and the {side}container {name} has the restart policy 'system'")
                break
    if reasons:
        return Transition(True, tuple(reasons))
    return Transition(
        False,
        tuple(f"{touched[name]}: only the container {name} is concerned" for name in sorted(touched)),
        tuple(reversed([name for name in boot_order(old) if name in touched])),
        tuple(name for name in boot_order(new) if name in touched),
        tuple(name for name in boot_order(new) if name not in touched),
    )


def boot_order(state: State) -> list[str]:
    """Return the names of the containers in the order of starting: by group, then by name."""
    ranks = {group.name: rank for rank, group in enumerate(state.groups)}
    return sorted(state.containers, key=lambda name: (ranks[state.containers[name].group], name))


def changes(old: State, new: State) -> Iterator[tuple[str, str]]:
    """Yield each path that differs with one of the words added, removed, changed; authors' files are passed over."""
    for path in sorted({*old.entries, *new.entries}):
        if path.startswith("_sigs/") or path.rpartition("/")[2] in _UNCOMPARED:
            continue
        if path not in old.entries:
            yield path, "added"
        elif path not in new.entries:
            yield path, "removed"
        elif not equal(old.entries[path], new.entries[path]):
            yield path, "changed"


def _sort_changes(old: State, new: State) -> tuple[dict[str, str], list[str]]:
    """Return what happened to each container, and the reasons that belong to none."""
    by_owner: dict[str | None, list[str]] = {}
    for path, word in changes(old, new):
        # A container that comes or goes owns its files in one of the two only.
        owner = new.owner(path) or old.owner(path)
        by_owner.setdefault(owner, []).append(f"{path} is {word}")
    unowned = by_owner.pop(None, [])
    touched = {name: _few(found) for name, found in by_owner.items() if name is not None}
    for name in old.containers.keys() & new.containers.keys() - touched.keys():
        if _differs(old.containers[name], new.containers[name]):
            # A container without a group moves when others come or go (contract 1.5).
            touched[name] = f"the group of {name} is now {new.containers[name].group}"
    return touched, [f"{_few(unowned)}, and belongs to no container"] if unowned else []


def _differs(old: Container, new: Container) -> bool:
    return (old.group, old.status_goal, old.restart_policy) != (new.group, new.status_goal, new.restart_policy)


def _few(found: list[str]) -> str:
    text = ", ".join(found[:_SHOWN])
    return f"{text} and {len(found) - _SHOWN} more" if len(found) > _SHOWN else text
