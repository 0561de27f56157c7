"""What a revision's containers find around them: networks, disks, drivers, device nodes, other containers' services.

`enter` brings up what belongs to the device itself; the rest is asked for container by container. Whatever only some
revisions use is imported when one does: this process lives for ever, and its memory with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from brickless.core.container import Container
from brickless.core.disks import DiskType, Pool
from brickless.device.supervise import apart, volumes
from brickless.device.supervise.jobs import Handle, Job
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.volumes import Roots
from brickless.linux import lxc
from brickless.store.trails import Storage

if TYPE_CHECKING:
    from brickless.core.ipam import Assignment
    from brickless.core.services import Link
    from brickless.device.supervise.snapshots import Version

LEASES = "leases"
MDEV = "mdev.json"
HOOKS = "pv/hooks_lxc-mount.d"
SHELL = "/bin/sh"
BSP = "bsp"
DEFAULT_POLICY = "default"


class Settings(NamedTuple):
    """What the configuration says about all that."""

    private: str = "/run/brickless"
    run: str = "/run/pantavisor/pv"
    lib: str = "/lib"
    disks: str = "/run/pantavisor/disks"
    bridge: tuple[str, str, str] = ("", "", "")
    fitconfig: str = ""
    user_meta: tuple[str, ...] = ()
    caches: tuple[tuple[str, str], ...] = ()
    firmware_volume: bool = False
    remount_policy: str = DEFAULT_POLICY


class Surroundings:
    """Of the revision that runs."""

    __slots__ = ("_leases", "_revision", "links", "roots", "settings", "unified")

    def __init__(self, roots: Roots, settings: Settings, *, unified: bool) -> None:
        self.roots = roots
        self.settings = settings
        self.unified = unified
        self._revision: Revision | None = None
        self._leases: Assignment | None = None
        self.links: tuple[Link, ...] = ()

    # -- the device ------------------------------------------------------------------------------------------------

    def enter(self, revision: Revision) -> list[str]:
        """Bring up what the revision asks of the device; what failed, in words."""
        first = self._revision is None
        self._revision = revision
        faults = []
        if first:
            faults += self._device_parts(revision)
        faults += self._networks(revision, first=first)
        faults += self._services(revision)
        return faults

    def _device_parts(self, revision: Revision) -> list[str]:
        """Firmware, modules, swap, the device's own volumes. None of it changes without a reboot (device.md 4.6)."""
        state = revision.state
        bsp = state.bsp
        has_files = bsp is not None and (bsp.firmware or bsp.modules or bsp.modules_of)
        swaps = any(disk.type == DiskType.SWAP for disk in state.disks)
        if not (has_files or swaps or state.volumes):
            return []
        from brickless.device.supervise import device_parts

        return device_parts.bring_up(revision, self.roots, self.settings)

    def _networks(self, revision: Revision, *, first: bool) -> list[str]:
        """Addresses for all containers of pools; bridges and NAT at the first revision since the boot.

        The default bridge is made for a revision that could use it: one with pools, or with containers that have
        their own interfaces.
        """
        state = revision.state
        if not state.pools:
            return []
        from brickless.device.net import interface, pools
        from brickless.device.supervise import leases

        path = os.path.join(self.settings.private, LEASES)
        reserved: list[str] = []
        for job in revision.jobs:
            reserved += interface.own_addresses(self._own_lines(job))
        before = leases.read(path) | (self._leases.leases if self._leases is not None else {})
        self._leases = interface.assign_all(state.containers.values(), state.pools, before, reserved)
        leases.write(path, self._leases.leases)
        if not first:
            return []
        default = pools.DefaultBridge(*self.settings.bridge)
        found = apart.run("bringing up the networks", lambda: pools.bring_up(state.pools, default))
        return [str(fault) for fault in found] if isinstance(found, list) else []

    def _own_lines(self, job: Job) -> list[lxc.Line]:
        path = os.path.join(self.roots.storage, "trails", job.rev, job.container.name, job.container.config)
        try:
            with open(path, "rb") as stream:
                return lxc.parse_config(stream.read(lxc.CONFIG_MAX_BYTES).decode("utf-8", "surrogateescape"))
        except (OSError, ValueError):
            # Whoever starts the container reads it again, and says what is wrong with it.
            return []

    def _services(self, revision: Revision) -> list[str]:
        """The links between the containers; what is required and not there, in words."""
        containers = revision.state.containers
        self.links = ()
        if not any(one.requires or one.wants or one.provides for one in containers.values()):
            return []
        from brickless.core import services

        graph = services.graph(containers)
        self.links = graph.links
        faults = [f"{name}: {fault}" for name, found in sorted(graph.faults.items()) for fault in found]
        if graph.needs_bus:
            from brickless.linux import process

            if process.find("dbus-daemon") is None:
                faults.append("the system bus of the containers needs dbus-daemon: add its archive to the BSP")
        return faults

    @property
    def containers(self) -> Mapping[str, Container]:
        """Those of the running revision."""
        return {} if self._revision is None else self._revision.state.containers

    # -- a container -----------------------------------------------------------------------------------------------

    def preparation(self, job: Job) -> Callable[[], object] | None:
        """What must be done before the container can be mounted and started; None for nothing. Raises `ValueError`."""
        revision = self._of(job)
        container = job.container
        wanted = volumes.disks_of(container.storage, revision.state.disks)
        closed = [disk for disk in wanted if not self._is_open(disk.name)]
        drivers = bool(container.drivers.required or container.drivers.optional)
        version = self._exchange(job)
        if not (closed or drivers or version):
            return None
        from brickless.device.supervise import preparation

        return lambda: preparation.prepare(
            preparation.Task(container, revision.state, version), self.roots, self.settings
        )

    def _exchange(self, job: Job) -> Version | None:
        """The version of the container whose data must come into place before it starts; None when they are there."""
        if not any(storage.snapshot for storage in job.container.storage):
            return None
        from brickless.device.supervise import snapshots

        marked = snapshots.marked(job.container)
        version = snapshots.Version(job.container.name, job.rev, job.fingerprint, marked)
        return version if snapshots.is_due(Storage(self.roots.storage), version) else None

    def _is_open(self, name: str) -> bool:
        from brickless.linux import mount

        return os.path.join(self.roots.media, "pv", "dmcrypt", name) in mount.targets()

    def _of(self, job: Job) -> Revision:
        if self._revision is None:
            raise RuntimeError(f"container {job.container.name} belongs to no revision")
        return self._revision

    def mounts(self, job: Job) -> list[volumes.Step]:
        """See `volumes.plan`."""
        state = self._of(job).state
        return volumes.plan(job, self.roots, state.disks, state.jsons)

    def configure(self, own: Sequence[lxc.Line], job: Job) -> list[lxc.Line]:
        """The container's own configuration with its network and its limits. Raises `ValueError`, `OSError`."""
        container = job.container
        lines = self._with_network(own, container, job)
        present = {line.key for line in lines}
        for key, value in container.limits.lines(unified=self.unified):
            if key not in present:
                lines.append(lxc.Line(key, value))
        lines += [lxc.Line("lxc.hook.mount", path) for path in self._hooks()]
        self._remounts(job)
        return lines

    def _remounts(self, job: Job) -> list[tuple[str, str]]:
        """The remount rules of the container, its own before the device's. Raises `ValueError` for one that is none."""
        policies = job.container.remount or self._of(job).state.remount
        if not policies:
            return []
        from brickless.device.supervise import exposure

        rules = exposure.rules_of(policies, self.settings.remount_policy)
        exposure.check_rules(rules)
        return rules

    def _with_network(self, own: Sequence[lxc.Line], container: Container, job: Job) -> list[lxc.Line]:
        if container.network is None:
            return list(own)
        from brickless.device.net import interface

        if container.network.mode == "host":
            return interface.with_host_network(own)
        fault = self._leases.faults.get(container.name) if self._leases else None
        lease = self._leases.leases.get(container.name) if self._leases else None
        pool = self._pool(container.network.pool, job)
        if fault or lease is None or pool is None:
            raise ValueError(fault or f"there is no network pool {container.network.pool}")
        return interface.with_network(own, pool, lease)

    def _pool(self, name: str, job: Job) -> Pool | None:
        return next((pool for pool in self._of(job).state.pools if pool.name == name), None)

    def _hooks(self) -> list[str]:
        """The BSP's mount hooks, in alphabetical order. LXC starts them by a shell, which a small BSP does not have."""
        folder = os.path.join(self.settings.lib, HOOKS)
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        found = [path for name in names if os.access(path := os.path.join(folder, name), os.X_OK)]
        if found and not os.access(SHELL, os.X_OK):
            raise ValueError(f"the mount hooks in {folder} need {SHELL}, which this device does not have")
        return found

    def extra_mounts(self, job: Job) -> list[str]:
        """Lines of `lxc.mount.entry`: modules and firmware of the device, device nodes by the container's rules."""
        entries: list[str] = []
        if job.container.automodfw:
            release = os.uname().release
            shared = (f"/lib/modules/{release}", "/lib/firmware")
            entries += [
                f"{path} {path[1:]} none bind,ro,create=dir,optional 0 0" for path in shared if os.path.isdir(path)
            ]
        rules = self._of(job).state.jsons.get(f"{job.container.name}/{MDEV}")
        if rules is not None:
            from brickless.device.supervise import nodes

            folder = os.path.join(self.settings.private, "dev", job.container.name)
            entries += nodes.mount_entries(folder, nodes.make(nodes.parse(rules), folder))
        return entries

    def exposure(self, job: Job, handle: Handle) -> Callable[[], object] | None:
        """What is done to the container from outside once its init runs; None for nothing."""
        container = job.container
        rules = self._remounts(job)
        if not (container.exports or rules):
            return None
        from brickless.device.supervise import exposure

        root = os.path.join(self.roots.exports, container.name)

        def expose() -> None:
            init = lxc.init_pid(handle.pid)
            if init is None:
                raise OSError("its init is gone")
            if container.exports:
                apart.run("exporting its paths", lambda: exposure.export(init, container.exports, root))
            if rules:
                exposure.remount(init, rules)

        return expose
