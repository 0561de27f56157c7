"""States for people: which containers there are, what became of them, in images, sizes and settings. Pure.

Any entries can be shown, also those that a device would refuse: this module describes, it does not judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.merge import diff_entries
from brickless.core.state import is_inline_json, is_object_id
from brickless.pvr import progress

SizeOf = Callable[[str], int | None]
#: The packages of an image by its hash: name to version; empty when that is not known.
PackagesOf = Callable[[str], Mapping[str, str]]
MAX_DETAILS = 40
_SHORT = 12
_VALUE_WIDTH = 60


class Part(NamedTuple):
    """One part of a state: a container, the BSP, or what belongs to neither.

    `kind` is container, bsp or files; `size_bytes` counts each object once, None when one of them is not known.
    `entries` holds the part's own paths and those of its configuration.
    """

    name: str
    kind: str
    image: str
    digest: str
    group: str
    status_goal: str
    restart_policy: str
    size_bytes: int | None
    signed: bool
    entries: Mapping[str, JsonValue]


class PartChange(NamedTuple):
    """What became of a part: `kind` is added, removed or changed; `details` are lines for people."""

    name: str
    kind: str
    old: Part | None
    new: Part | None
    details: tuple[str, ...]


def parts(entries: Mapping[str, JsonValue], size_of: SizeOf) -> list[Part]:
    """Return the parts of a state: the BSP first, then the containers by name, then all other files."""
    members: dict[str, dict[str, JsonValue]] = {}
    for path, value in entries.items():
        if not path.startswith(("#spec", "_sigs/")):
            members.setdefault(_part_of(path), {})[path] = value
    found = [_describe(name, own, entries, size_of) for name, own in members.items()]
    ranks = {"bsp": 0, "container": 1, "files": 2}
    return sorted(found, key=lambda part: (ranks[part.kind], part.name))


def no_packages(_sha: str) -> Mapping[str, str]:
    """For who does not look into images."""
    return {}


def compare(
    old: Mapping[str, JsonValue],
    new: Mapping[str, JsonValue],
    size_of: SizeOf,
    packages_of: PackagesOf = no_packages,
) -> list[PartChange]:
    """Return the parts that differ between two states, in the order of `parts`."""
    before = {part.name: part for part in parts(old, size_of)}
    after = {part.name: part for part in parts(new, size_of)}
    changes = []
    for name in [*after, *(name for name in before if name not in after)]:
        left, right = before.get(name), after.get(name)
        if left is None or right is None:
            changes.append(PartChange(name, "added" if left is None else "removed", left, right, ()))
        elif details := list(_details(left, right, size_of, packages_of)):
            changes.append(PartChange(name, "changed", left, right, tuple(_bounded(details))))
    return changes + _signature_changes(old, new)


def json_changes(old: JsonValue, new: JsonValue, where: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Yield one line for each member that differs: `.group: "app" → "platform"`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            place = (*where, key)
            if key not in old:
                yield f"{canonical.pointer(place)}: {_value(new[key])} is new"
            elif key not in new:
                yield f"{canonical.pointer(place)}: {_value(old[key])} is gone"
            else:
                yield from json_changes(old[key], new[key], place)
    elif not canonical.equal(old, new):
        yield f"{canonical.pointer(where)}: {_value(old)} → {_value(new)}".removeprefix(": ")


def show(found: list[Part]) -> list[str]:
    """Lay the parts of a state out in lines."""
    lines = []
    for part in found:
        facts = [part.image, _digest(part.digest), human_size(part.size_bytes)]
        facts += [f"group {part.group}" if part.group else "", part.status_goal, part.restart_policy]
        facts.append("signed" if part.signed else "")
        lines.append(f"{part.name:<20} {part.kind:<10} {', '.join(filter(None, facts))}".rstrip())
        lines += [f"  {path}" for path in sorted(part.entries)] if part.kind == "files" else []
    return lines


def show_changes(changes: list[PartChange]) -> list[str]:
    """Lay changes out in lines: `+` added, `-` removed, `~` changed."""
    lines = []
    for change in changes:
        part = change.new or change.old
        mark = {"added": "+", "removed": "-", "changed": "~"}[change.kind]
        facts = [] if part is None else [part.image, _digest(part.digest), human_size(part.size_bytes)]
        if change.kind == "changed" and change.old is not None and change.new is not None:
            facts = [_growth(change.old.size_bytes, change.new.size_bytes)]
        lines.append(f"{mark} {change.name:<20} {', '.join(filter(None, facts))}".rstrip())
        lines += [f"    {detail}" for detail in change.details]
    return lines


def human_size(size_bytes: int | None) -> str:
    """A size for people; "" when it is unknown."""
    return "" if size_bytes is None else progress.human_size(size_bytes)


def _part_of(path: str) -> str:
    first, slash, rest = path.partition("/")
    if not slash:
        return "(device)"
    return rest.partition("/")[0] if first == "_config" and "/" in rest else first


def _describe(name: str, own: dict[str, JsonValue], entries: Mapping[str, JsonValue], size_of: SizeOf) -> Part:
    run, source = _object(own.get(f"{name}/run.json")), _object(own.get(f"{name}/src.json"))
    kind = "bsp" if name == "bsp" else "container" if f"{name}/run.json" in own else "files"
    tag = _text(source, "docker_tag")
    image = _text(source, "docker_name") or _text(source, "rootfs_url") or _text(source, "pvr")
    return Part(
        name,
        kind,
        f"{image}:{tag}" if image and tag else image,
        _text(source, "docker_digest") or _text(source, "rootfs_digest"),
        _text(run, "group") or _text(run, "runlevel"),
        _text(run, "status_goal"),
        _text(run, "restart_policy"),
        _size(own, size_of),
        f"_sigs/{name}.json" in entries,
        own,
    )


def _details(old: Part, new: Part, size_of: SizeOf, packages_of: PackagesOf) -> Iterator[str]:
    if (old.image, old.digest) != (new.image, new.digest):
        yield f"image {old.image} {_digest(old.digest)} → {new.image} {_digest(new.digest)}"
    for path, value in sorted(diff_entries(old.entries, new.entries).items()):
        name = path.removeprefix(f"{new.name}/")
        if path not in old.entries:
            yield f"{name} is added{_sized(value, size_of)}"
        elif path not in new.entries:
            yield f"{name} is removed"
        elif is_inline_json(path, value) and is_inline_json(path, old.entries[path]):
            yield from (f"{name} {line}" for line in json_changes(old.entries[path], value))
        else:
            sizes = _growth(_object_size(old.entries[path], size_of), _object_size(value, size_of))
            yield f"{name} is changed{f' ({sizes})' if sizes else ''}"
            if name.endswith(".squashfs"):
                yield from package_changes(packages_of(str(old.entries[path])), packages_of(str(value)))


def package_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each package that came, went or has another version; nothing when one side is not known."""
    if not old or not new:
        return
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"package {name} {new[name]} is added"
        elif name not in new:
            yield f"package {name} {old[name]} is removed"
        elif old[name] != new[name]:
            yield f"package {name} {old[name]} → {new[name]}"


