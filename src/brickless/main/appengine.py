"""The runtime without a device: the same processes in namespaces of this machine, for trying without an emulator.

It plays the bootloader and the kernel: picks the revision from `boot/uboot.txt` as U-Boot does, starts PID 1 in a PID
and a mount namespace of its own, and starts it again when it reboots. What it changes on this machine is one folder,
the storage: the root it sees is this machine's below a layer in memory. Contract: device.md 9.4.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from brickless.core import bootenv, canonical, paths
from brickless.core.errors import UserError
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.linux import libc, mount
from brickless.pvr import bundle
from brickless.store import atomic
from brickless.store.trails import Storage

SPEC = "pantavisor-service-system@1"
CREATED = ".pvtx-done"
STORAGE = "/storage"
REBOOT_DELAY_S = 5.0
STOP_GRACE_S = 15.0
# The reference's settings of this mode (device.md 9.4); the environment that is given overrides them.
SETTINGS: Mapping[str, str] = {
    "PV_CONTROL_REMOTE": "0",
    "PV_SECUREBOOT_MODE": "disabled",
    "PV_STORAGE_MNTPOINT": STORAGE,
    "PV_SYSTEM_INIT_MODE": "appengine",
    "PV_UPDATER_COMMIT_DELAY": "5",
    "PV_UPDATER_GOALS_TIMEOUT": "10",
    "PV_WDT_MODE": "disabled",
}
# Kernel file systems, and what is in memory here: the runtime gets its own.
OWN = ("/proc", "/run", "/sys", "/dev", "/tmp")  # noqa: S108 - names of mount points
LXC_ROOTFS = "/usr/lib/lxc/rootfs"


class End(Enum):
    """How a run of the runtime ended. In a PID namespace reboot(2) kills its init so (pid_namespaces(7))."""

    REBOOT = signal.SIGHUP
    POWEROFF = signal.SIGINT


class Settings(NamedTuple):
    """How to run it."""

    storage: Path
    packages: Path | None = None
    initial: str = bootenv.FACTORY
    command_line: str = ""
    environment: Mapping[str, str] = {}
    delay_s: float = REBOOT_DELAY_S
    own_network: bool = False


def prepare(settings: Settings) -> bool:
    """Make the storage and its first revision from the packages; False when it is there. Repeats what was cut short.

    Raises `UserError` for a folder without packages, `HostileInputError` for packages that are none, `StateError` when
    they make no valid state together.
    """
    root = settings.storage
    if (root / CREATED).exists():
        return False
    rev = settings.initial
    paths.check_revision(rev)
    storage = Storage(str(root))
    root.mkdir(parents=True, exist_ok=True)
    storage.prepare()
    raw = canonical.dumps(_merged(settings.packages, storage))
    storage.install(rev, parse_state(raw))
    atomic.write_file(str(root / "trails" / rev / ".pvr/config"), canonical.dumps({"ObjectsDir": f"{STORAGE}/objects"}))
    storage.write_progress(rev, Progress.of(Status.DONE, Message.FACTORY).to_json())
    storage.mark_done(rev)
    storage.set_current(rev)
    environment = bootenv.render({"pv_rev": rev, "pv_try": ""}).ljust(bootenv.SIZE_BYTES, b"\0")
    atomic.write_file(str(root / "boot/uboot.txt"), environment)
    atomic.write_file(str(root / CREATED), b"")
    return True


def _merged(folder: Path | None, storage: Storage) -> dict[str, canonical.JsonValue]:
    """The state of all packages in the folder, in alphabetical order: a later one replaces paths of an earlier one."""
    state: dict[str, canonical.JsonValue] = {"#spec": SPEC}
    if folder is None:
        return state
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise UserError("appengine-packages", f"{folder} holds no package", hint="Put files of `pvr export` there.")
    for path in found:
        with path.open("rb") as stream:
            entries, _ = bundle.read_all(stream, str(path), storage.objects)
        state.update(entries)
    return state


class Engine:
    """The loop of boots. `say` gets one line for each event of the board that it plays."""

    def __init__(self, settings: Settings) -> None:
        """It owns the storage while it runs."""
        self.settings = settings
        self._trying = ""
        self._stop = False
        self._child = 0
        self._console = -1

    def run(self) -> int:
        """Boot until the runtime powers off (0) or someone stops us (SIGTERM, SIGINT)."""
        waker, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stopped)
        while not self._stop:
            end = self._boot(waker)
            if end is End.POWEROFF or self._stop:
                break
            print(f"appengine: {'reboot' if end else 'the runtime died'}", flush=True)
            select.select([waker], [], [], self.settings.delay_s)
        return 0

    def _stopped(self, _number: int, _frame: object) -> None:
        self._stop = True

    def _boot(self, waker: int) -> End | None:
        """One boot, from the bootloader's decision to the end of PID 1."""
        raw = (self.settings.storage / "boot/uboot.txt").read_bytes()
        environment = bootenv.parse(raw)
        choice = bootenv.choose(environment, self._trying)
        self._trying = choice.trying
        print(f"appengine: boots revision {choice.rev}", flush=True)
        words = [self.settings.command_line, f"pv_rev={choice.rev}", f"pv_try={environment.get('pv_try', '')}"]
        # On this machine's disk nothing stays but this empty folder, for as long as it runs: the rest is in memory.
        base = tempfile.mkdtemp(prefix="brickless-appengine-")
        self._console, terminal = os.openpty()
        try:
            self._child = _start(self.settings, base, os.ttyname(terminal), " ".join(word for word in words if word))
            return self._attend(waker)
        finally:
            self._copy_console()
            os.close(terminal)
            os.close(self._console)
            os.rmdir(base)

    def _copy_console(self) -> None:
        """What the runtime wrote to its console, as far as it is there."""
        while select.select([self._console], [], [], 0)[0]:
            os.write(1, os.read(self._console, 4096))

    def _attend(self, waker: int) -> End | None:
        """Wait for the end of the child, and bring it about when someone stops us."""
        pidfd = os.pidfd_open(self._child)
        deadline_s = None
        while not select.select([pidfd], [], [], 0)[0]:
            if self._stop and deadline_s is None:
                os.kill(self._child, signal.SIGTERM)
                deadline_s = time.monotonic() + STOP_GRACE_S
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                os.kill(self._child, signal.SIGKILL)
                left_s = None
            select.select([pidfd, waker, self._console], [], [], left_s)
            self._copy_console()
            _drain(waker)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return next((end for end in End if status == int(end.value)), None)


