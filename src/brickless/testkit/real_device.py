"""A device on this machine: the real supervisor with the real kernel and LXC, without PID 1, a bootloader and a hub.

Everything lies below one folder, in a network namespace of its own; container names carry the process id, so that two
test runs on one machine do not meet. Needs root. `close` stops every container and takes every mount away.
"""

from __future__ import annotations

import os
import select
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from brickless.core import canonical
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.core.update_types import HubGate, Policy
from brickless.device.boot.uboot import UBoot
from brickless.device.supervise.logserver import LogServer
from brickless.device.supervise.logserver import Options as LogOptions
from brickless.device.supervise.machine import LinuxMachine, Paths
from brickless.device.supervise.supervisor import Limits, Supervisor
from brickless.device.supervise.surroundings import Settings
from brickless.device.supervise.volumes import Roots
from brickless.linux import kmsg, libc, lxc, mount, net, process
from brickless.store.trails import Storage

BUSYBOX = "/usr/bin/busybox"
APPLETS = (
    "cat",
    "echo",
    "grep",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "nc",
    "ping",
    "sh",
    "sleep",
    "stat",
    "wget",
)
FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var", "lib")
DEADLINE_S = 40.0
Json = canonical.JsonValue


class OwnNetwork:
    """This process in new network and mount namespaces, loopback up; as a context manager it comes back.

    LXC looks for bridges below /sys/class/net, which shows the namespace in which /sys was mounted: so it is mounted
    anew, with the control groups of the machine in their place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: list[tuple[int, int]] = []

    def __enter__(self) -> OwnNetwork:
        for name, kind in (("net", libc.CLONE_NEWNET), ("mnt", libc.CLONE_NEWNS)):
            self._before.append((os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind))
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
        mount.make_private("/")
        kept = str(self._folder / "cgroup")
        mount.bind("/sys/fs/cgroup", kept, recursive=True)
        mount.mount("sysfs", "/sys", "sysfs")
        mount.bind(kept, "/sys/fs/cgroup", recursive=True)
        net.up("lo")
        return self

    def __exit__(self, *_: object) -> None:
        for fd, kind in self._before:
            libc.setns(fd, kind)
            os.close(fd)


class RealDevice:
    """See above. Containers run /init, a shell script that each test gives."""

    def __init__(self, folder: Path, settings: Settings | None = None, *, verity: bool = False) -> None:
        self.folder = folder
        self.storage = Storage(str(folder / "storage"))
        self.storage.prepare()
        self.verity = verity
        private = str(folder / "private")
        self.settings = (settings or Settings())._replace(private=private, run=str(folder / "run"))
        self.suffix = f"-{os.getpid()}"
        self.poll = select.poll()
        self.supervisor: Supervisor | None = None
        self.machine: LinuxMachine | None = None
        #: What containers say is captured when this is set before `boot`.
        self.log_options: LogOptions | None = None
        os.makedirs(folder / "run", exist_ok=True)
        (folder / "console").touch()

    # -- revisions ---------------------------------------------------------------------------------------------------

    def name(self, short: str) -> str:
        """The container's name on this machine."""
        return short + self.suffix

    def squashfs(
        self, script: str, files: Mapping[str, str] | None = None, links: Mapping[str, str] | None = None
    ) -> bytes:
        """A root file system of busybox whose /init is the script."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            root = Path(scratch) / "root"
            for part in FOLDERS:
                (root / part).mkdir(parents=True)
            shutil.copy(BUSYBOX, root / "bin" / "busybox")
            for applet in APPLETS:
                (root / "bin" / applet).symlink_to("busybox")
            for path, text in {"init": f"#!/bin/sh\n{script}\n", **(files or {})}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
                (root / path).chmod(0o755)
            for path, to in (links or {}).items():
                (root / path).symlink_to(to)
            out = Path(scratch) / "root.squashfs"
            argv = ["mksquashfs", str(root), str(out), "-quiet", "-noappend", "-no-progress", "-all-root"]
            process.run(argv, purpose="packing a test container", timeout_s=60)
            return out.read_bytes()

    def container(
        self,
        short: str,
        script: str,
        *,
        lines: str = "",
        files: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
        **run: Json,
    ) -> dict[str, Json]:
        """The entries of a container. `lines` are added to its LXC configuration."""
        name, add = self.name(short), self.storage.objects.add
        volumes = f"{self.folder}/volumes/{name}"
        config = f"""lxc.rootfs.path = overlayfs:{volumes}/root.squashfs:{volumes}/lxc-overlay/upper
