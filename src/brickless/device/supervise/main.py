"""The supervisor's process: configuration, the storage partition, the loop. PID 1 starts it, again whenever it dies."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from brickless.core.state import State
from brickless.core.update_types import HubGate, Policy
from brickless.device import config as configuration
from brickless.device.boot.backend import backend
from brickless.device.config import Config
from brickless.device.control import places, views
from brickless.device.control.listener import Listener, tcp_door, unix_door
from brickless.device.supervise import hooks, kernel
from brickless.device.supervise.awake import Awake
from brickless.device.supervise.heartbeat import Heartbeat, commit_delay_s
from brickless.device.supervise.logserver import LogServer
from brickless.device.supervise.logserver import Options as LogOptions
from brickless.device.supervise.machine import LinuxMachine, Paths
from brickless.device.supervise.server import Server
from brickless.device.supervise.supervisor import Limits, Supervisor, mark_of, quickboot, revision_of
from brickless.device.supervise.surroundings import Settings
from brickless.device.supervise.volumes import Roots
from brickless.device.update.policy import judge, policy_of
from brickless.linux import blockdev, ext4, kmsg, libc, mount, net
from brickless.linux.libc import MS_NOATIME, MS_NODEV, MS_NOSUID
from brickless.store.trails import Storage

FD_VARIABLE = "BRICKLESS_INIT_FD"
APPENGINE = "appengine"
PRIVATE = places.PRIVATE
LXC_PATH = "/var/lib/lxc"
ROOTFS_MOUNT = "/usr/lib/lxc/rootfs"
# Shorter ones are guessed.
MIN_SECRET_CHARS = 16
LOOPBACK = "lo"
# Folders of <R> that containers see; LXC cannot make them inside its read-only view (device.md 2.2).
RUN_FOLDERS = ("logs", "user-meta", "device-meta")
RESOLV_CONF = "/etc/resolv.conf"


def main() -> int:
    """Run until PID 1 ends us. Raises what makes running impossible: PID 1 says it and starts us again."""
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as stream:
        cmdline = stream.read()
    console = kmsg.Console()
    settings = load_config(cmdline, storage=None)
    prepare_storage(settings, console)
    root = settings.text("PV_STORAGE_MNTPOINT") or "/storage"
    settings = load_config(cmdline, storage=root)
    for problem in settings.problems:
        console.line(f"brickless: configuration: {problem}")
    bring_up_loopback(console)
    make_host_files()
    return run(settings, root, cmdline, console)


def load_config(cmdline: str, *, storage: str | None) -> Config:
    """The configuration as far as it can be read: before and after the partition is mounted."""
    return configuration.load(sources_of(cmdline)._replace(storage=storage))


def sources_of(cmdline: str) -> configuration.Sources:
    """Where the configuration is read from."""
    return configuration.Sources(environ=dict(os.environ), command_line=cmdline)


def prepare_storage(settings: Config, console: kmsg.Console) -> None:
    """Mount the storage partition, and let it fill its device; the kernel replays its journal.

    Raises `OSError` that says what is missing.
    """
    target = settings.text("PV_STORAGE_MNTPOINT") or "/storage"
    spec = settings.text("PV_STORAGE_DEVICE")
    if mount.is_mountpoint(target):
        return
    if not spec:
        raise OSError("no storage device is configured: set PV_STORAGE_DEVICE (/dev/..., LABEL=... or UUID=...)")
    wait_s = settings.seconds("PV_STORAGE_WAIT")
    device = blockdev.wait(spec, wait_s)
    if device is None:
        raise OSError(f"the storage device {spec} (PV_STORAGE_DEVICE) did not appear within {wait_s} s")
    kind = settings.text("PV_STORAGE_FSTYPE") or "ext4"
    mount.mount(device, target, kind, flags=MS_NOSUID | MS_NODEV | MS_NOATIME)
    if kind == "ext4" and settings.text("PV_SYSTEM_INIT_MODE") == "embedded":
        grow_storage(device, target, console)


def grow_storage(device: str, target: str, console: kmsg.Console) -> None:
    """An image that was written to a larger disk takes all of it (device.md 3.1). What fails costs room, no boot."""
    try:
        gained = ext4.grow(device, target)
    except OSError as error:
        console.line(f"brickless: the storage keeps its size: {error}")
        return
    if gained:
        console.line(f"brickless: the storage grew by {gained} bytes")


def bring_up_loopback(console: kmsg.Console) -> None:
    """Bring the loopback interface up: containers share the device's network by default."""
    try:
        net.up(LOOPBACK)
    except OSError as error:
        console.line(f"brickless: {error}")