def _drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return


def _start(settings: Settings, base: str, terminal: str, command_line: str) -> int:
    """Fork the keeper of the namespaces: it starts PID 1, hands signals on, and ends as PID 1 ended."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        code = _keep(settings, base, terminal, command_line)
    except OSError as error:
        sys.stderr.write(f"appengine: {error}\n")
    finally:
        sys.stdout.flush()
        os._exit(code)


def _keep(settings: Settings, base: str, terminal: str, command_line: str) -> int:
    """Signal number by which PID 1 ended (its exit status plus 64 when it ended by itself)."""
    kinds = libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWUTS | libc.CLONE_NEWIPC
    libc.unshare(kinds | (libc.CLONE_NEWNET if settings.own_network else 0))
    init = os.fork()
    if not init:
        _become_init(settings, base, terminal, command_line)
    # SIGUSR2 is PID 1's word for power off.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGUSR2))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
    return -status if status < 0 else 64 + status % 64


def _become_init(settings: Settings, base: str, terminal: str, command_line: str) -> None:
    code = 70
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        # A stop from the terminal reaches us through our parent alone.
        os.setsid()
        _enter_root(settings.storage, base, terminal, command_line)
        os.environ.clear()
        os.environ.update({**SETTINGS, **settings.environment})
        from brickless.device.pid1 import init

        code = init.run_contained()
    except OSError as error:
        sys.stderr.write(f"appengine: {error}\n")
    finally:
        os._exit(code)


def _enter_root(storage: Path, base: str, terminal: str, command_line: str) -> None:
    """This machine's files below a layer in memory, the storage, and a `/proc` of the new PID namespace."""
    mount.make_private("/")
    root = _layer(base)
    for target in _submounts():
        if os.path.isdir(target) and not os.path.islink(target):
            mount.bind(target, f"{root}{target}", recursive=True)
    for kept in ("/dev", "/sys"):
        mount.bind(kept, f"{root}{kept}", recursive=True)
    # Its console is a terminal that we read: what it says goes to our output, not to this machine's console.
    libc.mount(terminal, f"{root}/dev/console", "", libc.MS_BIND)
    for fresh in ("/run", "/tmp"):  # noqa: S108 - a new one is mounted there
        # A checkout below /tmp would be hidden from the runtime that is loaded from it.
        if any(path.startswith(f"{fresh}/") for path in (__file__, sys.prefix, sys.base_prefix)):
            continue
        mount.mount("tmpfs", f"{root}{fresh}", "tmpfs", flags=libc.MS_NOSUID | libc.MS_NODEV, options="mode=0755")
    mount.mount("proc", f"{root}/proc", "proc")
    os.makedirs(f"{root}{STORAGE}", exist_ok=True)
    mount.bind(str(storage), f"{root}{STORAGE}")
    with open(f"{root}/run/cmdline", "w", encoding="utf-8") as stream:
        stream.write(command_line + "\n")
    libc.mount(f"{root}/run/cmdline", f"{root}/proc/cmdline", "", libc.MS_BIND)
    os.chdir(root)
    libc.pivot_root(".", ".")
    libc.umount2(".", libc.MNT_DETACH)
    os.chdir("/")
    os.makedirs(LXC_ROOTFS, exist_ok=True)


def _layer(base: str) -> str:
    """This machine's root with a layer in memory above it; returns where it is mounted, below the empty `base`."""
    mount.mount("tmpfs", base, "tmpfs", options="mode=0755")
    root = f"{base}/root"
    for folder in ("root", "upper", "work"):
        os.mkdir(f"{base}/{folder}")
    mount.mount("overlay", root, "overlay", options=f"lowerdir=/,upperdir={base}/upper,workdir={base}/work")
    return root


def _submounts() -> list[str]:
    """What is mounted right below this machine's root and is not the kernel's or in memory."""
    tops = set()
    for entry in mount.table():
        inside = any(entry.target == own or entry.target.startswith(f"{own}/") for own in OWN)
        if entry.target != "/" and not inside:
            tops.add(entry.target)
    return sorted(top for top in tops if not any(top != other and top.startswith(f"{other}/") for other in tops))