def _signature_changes(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> list[PartChange]:
    details = []
    for path, _ in sorted(diff_entries(old, new).items()):
        if path.startswith("_sigs/"):
            word = "added" if path not in old else "removed" if path not in new else "made anew"
            details.append(f"{path.removeprefix('_sigs/').removesuffix('.json')} is {word}")
    return [PartChange("(signatures)", "changed", None, None, tuple(_bounded(details)))] if details else []


def _bounded(details: list[str]) -> list[str]:
    if len(details) <= MAX_DETAILS:
        return details
    return [*details[:MAX_DETAILS], f"... and {len(details) - MAX_DETAILS} more"]


def _size(own: Mapping[str, JsonValue], size_of: SizeOf) -> int | None:
    total = 0
    for sha in {str(value) for path, value in own.items() if not is_inline_json(path, value)}:
        size = size_of(sha) if is_object_id(sha) else None
        if size is None:
            return None
        total += size
    return total


def _object_size(value: JsonValue, size_of: SizeOf) -> int | None:
    return size_of(str(value)) if is_object_id(value) else None


def _sized(value: JsonValue, size_of: SizeOf) -> str:
    size = human_size(_object_size(value, size_of))
    return f" ({size})" if size else ""


def _growth(old: int | None, new: int | None) -> str:
    if old is None or new is None:
        return human_size(new)
    difference = new - old
    sign = "+" if difference > 0 else "-"
    tail = f" ({sign}{human_size(abs(difference))})" if difference else ""
    return f"{human_size(old)} → {human_size(new)}{tail}" if difference else human_size(new)


def _digest(digest: str) -> str:
    """The first digits of a digest: enough for people to tell two apart."""
    algorithm, colon, value = digest.rpartition("@")[2].partition(":")
    return f"{algorithm}:{value[:_SHORT]}" if colon else digest[:_SHORT]


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, JsonValue], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _value(value: JsonValue) -> str:
    text = canonical.dumps(value).decode()
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 1] + "…"
