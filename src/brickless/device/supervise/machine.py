"""The real machine behind `ports.Machine`: kernel, LXC, PID 1, console and log."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from brickless.core.container import MGMT, roles_of
from brickless.device.control import views
from brickless.device.supervise import apart, logs, volumes
from brickless.device.supervise.jobs import Exited, Handle, Happening, Job, Prepared, Running, Started
from brickless.device.supervise.journal import Journal, Record
from brickless.device.supervise.logserver import LogServer
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.surroundings import Settings, Surroundings
from brickless.device.supervise.volumes import Roots
from brickless.linux import cgroup, kmsg, lxc, mount
from brickless.store import atomic
from brickless.store.tree import safe_join

if TYPE_CHECKING:
    from brickless.device.supervise.proxy import Live, ProxyProcess

WORDS_MAX = 200
FAULT_MAX_BYTES = 8192
EXPOSE_LONGEST_S = 30
CONFIG_DIR = "config"
SETTINGS = Settings()


class Paths(NamedTuple):
    """Where the supervisor keeps what it makes."""

    run: str  # <R>
    private: str  # for what no container may see
    lxc_path: str
    rootfs_mount: str


class _Monitor:
    """A monitor process that we watch. `status` is the wait status of its container's init, once it was reported."""

    __slots__ = ("halt", "pidfd", "reported", "running", "status")

    def __init__(self, running: Running, halt: int, pidfd: int) -> None:
        self.running = running
        self.halt = halt
        self.pidfd = pidfd
        self.reported = False
        self.status: int | None = None


