"""A container as its `run.json` and `services.json` describe it (contract device.md 1.11-1.14)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core.bsp import Tree, check_file, check_volume
from brickless.core.canonical import JsonValue
from brickless.core.disks import Disk, Pool, Storage, in_subnet, parse_ipv4, parse_storage, parse_subnet
from brickless.core.groups import AutoRecovery, Group, RestartPolicy, StatusGoal, parse_auto_recovery
from brickless.core.limits import Limits, parse_limits
from brickless.core.node import Node, shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
RUNLEVELS = ("data", "root", "platform", "app")
SERVICE_TYPES = frozenset({"rest", "unix", "dbus", "drm", "wayland", "input"})
SYSTEM_BUS = "system-bus"
# The role that may manage the device.
MGMT = "mgmt"
# Keys that we know or know to ignore (`share`, `conditions` and `exec` are left-overs of the legacy format).
_KNOWN = frozenset(
    {
        *("#spec", "name", "type", "group", "runlevel", "config", "status_goal", "restart_policy", "roles"),
        *("root-volume", "volumes", "storage", "auto_recovery", "network", "drivers", "services", "exports"),
        *("logs", "automodfw", "dev-log", "remount", "share", "conditions", "exec"),
        "limits",
    }
)


class Drivers(NamedTuple):
    """Aliases of `bsp/drivers.json`: loaded or the container fails, loaded if possible, loaded by hand."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()


class Network(NamedTuple):
    """`host` shares the device's network; `pool` gets an address of a pool."""

    mode: str
    pool: str = ""
    hostname: str = ""
    ip: str = ""
    mac: str = ""


class Service(NamedTuple):
    """A service that a container consumes; `target` is the path at which it appears there."""

    name: str
    type: str
    role: str = ""
    interface: str = ""
    target: str = ""


class Export(NamedTuple):
    """A service that a container provides, or a name on the hosted system bus that it owns."""

    name: str
    type: str
    socket: str = ""
    bus: str = ""
    owns: str = ""
    role: str = ""
    allow: tuple[str, ...] = ()


class Container(NamedTuple):
    """A container with its group's defaults filled in. `root_volume` and `volumes` may carry the prefix `dm:`.

    `roles` is None where the manifest does not speak of roles: what that means is the device's choice (`roles_of`).
    """

    name: str
    type: str
    group: str
    config: str
    status_goal: StatusGoal
    restart_policy: RestartPolicy
    roles: tuple[str, ...] | None
    root_volume: str
    volumes: tuple[str, ...]
    storage: tuple[Storage, ...]
    auto_recovery: AutoRecovery | None
    network: Network | None
    drivers: Drivers
    requires: tuple[Service, ...]
    wants: tuple[Service, ...]
    provides: tuple[Export, ...]
    exports: tuple[str, ...]
    logs: tuple[Mapping[str, JsonValue], ...]
    automodfw: bool
    dev_log: bool | None
    remount: Mapping[str, JsonValue]
    limits: Limits
    extra: Mapping[str, JsonValue]


def roles_of(container: Container, *, default_mgmt: bool) -> tuple[str, ...]:
    """What a container may do. Without a word in its manifest: nothing, or all that the reference lets it do.

    `default_mgmt` is the switch PV_ROLES_DEFAULT_MGMT, for states that rely on the reference's default.
    """
    if container.roles is not None:
        return container.roles
    return (MGMT,) if default_mgmt else ()


class Surroundings(NamedTuple):
    """What the manifests of containers refer to."""

    tree: Tree
    groups: tuple[Group, ...]
    groups_are_stock: bool
    disks: tuple[Disk, ...]
    pools: tuple[Pool, ...]


def parse_containers(names: Iterable[str], around: Surroundings) -> dict[str, Container]:
    """Read the containers whose folders are `names`, in alphabetical order. Raises `StateError`."""
    nodes = {name: Node(f"{name}/run.json", around.tree.entries[f"{name}/run.json"]) for name in sorted(names)}
    groups = _assign_groups(nodes, around)
    containers = {name: _parse_container(name, node, groups[name], around) for name, node in nodes.items()}
    _check_buses(containers)
    return containers


