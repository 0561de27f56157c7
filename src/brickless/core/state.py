"""The state of a device: the one flat JSON object that a revision is, read strictly (spec/state.md).

The bytes that were received are kept as they are: signatures and the comparison of revisions are made over them. Keys
and members that we do not know are kept, too. Everything that breaks a rule is refused with the path of the fault and
the name of the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core import canonical, paths
from brickless.core.bsp import Bsp, Tree, parse_bsp
from brickless.core.canonical import JsonValue, pointer
from brickless.core.container import Container, Surroundings, check_remount, parse_containers
from brickless.core.disks import Disk, Persistence, Pool, Storage, parse_disks, parse_pools, parse_storage
from brickless.core.errors import JsonError, StateError
from brickless.core.groups import (
    STOCK_GROUPS,
    AutoRecovery,
    Group,
    RecoveryPolicy,
    RestartPolicy,
    StatusGoal,
    parse_groups,
)
from brickless.core.node import Node, shown

__all__ = [
    "KNOWN_SPECS",
    "STOCK_GROUPS",
    "AutoRecovery",
    "Bsp",
    "Container",
    "Disk",
    "Group",
    "Persistence",
    "Pool",
    "RecoveryPolicy",
    "RestartPolicy",
    "State",
    "StatusGoal",
    "Storage",
    "is_inline_json",
    "is_object_id",
    "parse_entries",
    "parse_state",
    "validate",
]

SYSTEM_SPEC = "pantavisor-service-system@1"
KNOWN_SPECS = (SYSTEM_SPEC, "pantavisor-multi-platform@1", "pantavisor-service-embed@1")
"""What a hub stores for all its devices; this runtime runs the first alone."""

MAX_STATE_BYTES = 8 * 1024 * 1024
MAX_ENTRIES = 65536
SPEC_KEY = "#spec"

# Manifests are read by the runtime: stored as an object they would be passed over in silence.
_DEVICE_MANIFESTS = frozenset(
    {"device.json", "disks.json", "disks_v3.json", "groups.json", "bsp/run.json", "bsp/drivers.json"}
)
_CONTAINER_MANIFESTS = frozenset({"run.json", "services.json"})
_OBJECT_ID = re.compile(r"[0-9a-f]{64}")
_HEX_64 = re.compile(r"[0-9A-Fa-f]{64}")


class State:
    """A revision's content. Made by `parse_state`; never changes."""

    __slots__ = (
        "_canonical",
        "bsp",
        "containers",
        "disks",
        "entries",
        "groups",
        "groups_are_stock",
        "jsons",
        "objects",
        "pools",
        "raw",
        "remount",
        "spec",
        "volumes",
    )

    raw: bytes
    """The bytes as they were received."""
    spec: str
    entries: Mapping[str, JsonValue]
    """Every path with its value, `#spec` left out."""
    objects: Mapping[str, str]
    """The paths that are files by content hash."""
    jsons: Mapping[str, JsonValue]
    """The paths that are inline JSON."""
    containers: Mapping[str, Container]
    """By name, in alphabetical order."""
    groups: tuple[Group, ...]
    """In boot order."""
    groups_are_stock: bool
    """The state has no groups of its own: the device's defaults stand in."""
    bsp: Bsp | None
    disks: tuple[Disk, ...]
    volumes: tuple[Storage, ...]
    """The device's own volumes, such as `pv--devmeta`."""
    pools: tuple[Pool, ...]
    remount: Mapping[str, JsonValue]

    def __init__(self, raw: bytes, entries: dict[str, JsonValue], default_groups: tuple[Group, ...]) -> None:
        """Build the values from entries whose keys and shapes are checked already. Raises `StateError`."""
        self.raw = raw
        self.spec = SYSTEM_SPEC
        self.entries = {path: value for path, value in entries.items() if path != SPEC_KEY}
        self.jsons = {path: value for path, value in self.entries.items() if is_inline_json(path, value)}
        self.objects = {path: str(value) for path, value in self.entries.items() if path not in self.jsons}
        self._canonical: bytes | None = None
        tree = Tree(self.entries, _folders(self.entries))
        device = _parse_device(self.entries)
        self.groups = device.groups or default_groups
        self.groups_are_stock = not device.groups
        self.disks, self.volumes, self.pools, self.remount = device[1:]
        self.bsp = parse_bsp(tree)
        around = Surroundings(tree, self.groups, self.groups_are_stock, self.disks, self.pools)
        self.containers = parse_containers(_container_folders(self.jsons), around)

    def canonical(self) -> bytes:
        """Return the canonical JSON of the whole state, `#spec` included."""
        if self._canonical is None:
            self._canonical = canonical.dumps({SPEC_KEY: self.spec, **self.entries})
        return self._canonical

    @property
    def sha(self) -> str:
        """Return the hex SHA-256 of the canonical JSON: the hub's `state-sha`."""
        return canonical.sha256_hex(self.canonical())

    def owner(self, path: str) -> str | None:
        """Return the container that a path belongs to: by its first component, or the second below `_config`."""
        first, _, rest = path.partition("/")
        name = rest.partition("/")[0] if first == "_config" else first
        return name if rest and name in self.containers else None

    def __repr__(self) -> str:
        """Return a short text for debugging."""
        return f"<State of {len(self.entries)} entries, containers {', '.join(self.containers) or 'none'}>"


