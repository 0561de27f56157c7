"""What a post would cost the device: bytes to fetch, a reboot or not and why, the containers that restart. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from brickless.core import canonical, transition
from brickless.core.canonical import JsonValue
from brickless.core.errors import StateError
from brickless.core.state import State, is_inline_json, is_object_id, parse_state


class Needed(NamedTuple):
    """An object that the device lacks; `size_bytes` is None when nobody knows it."""

    path: str
    sha: str
    size_bytes: int | None


class Plan(NamedTuple):
    """The consequences of a post.

    `refused` is the reason why the device will not take the state ("" when it will). `reboot` is None when that
    cannot be told, and `reasons` then say why. Each object counts once, under the first of its paths.
    """

    needed: tuple[Needed, ...]
    kept_objects: int
    refused: str
    reboot: bool | None
    reasons: tuple[str, ...]
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        """The sum of all sizes that are known."""
        return sum(item.size_bytes or 0 for item in self.needed)

    @property
    def unknown_sizes(self) -> int:
        """How many objects have a size that nobody knows."""
        return sum(item.size_bytes is None for item in self.needed)


def plan(
    old: Mapping[str, JsonValue],
    new: Mapping[str, JsonValue],
    *,
    size_of: Callable[[str], int | None],
    device_has: Collection[str] = (),
) -> Plan:
    """Compare what the device runs with what would be posted.

    `device_has` are objects that it holds beyond its current state's, for example those of its earlier revisions.
    """
    present = set(objects(old).values()) | set(device_has)
    wanted: dict[str, str] = {}
    for path, sha in sorted(objects(new).items()):
        wanted.setdefault(sha, path)
    needed = tuple(Needed(path, sha, size_of(sha)) for sha, path in wanted.items() if sha not in present)
    kept = len(wanted) - len(needed)
    after = _parse(new)
    if isinstance(after, StateError):
        return Plan(needed, kept, str(after), None, ("the device would refuse the state",))
    before = _parse(old)
    if isinstance(before, StateError):
        return Plan(needed, kept, "", None, (f"what the device runs now cannot be read: {before}",))
    way = transition.plan(before, after)
    return Plan(needed, kept, "", way.reboot, way.reasons, way.stop, way.start, way.keep)


def objects(entries: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the entries that name objects: path -> sha."""
    return {
        path: str(value)
        for path, value in entries.items()
        if not path.startswith("#spec") and not is_inline_json(path, value) and is_object_id(value)
    }


def _parse(entries: Mapping[str, JsonValue]) -> State | StateError:
    try:
        return parse_state(canonical.dumps(entries))
    except StateError as error:
        return error