def _assign_groups(nodes: Mapping[str, Node], around: Surroundings) -> dict[str, Group]:
    """Give each container its group: the one it names, else a runlevel's, else by the contract's rules (1.5).

    With stock groups the first container without one goes to `root` if nothing else is there, the others to `platform`;
    with the revision's own groups all go to the last.
    """
    by_name = {group.name: group for group in around.groups}
    assigned: dict[str, Group] = {}
    for name, node in nodes.items():
        choice = node.get("group")
        if choice is None and around.groups_are_stock:
            choice = node.get("runlevel")
            if choice is not None and choice.text() not in RUNLEVELS:
                choice.fail("runlevel", f"{shown(choice.text())} is none of {', '.join(RUNLEVELS)}")
        if choice is not None:
            if choice.text() not in by_name:
                choice.fail("group-unknown", f"no group is called {shown(choice.text())}")
            assigned[name] = by_name[choice.text()]
    for name in nodes:
        if name in assigned:
            continue
        root, platform = by_name.get("root"), by_name.get("platform")
        if not around.groups_are_stock or root is None or platform is None:
            assigned[name] = around.groups[-1]
        else:
            assigned[name] = platform if root in assigned.values() else root
    return assigned


def _parse_container(name: str, node: Node, group: Group, around: Surroundings) -> Container:
    _check_name(name, node)
    goal = node.choice_of("status_goal", StatusGoal, "status-goal") or group.status_goal
    config, recovery = node.get("config"), node.get("auto_recovery")
    if config is None and goal is not StatusGoal.MOUNTED:
        node.at("config", None).fail("container-config", f"'config' is missing, and the status goal is {goal.value}")
    root, storage, network = node.get("root-volume"), node.get("storage"), node.get("network")
    requires, wants = _parse_services(node)
    drivers, limits = node.get("drivers"), node.get("limits")
    return Container(
        name=name,
        type=_parse_type(node),
        group=group.name,
        config="" if config is None else check_file(config, name, around.tree),
        status_goal=goal,
        restart_policy=node.choice_of("restart_policy", RestartPolicy, "restart-policy") or group.restart_policy,
        roles=node.texts_of("roles") if node.get("roles") else None,
        root_volume="" if root is None else check_volume(root, name, around.tree),
        volumes=tuple(check_volume(volume, name, around.tree) for volume in node.items("volumes")),
        storage=() if storage is None else parse_storage(storage, around.disks),
        auto_recovery=group.auto_recovery if recovery is None else parse_auto_recovery(recovery),
        network=None if network is None else _parse_network(network, around.pools),
        drivers=Drivers() if drivers is None else Drivers(*(drivers.texts_of(key) for key in Drivers._fields)),
        requires=requires,
        wants=wants,
        provides=_parse_exports(name, around.tree),
        exports=tuple(_rooted(path) for path in node.items("exports")),
        logs=tuple(log.object() for log in node.items("logs")),
        automodfw=_is_on(node.object().get("automodfw")),
        dev_log=node.flag_of("dev-log"),
        remount=_parse_remount(node),
        limits=Limits() if limits is None else parse_limits(limits),
        extra={key: value for key, value in node.object().items() if key not in _KNOWN},
    )


def _is_on(value: JsonValue) -> bool:
    """Read `automodfw`: everything but "no" (and false, which is meant so) leaves it on."""
    return value != "no" and value is not False


def _check_name(name: str, node: Node) -> None:
    given = node.required("name")
    if given.text() != name:
        given.fail("container-name", f"is {shown(given.text())}, but the container's folder is called {name!r}")
    if not _NAME.fullmatch(name):
        given.fail("container-name", f"{shown(name)} is no name of a container: letters, digits and _.+-, at most 64")


def _parse_type(node: Node) -> str:
    kind = node.text_of("type", "lxc")
    if kind != "lxc":
        node.at("type", kind).fail("container-type", f"{shown(kind)} is no type of container that devices run: lxc is")
    return kind