def make_host_files() -> None:
    """What containers' configurations bind from the host and an initramfs may lack (device.md 1.15)."""
    if not os.path.exists(RESOLV_CONF):
        os.makedirs(os.path.dirname(RESOLV_CONF), exist_ok=True)
        os.close(os.open(RESOLV_CONF, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def around(settings: Config, run_dir: str) -> Settings:
    """What the configuration says about containers' surroundings."""
    usrmeta = settings.text("PV_CACHE_USRMETADIR")
    caches = [("pv--usrmeta", usrmeta), ("pv--devmeta", settings.text("PV_CACHE_DEVMETADIR"))]
    if settings.flag("PV_STORAGE_PHCONFIG_VOL"):
        caches.append(("pv--phconfig", os.path.join(settings.text("PV_STORAGE_MNTPOINT") or "/storage", "config")))
    return Settings(
        private=PRIVATE,
        run=run_dir,
        lib=settings.text("PV_SYSTEM_LIBDIR") or "/lib",
        disks=settings.text("PV_SYSTEM_DISKSDIR"),
        bridge=(
            settings.text("PV_NET_BRDEV"),
            settings.text("PV_NET_BRADDRESS4"),
            settings.text("PV_NET_BRMASK4"),
        ),
        fitconfig=settings.text("PV_BOOTLOADER_FITCONFIG"),
        user_meta=(os.path.join(run_dir, "user-meta"), usrmeta),
        caches=tuple(caches),
        firmware_volume=settings.flag("PV_STORAGE_FIRMWARE_VOL"),
        remount_policy=os.environ.get("PV_REMOUNT_POLICY", "default"),
    )


def loop_base(text: str) -> int:
    """PV_LOOP_INDEX_BASE: the first loop device that may be used; -1, and what is no number, takes any free one."""
    return int(text) if text.isdecimal() else -1


def run(settings: Config, root: str, cmdline: str, console: kmsg.Console) -> int:
    """Put the parts together and loop."""
    poll = select.poll()
    run_dir = settings.text("PV_SYSTEM_RUNDIR") or "/run/pantavisor/pv"
    for view in RUN_FOLDERS:
        os.makedirs(os.path.join(run_dir, view), exist_ok=True)
    roots = Roots(
        storage=root,
        volumes=settings.text("PV_DISK_VOLDIR"),
        configs=settings.text("PV_SYSTEM_CONFDIR"),
        media=settings.text("PV_SYSTEM_MEDIADIR"),
        loop_index_base=loop_base(settings.text("PV_LOOP_INDEX_BASE")),
        verity=settings.flag("PV_SECUREBOOT_HANDLERS"),
        exports=settings.text("PV_DISK_EXPORTSDIR") or "/exports",
    )
    init_fd = int(os.environ.get(FD_VARIABLE, "-1"))
    machine = LinuxMachine(
        roots, Paths(run_dir, PRIVATE, LXC_PATH, ROOTFS_MOUNT), console, init_fd, poll, around(settings, run_dir)
    )
    log_server = LogServer(
        root, run_dir, poll, now_s=machine.now_s, console=console.line, options=log_options(settings)
    )
    machine.log_server = log_server
    storage = Storage(root)
    for leftover in storage.prepare():
        machine.say(f"storage: {leftover} of an interrupted write removed")
    if settings.text("PV_SYSTEM_INIT_MODE") != APPENGINE:  # there the kernel is a host's
        kernel.apply(settings.sysctls, machine.say)
    limits = limits_of(settings)
    machine.default_mgmt = limits.default_mgmt
    loader = backend(settings.text("PV_BOOTLOADER_TYPE"), root, settings.text("PV_BOOTLOADER_ENV"))
    supervisor = Supervisor(machine, storage, loader, limits, mark=mark_of(cmdline))
    place = places.Place(root, run_dir, PRIVATE, sources_of(cmdline))
    supervisor.on_configure = lambda: configure(supervisor, log_server, place)
    hook = hook_runner(settings, cmdline, machine.say)
    supervisor.on_event = hook
    server = Server(os.path.join(run_dir, "supervisor"), poll, supervisor.request)
    control = open_control(poll, place, machine.say)
    open_remote(control, settings, place, machine.say)
    supervisor.judge = signature_judge(settings)
    supervisor.boot(revision_of(cmdline), verify=is_to_be_hashed(settings, cmdline))
    if settings.flag("PV_DEBUG_SHELL"):
        mode = "open" if settings.flag("PV_DEBUG_SHELL_AUTOLOGIN") else "ask"
        machine.tell_init(f"shell {mode} {settings.seconds('PV_DEBUG_SHELL_TIMEOUT')}")
    hook("system-start", storage.current() or "")
    libc.trim_heap()
    awake = Awake(settings.text("PV_POWER_MODE"), settings.text("PV_POWER_SYSFS_DIR"), PRIVATE, machine.say)
    loop(poll, (server, control, log_server), supervisor, (Heartbeat(machine.tell_init, settings), awake))
    return 1


def is_to_be_hashed(settings: Config, cmdline: str) -> bool:
    """Whether a revision's files are hashed at boot (device.md 2.4); in `strict` nothing of the boot's can say no."""
    if settings.text("PV_SECUREBOOT_MODE") == "strict":
        return True
    return settings.flag("PV_SECUREBOOT_CHECKSUM") and not quickboot(cmdline, dict(os.environ))


def signature_judge(settings: Config) -> Callable[[State], tuple[str, str]] | None:
    """Judges a revision's signatures before it runs; None where the policy does not look at them.

    Dates of certificates do not count here: what was accepted once still boots when they have passed.
    """
    policy = policy_of(settings)
    if policy.mode == "disabled":
        return None
    return lambda state: judge(state, policy, dated=False)


def hook_runner(settings: Config, cmdline: str, say: Callable[[str], None]) -> Callable[[str, str], None]:
    """Runs the system's hooks with what happened and to which revision (device.md 3.10)."""
    root = settings.text("PV_STORAGE_MNTPOINT") or "/storage"
    words = dict(word.partition("=")[::2] for word in cmdline.split())
    fixed = {
        "PV_TRY": words.get("pv_try", ""),
        "PV_TRYBOOT": str(int(bool(words.get("pv_try")) and words.get("pv_try") == words.get("pv_rev"))),
        "PV_OBJ_STORAGE": os.path.join(root, "objects"),
        "PV_TRAILS_STORAGE": os.path.join(root, "trails"),
    }
    folder = os.path.join(settings.text("PV_SYSTEM_LIBDIR") or "/lib", hooks.FOLDER)

    def run(what: str, rev: str) -> None:
        hooks.run(hooks.found(folder), {**fixed, "PV_OP": what, "PV_REV": rev, "PV_STATUS": what}, say)

    return run


def limits_of(settings: Config) -> Limits:
    """The supervisor's own share of the configuration."""
    gated = settings.flag("PV_CONTROL_REMOTE") and settings.flag("PH_UPDATER_HUB_GATE")
    policy = Policy(
        max_retries=settings.integer("PV_REVISION_RETRIES"),
        commit_delay_s=commit_delay_s(settings),
        hub_timeout_s=settings.seconds("PH_UPDATER_NETWORK_TIMEOUT"),
        hub_gate=HubGate.REACHED if gated else HubGate.OFF,
    )
    goals_timeout_s = float(settings.seconds("PV_UPDATER_GOALS_TIMEOUT"))
    return Limits(goals_timeout_s, policy, settings.flag("PV_ROLES_DEFAULT_MGMT"))


def log_options(settings: Config) -> LogOptions:
    """What is captured, where it goes, how much."""
    return LogOptions(
        outputs=settings.words("PV_LOG_SERVER_OUTPUTS"),
        capture=settings.flag("PV_LOG_CAPTURE"),
        loggers=settings.flag("PV_LOG_LOGGERS"),
        dmesg=settings.flag("PV_LOG_CAPTURE_DMESG"),
        wear_bytes=settings.size("PV_LOG_WEAR_MAX"),
        pieces=settings.integer("PV_LOG_ROTATE_FACTOR"),
        total_bytes=settings.size("PV_LOG_DIR_MAXSIZE"),
        hysteresis=settings.integer("PV_LOG_HYSTERESIS_FACTOR"),
        absolute=settings.text("PV_LOG_TIMESTAMP") == "absolute",
        dev_log=settings.flag("PV_LOG_AUTO_DEVLOG"),
    )


def configure(supervisor: Supervisor, log_server: LogServer, place: places.Place) -> None:
    """Take over what user metadata or a command has set; a trial that runs keeps the times it began with."""
    settings = places.settings(place)
    supervisor.use(limits_of(settings))
    log_server.options = log_options(settings)


def open_control(poll: select.poll, place: places.Place, say: Callable[[str], None]) -> Listener:
    """Open the control socket, before any container starts that is to see it."""
    control = Listener(poll, say)
    control.add(unix_door(os.path.join(place.run, places.CONTROL), lambda sock: serve_control(sock, place)))
    views.refresh(place.run)
    return control


def open_remote(control: Listener, settings: Config, place: places.Place, say: Callable[[str], None]) -> None:
    """Open the endpoint for `pvr clone IP` where it is configured, and never without a secret (device.md 6.5)."""
    where = settings.text("PV_CONTROL_HTTP_LISTEN")
    if not where:
        return
    if len(settings.text("PV_CONTROL_HTTP_SECRET")) < MIN_SECRET_CHARS:
        say(f"control: {where} stays closed: PV_CONTROL_HTTP_SECRET has less than {MIN_SECRET_CHARS} characters")
        return
    try:
        control.add(tcp_door(where, lambda sock: serve_remote(sock, place)))
    except (OSError, ValueError) as error:
        say(f"control: {where} cannot be opened: {error}")
        return
    say(f"control: clients of pvr are answered at {where}")


def serve_remote(sock: socket.socket, place: places.Place) -> None:
    """In the child: serve one connection of a remote client."""
    from brickless.device.control import remote

    remote.serve(sock, place, signal.alarm)


def serve_control(sock: socket.socket, place: places.Place) -> None:
    """In the child: serve one connection, in a bounded time."""
    from brickless.device.control import session

    session.serve(sock, place, signal.alarm)


def loop(
    poll: select.poll,
    servers: tuple[Server, Listener, LogServer],
    supervisor: Supervisor,
    beside: tuple[Heartbeat, Awake],
) -> None:
    """Sleep until something happens or is due. Nothing wakes us up without a reason."""
    heartbeat, awake = beside
    while True:
        supervisor.tick()
        servers[2].tick()
        awake.hold(supervisor.scopes)
        times = (supervisor.due_s(), servers[2].due_s(), heartbeat.beat(reached=supervisor.reached))
        due_s = min((at for at in times if at is not None), default=None)
        for fd, _ in poll.poll(timeout_ms(due_s)):
            for server in servers:
                server.serve(fd)


def timeout_ms(due_s: float | None) -> int | None:
    """For poll(2): at least until `due_s`, so that what is due then is due; None waits for events alone."""
    if due_s is None:
        return None
    return max(0, min(int((due_s - time.monotonic()) * 1000) + 1, 1 << 30))


if __name__ == "__main__":
    sys.exit(main())
