"""What people want to know of a state: its containers, their images, what differs from another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import canonical
from brickless.hub.domain.jsontext import Value

_SPEC = "#spec"
_CONFIG, _SIGNATURES = "_config", "_sigs"
_MAX_SHOWN_CHARS = 120


class Container(NamedTuple):
    """A container of a state. `version` is its image's tag, or the start of its digest."""

    name: str
    image: str
    version: str
    group: str


class Change(NamedTuple):
    """One difference: of `container` (empty: the revision as a whole), what it is, before and after."""

    container: str
    what: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """Added, removed or changed."""
        if not self.before:
            return "added"
        return "changed" if self.after else "removed"


def _text(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def containers(state: Mapping[str, Value]) -> tuple[Container, ...]:
    """The containers by name; what is malformed in them is left out, because a state may come from anywhere."""
    names = {path.partition("/")[0] for path in state if path.endswith("/run.json") and path.count("/") == 1}
    found = []
    for name in sorted(names - {_CONFIG, _SIGNATURES}):
        source, run = state.get(f"{name}/src.json"), state.get(f"{name}/run.json")
        digest = _text(source, "docker_digest").rpartition(":")[2][:12]
        image = _text(source, "docker_name") or _text(source, "rootfs_url")
        found.append(Container(name, image, _text(source, "docker_tag") or digest, _text(run, "group")))
    return tuple(found)


def parse(raw: bytes) -> dict[str, Value]:
    """The state that is stored as canonical JSON."""
    value = canonical.loads(raw)
    return dict(value) if isinstance(value, dict) else {}


def difference(old: Mapping[str, Value], new: Mapping[str, Value]) -> list[Change]:
    """What a person would say that changed: images first, then files and settings, by container."""
    before, after = ({one.name: one for one in containers(state)} for state in (old, new))
    changes = []
    for name in sorted(before.keys() | after.keys()):
        ours, theirs = before.get(name), after.get(name)
        if ours is None or theirs is None or (ours.image, ours.version) != (theirs.image, theirs.version):
            changes.append(Change(name, "container", _image(ours), _image(theirs)))
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path):
            continue
        owner = _owner(path)
        if owner in before.keys() ^ after.keys() or path.endswith("/src.json"):
            continue  # said already: the whole container came or went, or its image changed
        changes.extend(_entry(owner, path, old.get(path), new.get(path)))
    return changes


def _image(container: Container | None) -> str:
    if container is None:
        return ""
    return " ".join(filter(None, (container.image or container.name, container.version)))


def _owner(path: str) -> str:
    first, _, rest = path.partition("/")
    if first in {_CONFIG, _SIGNATURES}:
        return rest.partition("/")[0].removesuffix(".json")
    return first if rest else ""


def _entry(owner: str, path: str, old: Value | None, new: Value | None) -> list[Change]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [Change(owner, path, _shown(old), _shown(new))]
    names = sorted(old.keys() | new.keys())
    return [
        Change(owner, f"{path}: {name}", _shown(old.get(name)), _shown(new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _shown(value: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and len(value) == 64:
        return f"object {value[:12]}"
    text = value if isinstance(value, str) else canonical.dumps(value).decode("utf-8", "replace")
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def parts_of(state: bytes, sha: str) -> list[dict[str, str]]:
    """A state's containers and versions as rows for searching, each with the hash of the state."""
    return [
        {"state_sha": sha, "container": one.name[:128], "version": one.version[:128]}
        for one in containers(parse(state))
    ]
