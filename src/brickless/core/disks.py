"""What `device.json` says beside the groups: disks, device volumes and network pools (contract device.md 1.6-1.8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.node import Node, shown

MAX_DISKS = 64
MAX_DUAL_DISKS = 4
MAX_DUAL_STEPS = 8
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+@ :~-]{0,127}")
_CRYPT_PATH = re.compile(r"(?:-v2 )?[^,]+,[1-9][0-9]{0,9},[^,/]+")
_IPV4 = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
STEPS = frozenset({"primary", "secondary", "create-primary", "create-secondary", "copy-once-to-primary"})


class DiskType(StrEnum):
    """The disks that a revision may ask for."""

    VERSATILE = "dm-crypt-versatile"
    CAAM = "dm-crypt-caam"
    DCP = "dm-crypt-dcp"
    SWAP = "swap-disk"
    VOLUME = "volume-disk"
    DUAL = "dual"


CRYPT = frozenset({DiskType.VERSATILE, DiskType.CAAM, DiskType.DCP})


class Persistence(StrEnum):
    """How long what is written lives: for ever, with its revision, until the next boot."""

    PERMANENT = "permanent"
    REVISION = "revision"
    BOOT = "boot"


class Storage(NamedTuple):
    """Writable storage of a container, or of the device. `disk` is the name or alias of a disk, "" for the storage.

    `snapshot`: what is in it belongs to the revision; a rollback brings back what was there (spec/state.md).
    """

    name: str
    persistence: Persistence
    disk: str = ""
    snapshot: bool = False


class Disk(NamedTuple):
    """A disk. `extra` holds the members that this version does not know."""

    name: str
    type: str
    path: str = ""
    mode: str = ""
    format: str = ""
    format_options: str = ""
    mount_options: str = ""
    mount_target: str = ""
    provision: str = ""
    provision_options: str = ""
    uuid: str = ""
    is_default: bool = False
    aliases: tuple[str, ...] = ()
    migrate_keyblob: bool = False
    disks: tuple[str, ...] = ()
    init_order: tuple[str, ...] = ()
    extra: Mapping[str, JsonValue] = {}


class Pool(NamedTuple):
    """A pool of container addresses; `subnet` is `a.b.c.d/n`. `isolated`: other pools do not reach it (ours)."""

    name: str
    type: str = "bridge"
    bridge: str = ""
    parent: str = ""
    subnet: str = ""
    gateway: str = ""
    nat: bool = False
    isolated: bool = False
    extra: Mapping[str, JsonValue] = {}


_DISK_KEYS = frozenset(Disk._fields) - {"is_default", "extra"} | {
    "default",
    "format_ops",
    "mount_ops",
    "provision_ops",
}
_POOL_KEYS = frozenset(Pool._fields) - {"extra"}


def parse_disks(arrays: Iterable[tuple[Node, bool]]) -> tuple[Disk, ...]:
    """Read the arrays of disks; the flag beside each says whether unknown types are tolerated (`disks_v3`)."""
    disks: list[Disk] = []
    names: set[str] = set()
    for array, tolerant in arrays:
        for node in array.elements():
            disk = _parse_disk(node, tolerant)
            for name in (disk.name, *disk.aliases):
                if name in names:
                    node.fail("disk-duplicate", f"the disk name or alias {name!r} is there twice")
                names.add(name)
            if disk.is_default and any(other.is_default for other in disks):
                node.fail("disk-default", "a second disk is the default")
            disks.append(disk)
            if len(disks) > MAX_DISKS:
                node.fail("disk-count", f"more than {MAX_DISKS} disks")
            for member in disk.disks:
                if member not in names:
                    node.fail("disk-unknown", f"the dual disk names {shown(member)}, which no disk before it is called")
    return tuple(disks)


def _parse_disk(node: Node, tolerant: bool) -> Disk:
    kind = node.required("type")
    known = kind.text() if tolerant else kind.choice(DiskType, "disk-type").value
    disk = Disk(
        name=_name(node.required("name"), "disk-name"),
        type=known,
        path=node.text_of("path"),
        mode=node.text_of("mode"),
        format=node.text_of("format"),
        # The documentation of the reference says `..._ops`, its source `..._options`: both are read.
        format_options=node.text_of("format_options") or node.text_of("format_ops"),
        mount_options=node.text_of("mount_options") or node.text_of("mount_ops"),
        mount_target=node.text_of("mount_target"),
        provision=node.text_of("provision"),
        provision_options=node.text_of("provision_options") or node.text_of("provision_ops"),
        uuid=node.text_of("uuid"),
        is_default=bool(node.flag_of("default")),
        aliases=tuple(_name(alias, "disk-name") for alias in node.items("aliases")),
        migrate_keyblob=bool(node.flag_of("migrate_keyblob")),
        disks=node.texts_of("disks"),
        init_order=node.texts_of("init_order"),
        extra={key: value for key, value in node.object().items() if key not in _DISK_KEYS},
    )
    if known in CRYPT and not _CRYPT_PATH.fullmatch(disk.path):
        node.at("path", disk.path).fail("disk-path", "a dm-crypt disk's path is <image file>,<size in MB>,<key name>")
    if known == DiskType.DUAL:
        _check_dual(node, disk)
    return disk


def _check_dual(node: Node, disk: Disk) -> None:
    if not 1 <= len(disk.disks) <= MAX_DUAL_DISKS:
        node.fail("disk-dual", f"a dual disk has 1 to {MAX_DUAL_DISKS} disks")
    if len(disk.init_order) > MAX_DUAL_STEPS:
        node.fail("disk-dual", f"a dual disk has at most {MAX_DUAL_STEPS} steps")
    for step in node.items("init_order"):
        if step.text() not in STEPS:
            step.fail("disk-dual", f"{shown(step.text())} is none of {', '.join(sorted(STEPS))}")


def _name(node: Node, rule: str) -> str:
    text = node.text()
    if not _NAME.fullmatch(text) or text in {".", ".."}:
        node.fail(rule, f"{shown(text)} is no name: letters, digits and ._+@:~- are")
    return text


def parse_storage(node: Node, disks: Iterable[Disk]) -> tuple[Storage, ...]:
    """Read a `storage` or `volumes` object.

    The reference takes an unknown persistence for `boot` and passes over an entry that has none: data would be lost
    at the next boot without a word, so both are refused.
    """
    known = {name for disk in disks for name in (disk.name, *disk.aliases)}
    made: list[Storage] = []
    for name, member in node.members():
        _name(Node(member.entry, name, member.where), "storage-name")
        persistence = member.required("persistence").choice(Persistence, "persistence")
        disk = member.get("disk")
        if disk is not None and disk.text() not in known:
            disk.fail("disk-unknown", f"no disk is called {shown(disk.text())}")
        made.append(Storage(name, persistence, "" if disk is None else disk.text(), _parse_snapshot(member)))
    return tuple(made)


def _parse_snapshot(member: Node) -> bool:
    """Read our own member `snapshot`: for permanent storage on the storage partition, where a copy can be renamed."""
    node = member.get("snapshot")
    if node is None:
        return False
    if not isinstance(node.value, bool):
        node.fail("snapshot", "must be true or false")
    if node.value and (member.required("persistence").value != Persistence.PERMANENT or member.get("disk")):
        node.fail("snapshot", "is for permanent storage without a disk")
    return node.value


def parse_pools(node: Node) -> tuple[Pool, ...]:
    """Read `network.pools`. The reference logs an invalid pool and starts its containers without; we refuse it."""
    return tuple(_parse_pool(name, pool) for name, pool in node.members())


def _parse_pool(name: str, node: Node) -> Pool:
    _name(Node(node.entry, name, node.where), "pool-name")
    kind = node.text_of("type", "bridge")
    if kind not in {"bridge", "macvlan"}:
        node.at("type", kind).fail("pool-type", f"{shown(kind)} is none of bridge, macvlan")
    device = node.required("bridge" if kind == "bridge" else "parent")
    if not _INTERFACE.fullmatch(device.text()):
        device.fail("interface-name", f"{shown(device.text())} is no name of a network interface")
    subnet, gateway = node.required("subnet"), node.required("gateway")
    network = parse_subnet(subnet.text())
    if network is None:
        subnet.fail("subnet", f"{shown(subnet.text())} is no IPv4 subnet such as 10.0.3.0/24")
    address = parse_ipv4(gateway.text())
    if address is None or not in_subnet(address, network):
        gateway.fail("gateway", f"{shown(gateway.text())} is no IPv4 address inside {subnet.text()}")
    return Pool(
        name,
        kind,
        node.text_of("bridge"),
        node.text_of("parent"),
        subnet.text(),
        gateway.text(),
        bool(node.flag_of("nat")),
        bool(node.flag_of("isolated")),
        {key: value for key, value in node.object().items() if key not in _POOL_KEYS},
    )


def parse_ipv4(text: str) -> int | None:
    """Return an IPv4 address as a number, or None (`ipaddress` costs a device half a megabyte)."""
    match = _IPV4.fullmatch(text)
    if not match or any(int(octet) > 255 for octet in match.groups()):
        return None
    return int.from_bytes(bytes(int(octet) for octet in match.groups()), "big")


def parse_subnet(text: str) -> tuple[int, int] | None:
    """Return the network's number and its prefix length, or None."""
    address, _, prefix = text.partition("/")
    number = parse_ipv4(address)
    if number is None or not re.fullmatch("[0-9]{1,2}", prefix) or not 1 <= int(prefix) <= 30:
        return None
    return number >> (32 - int(prefix)) << (32 - int(prefix)), int(prefix)


def in_subnet(address: int, network: tuple[int, int]) -> bool:
    """Tell whether the address lies in the network of `parse_subnet`."""
    return address >> (32 - network[1]) == network[0] >> (32 - network[1])