class LinuxMachine:
    """See `ports.Machine`."""

    __slots__ = (
        "_around",
        "_children",
        "_console",
        "_fifo",
        "_init_fd",
        "_last_started",
        "_log",
        "_monitors",
        "_paths",
        "_poll",
        "_prepared",
        "_proxy",
        "_unified",
        "default_mgmt",
        "journal",
        "log_level",
        "log_server",
        "maps_verity",
        "roots",
    )

    def __init__(
        self,
        roots: Roots,
        paths: Paths,
        console: kmsg.Console,
        init_fd: int,
        poll: select.poll,
        settings: Settings = SETTINGS,
    ) -> None:
        """`init_fd` is the pipe to PID 1, -1 when there is none; descriptors to wait for are registered with `poll`."""
        self.roots = roots
        self.log_level = "WARN"
        self.default_mgmt = False
        # Set by whoever runs the loop; without it (a test) nothing of containers is captured but their consoles.
        self.log_server: LogServer | None = None
        self.journal = Journal(paths.private)
        self.maps_verity = roots.verity
        self._paths = paths
        self._console = console
        self._init_fd = init_fd
        self._poll = poll
        self._log: logs.BoundedLog | None = None
        self._unified = cgroup.layout() == "unified"
        self._around = Surroundings(roots, settings, unified=self._unified)
        self._children: dict[str, apart.Child] = {}
        self._prepared: set[str] = set()
        self._proxy: ProxyProcess | None = None
        self._monitors: dict[str, _Monitor] = {}
        self._last_started: dict[str, Running] = {}
        for folder in (paths.lxc_path, paths.rootfs_mount, os.path.join(paths.private, CONFIG_DIR)):
            os.makedirs(folder, exist_ok=True)
        self._fifo = lxc.Fifo(paths.lxc_path)
        poll.register(self._fifo.fileno(), select.POLLIN)

    # -- time, words -----------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Seconds since boot, by a clock that only goes forward."""
        return time.monotonic()

    def say(self, text: str) -> None:
        """One event on the console, and in the log of the running revision."""
        self._console.line(f"brickless: {text}")
        if self._log is None:
            return
        try:
            self._log.write(logs.line(self.now_s(), kmsg.one_line(text).decode("utf-8", "replace").strip()))
        except OSError as error:
            # A full disk must not stop the supervisor: the console has the line, and says why the log has not.
            self._console.line(f"brickless: log {self._log.path}: {error}")
            self._log.close()

    def log_to(self, rev: str) -> None:
        """Write the log of `rev` from now on."""
        if self._log is not None:
            self._log.close()
        self._log = logs.BoundedLog(
            os.path.join(logs.log_dir(self.roots.storage, rev, logs.PLATFORM), f"{logs.PLATFORM}.log")
        )
        if self.log_server is not None:
            self.log_server.log_to(rev)

    def has_shell(self) -> bool:
        """Whether a debug shell is open on the console: PID 1 leaves a mark."""
        return os.path.exists(os.path.join(self._paths.private, "shell"))

    def tell_init(self, words: str) -> None:
        """A line for PID 1. Raises `OSError`; without PID 1 (a test, a developer's machine) nothing is told."""
        if self._init_fd >= 0:
            os.write(self._init_fd, words.encode() + b"\n")

    # -- the device ------------------------------------------------------------------------------------------------

    def enter(self, revision: Revision) -> list[str]:
        """See `Surroundings.enter`."""
        faults = self._around.enter(revision)
        self._show_services()
        return faults

    def prepare(self, job: Job) -> bool:
        """Start what must be done first, in a child; `Prepared` comes when it is done."""
        name = job.container.name
        if name in self._prepared:
            self._prepared.discard(name)
            return True
        work = self._around.preparation(job)
        if work is None:
            return True
        child = apart.Child(f"preparing the container {name}", work)
        self._children[name] = child
        self._poll.register(child, select.POLLIN)
        return False

    def cancel(self, name: str) -> None:
        """End the child; what it was doing can be done again."""
        child = self._children.pop(name, None)
        self._prepared.discard(name)
        if child is not None:
            self._poll.unregister(child)
            child.cancel()

    def expose(self, job: Job, handle: Handle) -> None:
        """Exports and remounts, in a child: it enters the container's namespaces."""
        work = self._around.exposure(job, handle)
        if work is not None:
            apart.run(f"exposing the container {job.container.name}", work, longest_s=EXPOSE_LONGEST_S)
        self._show_services()

    def _live_links(self) -> list[Live]:
        from brickless.device.supervise.proxy import Live

        inits = {
            name: lxc.init_pid(monitor.running.handle.pid) or 0
            for name, monitor in self._monitors.items()
            if monitor.running.started
        }
        links = self._around.links
        return [
            Live(link, inits[link.consumer], inits.get(link.provider, 0)) for link in links if inits.get(link.consumer)
        ]

    def _show_services(self) -> None:
        """Tell the proxy, if there is anything to tell; without services it is not even imported."""
        if self._proxy is None:
            if not self._around.links:
                return
            from brickless.device.supervise.proxy import ProxyProcess

            self._proxy = ProxyProcess(self._poll, self.say, self.roots.storage)
        self._proxy.show(self._live_links(), self._around.containers)

    def _collect_children(self) -> list[Happening]:
        found: list[Happening] = []
        for name, child in list(self._children.items()):
            if not _is_readable(child.fileno()):
                continue
            self._poll.unregister(child)
            del self._children[name]
            try:
                said = child.result()
            except OSError as error:
                found.append(Prepared(name, str(error)))
                continue
            for words in said if isinstance(said, list) else []:
                self.say(f"container {name}: {words}")
            self._prepared.add(name)
            found.append(Prepared(name, ""))
        return found

    def close(self) -> None:
        """End what ends with us: the proxy between containers, and what children are at."""
        for name in list(self._children):
            self.cancel(name)
        if self._proxy is not None:
            self._proxy.close()

    # -- volumes ---------------------------------------------------------------------------------------------------

    def mount(self, job: Job) -> None:
        """Mount the container's volumes."""
        volumes.mount_all(self._around.mounts(job), self.roots)

    def unmount(self, name: str) -> None:
        """Unmount everything of the container."""
        volumes.unmount_all(name, self.roots)

    # -- containers ------------------------------------------------------------------------------------------------

    def start(self, job: Job) -> Handle:
        """Start the container's monitor. Raises `OSError`, and `ValueError` for a configuration that is none."""
        container = job.container
        trail = os.path.join(self.roots.storage, "trails", job.rev, container.name)
        own = self._around.configure(self._own_config(safe_join(trail, container.config)), job)
        command = lxc.init_command(own)
        folder = os.path.join(logs.log_dir(self.roots.storage, job.rev, container.name), "lxc")
        os.makedirs(folder, exist_ok=True)
        config = os.path.join(self._paths.private, CONFIG_DIR, container.name)
        atomic.write_file(config, lxc.render(lxc.finalize(own, self._injected(job, folder))).encode(), mode=0o600)
        log = os.path.join(folder, "lxc.log")
        logs.bound(log)
        stdio = os.open(
            os.path.join(self._paths.private, f"{CONFIG_DIR}/{container.name}.stdio"),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC,
            0o600,
        )
        try:
            pid = lxc.start(
                container.name,
                config,
                self._paths.lxc_path,
                log=log,
                level=self.log_level,
                stdio=stdio,
                cwd=trail,
                command=command,
            )
        finally:
            os.close(stdio)
        handle = Handle(pid, lxc.start_time(pid) or 0)
        self._watch(Running(container.name, job.rev, job.fingerprint, handle, False), lxc.halt_signal(own))
        return handle

    def _own_config(self, path: str) -> list[lxc.Line]:
        with open(path, "rb") as stream:
            data = stream.read(lxc.CONFIG_MAX_BYTES + 1)
        if len(data) > lxc.CONFIG_MAX_BYTES:
            raise ValueError(f"{path} is larger than {lxc.CONFIG_MAX_BYTES} bytes")
        return lxc.parse_config(data.decode("utf-8", "surrogateescape"))

    def _injected(self, job: Job, log_folder: str) -> lxc.Injected:
        container = job.container
        lower = os.path.join(self.roots.configs, container.name)
        network = container.network
        return lxc.Injected(
            name=container.name,
            hostname=network.hostname if network is not None and network.hostname else container.name,
            # Debian's liblxc puts its own `container=lxc` behind these; the field's leaves ours (device.md 5.6).
            environment=(f"PV_GROUP={container.group}", f"PV_REV={job.rev}", f"container=pv-{container.group}"),
            lower=lower if os.path.isdir(lower) and os.listdir(lower) else "",
            console_log=os.path.join(log_folder, "console.log"),
            console_log_bytes=logs.MAX_BYTES,
            rootfs_mount=self._paths.rootfs_mount,
            mounts=(*self._views(job), *self._around.extra_mounts(job)),
            unified=self._unified,
        )

    def _views(self, job: Job) -> Iterable[str]:
        """What the container sees of the runtime below /pantavisor (device.md 5.6)."""
        run, name = self._paths.run, job.container.name
        logs_root = os.path.join(self.roots.storage, "logs")
        public = views.prepare(run, name)
        if self._capture(job) and job.container.dev_log is not False:
            yield f"{public}/.log dev/log none bind,create=file,optional 0 0"
        if MGMT in roles_of(job.container, default_mgmt=self.default_mgmt):
            yield f"{run} pantavisor none bind,ro,create=dir 0 0"
            yield f"{logs_root} pantavisor/logs none bind,ro,create=dir,optional 0 0"
            return
        yield f"{public} pantavisor none bind,ro,create=dir 0 0"
        yield f"{logs_root}/{job.rev}/{name} pantavisor/logs none bind,ro,optional 0 0"
        for meta in ("user-meta", "device-meta"):
            yield f"{run}/{meta}.{name} pantavisor/{meta} none bind,ro,optional 0 0"

    def _capture(self, job: Job) -> bool:
        """Begin to take in what the container says; whether it gets a /dev/log unless it refuses one."""
        server, name = self.log_server, job.container.name
        if server is None or not server.add(name, job.container.logs, lambda: self._init_of(name)):
            return False
        return server.options.dev_log

    def _init_of(self, name: str) -> int | None:
        """The pid of the container's init, None while it has none."""
        monitor = self._monitors.get(name)
        return lxc.init_pid(monitor.running.handle.pid) if monitor is not None else None

    def halt(self, name: str, handle: Handle) -> bool:
        """Ask the container's init to end by its halt signal."""
        monitor = self._monitors.get(name)
        init = lxc.init_pid(handle.pid) if self._is_alive(handle) else None
        return init is not None and monitor is not None and lxc.ask_to_halt(init, monitor.halt)

    def kill(self, handle: Handle) -> None:
        """End the container. Its monitor ends with it; one that has no init yet is ended itself."""
        if not self._is_alive(handle):
            return
        init = lxc.init_pid(handle.pid)
        if init is not None:
            lxc.kill(init)
        else:
            os.kill(handle.pid, signal.SIGKILL)

    def _is_alive(self, handle: Handle) -> bool:
        return lxc.start_time(handle.pid) == handle.ticks and lxc.stat_fields(handle.pid)[:1] != ["Z"]

    def last_words(self, name: str) -> str:
        """The end of the container's console, or of what its monitor said when it never ran, as one short line."""
        last = self._last_started.get(name)
        if last is not None and last.started:
            # Of the revision in which it was started: it may have run on through an update.
            path = os.path.join(logs.log_dir(self.roots.storage, last.rev, name), "lxc", "console.log")
        else:
            rev = "" if last is None else last.rev
            log = os.path.join(logs.log_dir(self.roots.storage, rev, name), "lxc", "lxc.log")
            fault = lxc.start_fault(lxc.tail(log, max_bytes=FAULT_MAX_BYTES))
            if fault:
                return fault[:WORDS_MAX]
            path = os.path.join(self._paths.private, CONFIG_DIR, f"{name}.stdio")
        return " ".join(lxc.tail(path).split())[-WORDS_MAX:]

    # -- what happens ----------------------------------------------------------------------------------------------

    def _watch(self, running: Running, halt: int) -> None:
        pidfd = os.pidfd_open(running.handle.pid)
        self._poll.register(pidfd, select.POLLIN)
        self._monitors[running.name] = _Monitor(running, halt, pidfd)
        self.journal.keep_record(Record(running, halt))

    def discover(self) -> list[Running]:
        """The containers that an earlier supervisor started and that still run; watches them from now on."""
        found: list[Running] = []
        for record in self.journal.records():
            if self._is_alive(record.running.handle):
                self._watch(record.running, record.halt)
                self._capture_again(record.running.name)
                found.append(record.running)
            else:
                self.journal.drop_record(record.running.name)
        return found

    def _capture_again(self, name: str) -> None:
        """Sockets for a container of an earlier supervisor: those in its folder are new, its /dev/log is dead."""
        if self.log_server is not None:
            views.prepare(self._paths.run, name)
            self.log_server.add(name, (), lambda: self._init_of(name))

    def happenings(self) -> list[Happening]:
        """What the monitors reported and which of them are gone, since the last call."""
        found = self._collect_children()
        if self._proxy is not None:
            self._proxy.serve()
        for event in self._fifo.read():
            monitor = self._monitors.get(event.name)
            if monitor is None:
                continue
            if event.kind == lxc.Kind.EXIT_STATUS:
                monitor.reported, monitor.status = True, event.value
            elif event.kind == lxc.Kind.STATE and event.value == lxc.State.RUNNING:
                monitor.running = monitor.running._replace(started=True)
                self.journal.keep_record(Record(monitor.running, monitor.halt))
                found.append(Started(event.name))
        for name, monitor in list(self._monitors.items()):
            if _is_readable(monitor.pidfd):
                found.append(Exited(name, self._bury(name, monitor)))
        return found

    def _bury(self, name: str, monitor: _Monitor) -> int | None:
        """Stop watching a monitor that ended; returns the wait status of its init, or its own if that never ran."""
        self._poll.unregister(monitor.pidfd)
        os.close(monitor.pidfd)
        del self._monitors[name]
        if self.log_server is not None:
            self.log_server.remove(name)
        self._last_started[name] = monitor.running
        exports = os.path.join(self.roots.exports, name)
        if os.path.isdir(exports):
            # What others saw of it was itself: it would keep the root of a container that is gone.
            mount.unmount_beneath(exports)
        self.journal.drop_record(name)
        self._show_services()
        try:
            _, own = os.waitpid(monitor.running.handle.pid, 0)
        except ChildProcessError:
            # An earlier supervisor's child: PID 1 reaps it.
            return monitor.status
        return monitor.status if monitor.reported or monitor.running.started else own


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
