"""Which container uses whose service: the graph of a revision (contract device.md 1.13, 5.11). Pure.

A container provides services by its `services.json` and uses those of others by `services` of its `run.json`. The
runtime itself provides one, `system-bus`, on which names are owned by roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from brickless.core.container import SYSTEM_BUS, Container, Export, Service

BUILTIN = "_pv_"
ANY_ROLE = "any"
BUS_SOCKET = "/run/pv/dbus/system_bus_socket"
BUS_TARGET = "/run/dbus/system_bus_socket"


class Link(NamedTuple):
    """A service that a consumer gets. `socket` is a path in the provider, `target` one in the consumer."""

    consumer: str
    provider: str
    name: str
    type: str
    role: str
    interface: str
    target: str
    socket: str
    required: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it this link and no other."""
        return self.consumer, self.name, self.target


class Graph(NamedTuple):
    """All links, and the faults (by consumer): required services that nobody provides, in words."""

    links: tuple[Link, ...]
    faults: Mapping[str, tuple[str, ...]]

    @property
    def needs_bus(self) -> bool:
        """Whether somebody uses the bus that the runtime hosts."""
        return any(link.provider == BUILTIN and link.name == SYSTEM_BUS for link in self.links)


class BusPolicy(NamedTuple):
    """What a role may do on the hosted bus: names it owns, names it may call."""

    role: str
    owns: tuple[str, ...]
    calls: tuple[str, ...]


def graph(containers: Mapping[str, Container]) -> Graph:
    """The links between the containers of a revision, in alphabetical order."""
    links: list[Link] = []
    faults: dict[str, tuple[str, ...]] = {}
    for name, container in sorted(containers.items()):
        wrong = []
        for service, required in _wishes(container):
            link = _link(name, service, containers, required=required)
            if link is not None:
                links.append(link)
            elif required:
                kind = f" of type {service.type}" if service.type else ""
                wrong.append(f"it requires the service {service.name}{kind}, which no container provides")
        links += _as_owner(name, container, links)
        if wrong:
            faults[name] = tuple(wrong)
    return Graph(tuple(links), faults)


def _wishes(container: Container) -> Iterator[tuple[Service, bool]]:
    for service in container.requires:
        yield service, True
    for service in container.wants:
        yield service, False


def _link(name: str, service: Service, containers: Mapping[str, Container], *, required: bool) -> Link | None:
    target = service.target or service.interface or f"/tmp/pvx_{name}_{service.name}.sock"  # noqa: S108 - contract 1.13
    role = service.role or ANY_ROLE
    if service.name == SYSTEM_BUS and service.type in ("", "dbus"):
        target = service.target or BUS_TARGET
        return Link(
            name, BUILTIN, SYSTEM_BUS, "dbus", service.role or name, service.interface, target, BUS_SOCKET, required
        )
    found = _provider(service, containers)
    if found is None:
        return None
    provider, export = found
    return Link(name, provider, service.name, export.type, role, service.interface, target, export.socket, required)


def _provider(service: Service, containers: Mapping[str, Container]) -> tuple[str, Export] | None:
    """The first container in alphabetical order that provides it; names on the hosted bus are no sockets."""
    for name, container in sorted(containers.items()):
        for export in container.provides:
            if export.name == service.name and export.socket and service.type in ("", export.type):
                return name, export
    return None


def _as_owner(name: str, container: Container, links: list[Link]) -> list[Link]:
    """A container that owns a name on the hosted bus gets the bus, also when it does not ask for it."""
    owned = [export for export in container.provides if export.owns and export.bus == SYSTEM_BUS]
    if not owned or any(link.consumer == name and link.provider == BUILTIN for link in links):
        return []
    role = owned[0].role or name
    return [Link(name, BUILTIN, SYSTEM_BUS, "dbus", role, "", BUS_TARGET, BUS_SOCKET, True)]


def bus_policies(containers: Mapping[str, Container]) -> list[BusPolicy]:
    """Who may own and call what on the hosted bus: nothing that no manifest says."""
    owns: dict[str, list[str]] = {}
    calls: dict[str, list[str]] = {}
    for link in graph(containers).links:
        if link.provider == BUILTIN:
            owns.setdefault(link.role, [])
    for name, container in sorted(containers.items()):
        for export in container.provides:
            if not export.owns or export.bus != SYSTEM_BUS:
                continue
            owns.setdefault(export.role or name, []).append(export.owns)
            for role in export.allow:
                calls.setdefault(role, []).append(export.owns)
    roles = sorted({*owns, *calls})
    return [BusPolicy(role, tuple(owns.get(role, ())), tuple(calls.get(role, ()))) for role in roles]