def _parse_network(node: Node, pools: Iterable[Pool]) -> Network:
    network = Network(*(node.text_of(key) for key in Network._fields))
    mode = network.mode or ("pool" if network.pool else "host")
    if mode not in {"host", "pool"}:
        node.at("mode", mode).fail("network-mode", f"{shown(mode)} is none of host, pool")
    if network.hostname and not _HOSTNAME.fullmatch(network.hostname):
        node.at("hostname", network.hostname).fail("hostname", f"{shown(network.hostname)} is no host name")
    if network.mac and not _MAC.fullmatch(network.mac):
        node.at("mac", network.mac).fail("mac-address", f"{shown(network.mac)} is no MAC address")
    if mode == "pool":
        _check_pool(node, network, pools)
    return network._replace(mode=mode)


def _check_pool(node: Node, network: Network, pools: Iterable[Pool]) -> None:
    pool = next((pool for pool in pools if pool.name == network.pool), None)
    if pool is None:
        node.at("pool", network.pool).fail("pool-unknown", f"no network pool is called {shown(network.pool)}")
    subnet = parse_subnet(pool.subnet)
    if network.ip and subnet is not None:
        address = parse_ipv4(network.ip)
        if address is None or not in_subnet(address, subnet):
            node.at("ip", network.ip).fail("ip-address", f"{shown(network.ip)} is no address inside {pool.subnet}")


def _parse_services(node: Node) -> tuple[tuple[Service, ...], tuple[Service, ...]]:
    services = node.get("services")
    if services is None:
        return (), ()
    required, optional = (
        tuple(_parse_service(element) for element in services.items(key)) for key in ("required", "optional")
    )
    return required, optional


def _parse_service(node: Node) -> Service:
    service = Service(*(node.text_of(key) for key in Service._fields))
    if not service.name:
        node.required("name")
    if service.type and service.type not in SERVICE_TYPES:
        node.at("type", service.type).fail("service-type", f"{shown(service.type)} is no type of service")
    return service


def _parse_exports(name: str, tree: Tree) -> tuple[Export, ...]:
    entry = f"{name}/services.json"
    if entry not in tree.entries:
        return ()
    node = Node(entry, tree.entries[entry])
    elements = node.elements() if isinstance(node.value, list) else node.items("services")
    return tuple(_parse_export(element) for element in elements)


def _parse_export(node: Node) -> Export:
    kind = node.required("type")
    if kind.text() not in SERVICE_TYPES:
        kind.fail("service-type", f"{shown(kind.text())} is none of {', '.join(sorted(SERVICE_TYPES))}")
    export = Export(
        node.text_of("name"),
        kind.text(),
        node.text_of("socket"),
        node.text_of("bus"),
        node.text_of("owns"),
        node.text_of("role"),
        node.texts_of("allow"),
    )
    if not (export.name or export.owns):
        node.required("name")
    if export.name == SYSTEM_BUS:
        reserved = node.at("name", export.name)
        reserved.fail("service-reserved", f"the name {SYSTEM_BUS!r} belongs to the runtime's own bus")
    return export


def _check_buses(containers: Mapping[str, Container]) -> None:
    owners: dict[tuple[str, str], str] = {}
    for name, container in containers.items():
        for export in container.provides:
            if not export.owns:
                continue
            other = owners.setdefault((export.bus, export.owns), name)
            if other != name:
                node = Node(f"{name}/services.json", None)
                node.fail("bus-name-duplicate", f"the bus name {shown(export.owns)} is owned by {other!r} already")


def _rooted(node: Node) -> str:
    text = node.text()
    if not text.startswith("/") or ".." in text.split("/") or "\0" in text:
        node.fail("export-path", f"{shown(text)} is no absolute path without '..'")
    return text


def _parse_remount(node: Node) -> Mapping[str, JsonValue]:
    remount = node.get("remount")
    if remount is None:
        return {}
    check_remount(remount)
    return remount.object()


def check_remount(node: Node) -> None:
    """Check the shape of `remount`: policies, each an array of objects with string members (contract 1.9)."""
    for _, policy in node.members():
        for rule in policy.elements():
            for _, option in rule.members():
                if not isinstance(option.value, str):
                    option.fail("not-a-string", "must be a string")