lxc.init.cmd = /init
lxc.environment = PATH=/bin
lxc.signal.halt = SIGTERM
lxc.mount.auto = proc sys:rw
{lines}"""
        storage = run.pop("storage", {})
        if not isinstance(storage, dict):
            raise TypeError("storage is an object")
        manifest: dict[str, Json] = {
            "#spec": "service-manifest-run@1",
            "config": "lxc.container.conf",
            "name": name,
            "root-volume": "root.squashfs",
            "roles": ["nobody"],
            "storage": {"lxc-overlay": {"persistence": "boot"}, **storage},
            **run,
        }
        return {
            f"{name}/root.squashfs": add([self.squashfs(script, files, links)]),
            f"{name}/lxc.container.conf": add([config.encode()]),
            f"{name}/run.json": manifest,
        }

    def install(self, rev: str, *parts: Mapping[str, Json], device: Mapping[str, Json] | None = None) -> None:
        """Put a revision on the partition; revision 0 is committed, too."""
        state: dict[str, Json] = {"#spec": "pantavisor-service-system@1"}
        state["device.json"] = {"groups": [{"name": "app", "timeout": 30}], **(device or {})}
        for part in parts:
            state.update(part)
        self.storage.install(rev, parse_state(canonical.dumps(state)))
        if rev == "0":
            self.storage.write_progress("0", Progress.of(Status.DONE, Message.FACTORY).to_json())
            self.storage.mark_done("0")

    # -- the supervisor ----------------------------------------------------------------------------------------------

    def boot(self, rev: str = "0") -> RealDevice:
        """Start a supervisor, or the next one: the one before is forgotten, as if it had died."""
        self.poll = select.poll()
        base = str(self.folder)
        roots = Roots(
            self.storage.root, f"{base}/volumes", f"{base}/configs", f"{base}/media", -1, self.verity, f"{base}/exports"
        )
        paths = Paths(f"{base}/run", f"{base}/private", f"{base}/lxc", f"{base}/rootfs")
        console = kmsg.Console(f"{base}/console")
        self.machine = LinuxMachine(roots, paths, console, -1, self.poll, self.settings)
        if self.log_options is not None:
            self.machine.log_server = LogServer(
                self.storage.root,
                f"{base}/run",
                self.poll,
                now_s=self.machine.now_s,
                console=console.line,
                options=self.log_options,
            )
        policy = Policy(commit_delay_s=2, hub_gate=HubGate.OFF)
        self.supervisor = Supervisor(self.machine, self.storage, UBoot(self.storage.root), Limits(30.0, policy))
        self.supervisor.boot(rev, verify=True)
        return self

    def ask(self, **question: Json) -> dict[str, Json]:
        """A request to the supervisor."""
        if self.supervisor is None:
            raise RuntimeError("the device is off")
        return self.supervisor.request(dict(question))

    def turn(self, wait_ms: int = 50) -> None:
        """One turn of the supervisor's loop."""
        if self.supervisor is None:
            raise RuntimeError("the device is off")
        logging = self.machine.log_server if self.machine is not None else None
        for fd, _ in self.poll.poll(wait_ms):
            if logging is not None:
                logging.serve(fd)
        if logging is not None:
            logging.tick()
        self.supervisor.tick()

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Turn the loop until the condition holds. Raises `TimeoutError` with the log of the device."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{what or 'the condition'} did not come in time\n{self.log()}")
            self.turn()

    def log(self) -> str:
        """What the supervisor said."""
        path = self.folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def containers(self) -> dict[str, dict[str, Json]]:
        """How the containers stand, by their short names."""
        found = self.ask(op="status")["containers"]
        if not isinstance(found, list):
            raise TypeError("the status lists no containers")
        return {str(one["name"]).removesuffix(self.suffix): one for one in found if isinstance(one, dict)}

    def are(self, status: str, *shorts: str) -> bool:
        """Whether these containers have that status."""
        now = self.containers()
        return all(now[short]["status"] == status for short in shorts)

    def run(self, *shorts: str) -> None:
        """Wait until these containers run."""
        self.until(lambda: self.are("STARTED", *shorts) or self.are("READY", *shorts), f"{shorts} to run")

    def update(self, rev: str) -> Progress:
        """Try a revision in place and wait for how it ends."""
        from brickless.device.supervise.revisions import is_final, progress_of

        self.ask(op="try", rev=rev)
        self.until(lambda: is_final(progress_of(self.storage, rev)), f"revision {rev} to end")
        self.until(lambda: self.ask(op="status")["trying"] is None)
        progress = progress_of(self.storage, rev)
        if progress is None:
            raise RuntimeError(f"revision {rev} has no progress")
        return progress

    def init(self, short: str) -> int:
        """The process id of a container's init."""
        monitor = self.containers()[short]["pid"]
        found = lxc.init_pid(monitor) if isinstance(monitor, int) else None
        if found is None:
            raise RuntimeError(f"{short} has no init\n{self.log()}")
        return found

    def inside(self, short: str, path: str) -> Path:
        """A path inside a running container, as root of the machine sees it."""
        return Path(f"/proc/{self.init(short)}/root{path}")

    def console(self, short: str, rev: str | None = None) -> str:
        """What the container printed."""
        folder = self.folder / "storage" / "logs" / (rev or str(self.ask(op="status")["rev"]))
        path = folder / self.name(short) / "lxc" / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def printed(self, short: str, text: str) -> None:
        """Wait until the container printed something."""
        self.until(lambda: text in self.console(short), f"{text!r} of {short} ({self.console(short)!r})")

    def close(self) -> None:
        """Stop everything, take the mounts away."""
        if self.supervisor is not None and self.machine is not None:
            for one in self.containers():
                self.ask(op="stop", name=self.name(one))
            self.until(lambda: all(one["pid"] == 0 for one in self.containers().values()), "all to stop")
            if self.machine.log_server is not None:
                self.machine.log_server.close()
            self.machine.close()
        mount.unmount_beneath(str(self.folder))
        fifo = Path(f"/run/lxc/{self.folder}/lxc/{lxc.FIFO}")
        if fifo.exists() and stat.S_ISFIFO(fifo.stat().st_mode):
            fifo.unlink()

    def __enter__(self) -> RealDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