def parse_state(
    data: bytes,
    *,
    default_groups: tuple[Group, ...] = STOCK_GROUPS,
    require_bsp: bool = False,
    max_bytes: int = MAX_STATE_BYTES,
) -> State:
    """Read the state of a device.

    `default_groups` stand in when the state has none of its own. `require_bsp` is for a device that boots from its
    revision: without it a state may leave out the BSP, as fragments and emulated devices do.

    Raises `StateError` with the path of the fault.
    """
    entries = parse_entries(data, specs=(SYSTEM_SPEC,), max_bytes=max_bytes)
    if not entries:
        raise StateError("", "the member '#spec' is missing", rule="spec-missing")
    state = State(data, entries, default_groups)
    if require_bsp and state.bsp is None:
        raise StateError("bsp/run.json", "is missing: the device could not boot this revision", rule="bsp-missing")
    return state


def parse_entries(
    data: bytes, *, specs: Iterable[str] = KNOWN_SPECS, max_bytes: int = MAX_STATE_BYTES
) -> dict[str, JsonValue]:
    """Read any state of the given formats as far as a hub or a repository must: the JSON, the paths and the object ids.

    The empty object is valid here (contract hub.md 3.2). Returns all members, `#spec` included. Raises `StateError`.
    """
    try:
        value = canonical.loads(data, max_bytes=max_bytes, strict=True)
    except JsonError as error:
        raise _as_state_error(error) from error
    if not isinstance(value, dict):
        raise StateError("", "a state is one JSON object", rule="state-not-an-object")
    check_entries(value, specs=specs)
    return value


def validate(entries: Mapping[str, JsonValue]) -> None:
    """Check the members of a state, `#spec` included, by every rule that `parse_state` knows. Raises `StateError`."""
    check_entries(entries, specs=(SYSTEM_SPEC,))
    if not entries:
        raise StateError("", "the member '#spec' is missing", rule="spec-missing")
    State(b"", dict(entries), STOCK_GROUPS)


def check_entries(entries: Mapping[str, JsonValue], *, specs: Iterable[str] = KNOWN_SPECS) -> None:
    """Check the format's name, every path and every object id. Raises `StateError`."""
    if not entries:
        return
    _check_spec(entries.get(SPEC_KEY), tuple(specs))
    if len(entries) > MAX_ENTRIES:
        raise StateError("", f"has {len(entries)} entries, at most {MAX_ENTRIES} are read", rule="state-entries")
    for path, value in entries.items():
        if path != SPEC_KEY:
            _check_entry(path, value)
    folders = _folders(entries)
    for path in entries:
        if path in folders:
            raise StateError(path, "is a file and a folder of other files at once", rule="path-conflict")


def is_object_id(value: object) -> bool:
    """Tell whether the value is the SHA-256 of an object: 64 lower-case hex digits."""
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None


def is_inline_json(path: str, value: JsonValue) -> bool:
    """Tell whether an entry is inline JSON: its path ends in `.json` and its value is no string of 64 hex digits."""
    return path.endswith(".json") and not (isinstance(value, str) and _HEX_64.fullmatch(value))


def _as_state_error(error: JsonError) -> StateError:
    if error.where and isinstance(error.where[0], str):
        place = pointer(error.where[1:])
        return StateError(f"{error.where[0]}: {place}" if place else error.where[0], error.message, rule=error.rule)
    reason = f"{error.message} ({error.context})" if error.context else error.message
    return StateError("", reason, rule=error.rule)


def _check_spec(spec: JsonValue, specs: tuple[str, ...]) -> None:
    if spec is None:
        raise StateError("", "the member '#spec' is missing", rule="spec-missing")
    if not isinstance(spec, str):
        raise StateError(SPEC_KEY, "must be a string", rule="spec-not-a-string")
    if spec in specs:
        return
    if spec in KNOWN_SPECS:
        reason = f"{shown(spec)} is an older format that this runtime does not run"
        raise StateError(SPEC_KEY, reason, rule="spec-unsupported", hint=f"Set #spec to {SYSTEM_SPEC}")
    raise StateError(SPEC_KEY, f"{shown(spec)} is no known format", rule="spec-unknown")


def _check_entry(path: str, value: JsonValue) -> None:
    found = paths.fault(path)
    if found:
        raise StateError(shown(path), found[1], rule=found[0])
    if path.startswith(SPEC_KEY):
        raise StateError(path, "keys that begin with '#spec' are never files", rule="path-spec")
    if is_inline_json(path, value):
        return
    if not is_object_id(value):
        if path.endswith(".json"):
            raise StateError(path, "is an object id with upper-case digits", rule="object-id-case")
        reason = "must be the SHA-256 of an object (64 lower-case hex digits): only a path that ends in .json is inline"
        raise StateError(path, reason, rule="object-id")
    if path in _DEVICE_MANIFESTS or (path.count("/") == 1 and _is_manifest(path)):
        raise StateError(path, "is stored as an object, but the runtime reads it inline", rule="manifest-not-inline")


def _is_manifest(path: str) -> bool:
    folder, _, name = path.partition("/")
    return name in _CONTAINER_MANIFESTS and not folder.startswith("_") and folder != "bsp"


def _container_folders(jsons: Mapping[str, JsonValue]) -> list[str]:
    return [
        path.partition("/")[0]
        for path in jsons
        if path.endswith("/run.json") and path.count("/") == 1 and _is_manifest(path)
    ]


def _folders(entries: Iterable[str]) -> set[str]:
    folders: set[str] = set()
    for path in entries:
        end = path.rfind("/")
        while end > 0 and path[:end] not in folders:
            folders.add(path[:end])
            end = path.rfind("/", 0, end)
    return folders


class _Device(NamedTuple):
    groups: tuple[Group, ...] = ()
    disks: tuple[Disk, ...] = ()
    volumes: tuple[Storage, ...] = ()
    pools: tuple[Pool, ...] = ()
    remount: Mapping[str, JsonValue] = {}


def _parse_device(entries: Mapping[str, JsonValue]) -> _Device:
    if "device.json" not in entries:
        return _parse_older_device(entries)
    node = Node("device.json", entries["device.json"])
    groups = node.get("groups")
    if groups is None:
        node.at("groups", None).fail(
            "groups-missing",
            "'groups' is missing: other runtimes would pass over disks, volumes and network, too",
            hint="List the groups, or leave out device.json to get the stock groups",
        )
    disks = parse_disks(
        (array, key == "disks_v3") for key in ("disks", "disks_v2", "disks_v3") if (array := node.get(key)) is not None
    )
    volumes, network, remount = node.get("volumes"), node.get("network"), node.get("remount")
    pools = None if network is None else network.get("pools")
    if remount is not None:
        check_remount(remount)
    return _Device(
        parse_groups(groups),
        disks,
        () if volumes is None else parse_storage(volumes, disks),
        () if pools is None else parse_pools(pools),
        {} if remount is None else remount.object(),
    )


def _parse_older_device(entries: Mapping[str, JsonValue]) -> _Device:
    """Read `disks.json`, `disks_v3.json` and `groups.json`, which count only where there is no `device.json`."""
    arrays: list[tuple[Node, bool]] = []
    for name, tolerant in (("disks.json", False), ("disks_v3.json", True)):
        if name in entries:
            node = Node(name, entries[name])
            inner = None if isinstance(node.value, list) else node.get(name.removesuffix(".json"))
            arrays.append((inner or node, tolerant))
    groups = parse_groups(Node("groups.json", entries["groups.json"])) if "groups.json" in entries else ()
    return _Device(groups, parse_disks(arrays))
