"""Containers by LXC: the final configuration, a monitor process for each, and what the monitors report.

`lxc-start -F` is the container's monitor, in a session of its own: it outlives the supervisor, which finds it again by
its pid. Measured against liblxc in our own process it costs half the memory and keeps a fault of liblxc out of it.

What happened comes without polling: liblxc writes a `struct lxc_msg` for each change of state, and for the exit status
of the container's init, into a FIFO named after the lxc path, if someone reads it. (The program `lxc-monitord` does so
for `lxc-monitor`; the exit status of `lxc-start` itself is that of the init cut to eight bits, which loses it.)
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from brickless.linux import cgroup

LXC_START = "/usr/bin/lxc-start"
# liblxc's run directory for root, and its name of the FIFO (lxc_monitor_fifo_name of liblxc's monitor.c).
RUN_DIR = "/run/lxc"
FIFO = "monitor-fifo"
# struct lxc_msg { lxc_msg_type_t type; char name[NAME_MAX + 1]; int value; }
MESSAGE = struct.Struct("=i256si")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
DEFAULT_HALT = signal.SIGPWR
CONFIG_MAX_BYTES = 1 << 20
QUOTES = ("'", '"')


class State(IntEnum):
    """`lxc_state_t` of liblxc's state.h."""

    STOPPED = 0
    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    ABORTING = 4
    FREEZING = 5
    FROZEN = 6
    THAWED = 7


class Kind(IntEnum):
    """`lxc_msg_type_t` of liblxc's monitor.h."""

    STATE = 0
    PRIORITY = 1
    EXIT_STATUS = 2


class Event(NamedTuple):
    """What a monitor reported: `value` is a `State`, or the wait status of the container's init (see waitpid(2))."""

    name: str
    kind: int
    value: int


class Line(NamedTuple):
    """One `key = value` of an LXC configuration."""

    key: str
    value: str


class Injected(NamedTuple):
    """What the runtime adds to a container's own configuration (device.md 5.6)."""

    name: str
    hostname: str
    environment: tuple[str, ...] = ()
    lower: str = ""
    console_log: str = ""
    console_log_bytes: int = 65536
    rootfs_mount: str = ""
    mounts: tuple[str, ...] = ()
    unified: bool = True
    extra: tuple[Line, ...] = ()


def parse_config(text: str) -> list[Line]:
    """An LXC configuration. Raises `ValueError` that names the line when one is no `key = value`."""
    lines: list[Line] = []
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = stripped.partition("=")
        if not equals or "\0" in stripped:
            raise ValueError(f"line {number} is no `key = value`: {stripped[:80]!r}")
        lines.append(Line(key.strip(), value.strip()))
    return lines


def render(lines: Iterable[Line]) -> str:
    """The text that liblxc reads."""
    return "".join(f"{line.key} = {line.value}\n" for line in lines)


def finalize(own: Sequence[Line], add: Injected) -> list[Line]:
    """The container's own configuration with what the runtime adds; nothing that the container set is overruled.

    Exceptions are those of the contract: the root gets the directory of the `_config` overlay as its first lower one,
    and lines for control groups version 1 are dropped where only version 2 is mounted.
    """
    lines = [_with_lower(line, add.lower) for line in own]
    if add.unified:
        lines = [line for line in lines if not line.key.startswith("lxc.cgroup.")]
        if not any(line.key.startswith("lxc.cgroup2.devices") for line in lines):
            lines.append(Line("lxc.cgroup2.devices.allow", "a"))
    present = {line.key for line in lines}
    defaults = [
        Line("lxc.uts.name", add.hostname),
        Line("lxc.rootfs.mount", add.rootfs_mount),
        # A kernel may have AppArmor on without any profile loaded; LXC's own default profile would then fail the start.
        Line("lxc.apparmor.profile", "unconfined"),
        Line("lxc.console.logfile", add.console_log),
        Line("lxc.console.size", str(add.console_log_bytes)),
        Line("lxc.console.rotate", "1"),
    ]
    lines += [line for line in defaults if line.value and line.key not in present]
    lines += [Line("lxc.environment", pair) for pair in add.environment]
    lines += [Line("lxc.mount.entry", entry) for entry in add.mounts]
    return [*lines, *add.extra]


def _with_lower(line: Line, lower: str) -> Line:
    prefix = "overlayfs:" if line.value.startswith("overlayfs:") else "overlay:"
    if not lower or line.key != "lxc.rootfs.path" or not line.value.startswith(prefix):
        return line
    return Line(line.key, f"{prefix}{lower}:{line.value[len(prefix) :]}")


def init_command(lines: Iterable[Line]) -> list[str]:
    """The words of `lxc.init.cmd`, empty when it is unset: what `start` runs.

    The field's liblxc splits at quotes: a quoted word ends at its quote, no blank is needed behind it, a backslash is
    itself (pvr writes such values, see pvr.md 4.6). Debian's splits at blanks alone, so that we split. Raises
    `ValueError` for a quote that does not end.
    """
    value = ""
    for line in lines:
        if line.key == "lxc.init.cmd":
            value = line.value
    # liblxc takes quotes off that begin and end a whole value, before it splits.
    if len(value) > 1 and value[0] in QUOTES and value[-1] == value[0]:
        value = value[1:-1]
    words: list[str] = []
    while value := value.lstrip():
        if value[0] in QUOTES:
            word, end, value = value[1:].partition(value[0])
            if not end:
                raise ValueError(f"lxc.init.cmd: a quote does not end: {word!r}")
        else:
            word = value.split(maxsplit=1)[0]
            value = value[len(word) :]
        words.append(word)
    return words


def halt_signal(lines: Iterable[Line]) -> int:
    """The signal that asks the container's init to end: `lxc.signal.halt`, SIGPWR when unset.

    Raises `ValueError` for one that the kernel does not know.
    """
    number = int(DEFAULT_HALT)
    for line in lines:
        if line.key == "lxc.signal.halt":
            number = _signal_number(line.value)
    return number


def _signal_number(text: str) -> int:
    if text.isdecimal():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
    elif text.startswith("SIGRTMIN+") and text[9:].isdecimal():
        return int(signal.SIGRTMIN) + int(text[9:])
    elif text in signal.Signals.__members__:
        return int(signal.Signals[text])
    raise ValueError(f"lxc.signal.halt: {text!r} is no signal")


def start(
    name: str,
    config: str,
    lxc_path: str,
    *,
    log: str,
    level: str,
    stdio: int,
    cwd: str,
    command: Sequence[str] = (),
) -> int:
    """Start the container's monitor; returns its pid, the pid of its session too. Raises `OSError`.

    The caller reads what becomes of it from the `Fifo` and waits for the pid. `stdio` is a descriptor for what the
    monitor itself says when it cannot start; relative paths of the configuration are resolved from `cwd`. `command` is
    run in place of `lxc.init.cmd`.
    """
    os.makedirs(os.path.join(lxc_path, name), exist_ok=True)
    _forget_groups(name)
    argv = [LXC_START, "-F", "-n", name, "-P", lxc_path, "-f", config, "-o", log, "-l", level]
    if command:
        argv += ["--", *command]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    before = os.getcwd()
    os.chdir(cwd)
    try:
        return os.posix_spawn(
            LXC_START,
            argv,
            ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, stdio, 1), (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
        )
    finally:
        os.chdir(before)
        os.close(null)


def _forget_groups(name: str) -> None:
    """Remove control groups that a killed monitor left: LXC would start the container under another group's name."""
    for root in (cgroup.ROOT, os.path.join(cgroup.ROOT, "unified")):
        for prefix in (cgroup.PAYLOAD, "lxc.monitor."):
            group = os.path.join(root, prefix + name)
            if os.path.isdir(group) and not cgroup.pids(group):
                cgroup.remove(group)


def init_pid(monitor: int, proc: str = "/proc") -> int | None:
    """The container's init: the child of its monitor that is the first process of its PID namespace.

    None while there is none. A container that keeps the host's PID namespace has one child, which is its init.
    """
    children = list(_children(monitor, proc))
    first = [pid for pid in children if _is_first(pid, proc)]
    candidates = first or children
    return candidates[0] if len(candidates) == 1 else None


def _children(parent: int, proc: str) -> Iterable[int]:
    for entry in os.listdir(proc):
        if entry.isdecimal() and _parent(int(entry), proc) == parent:
            yield int(entry)


def _parent(pid: int, proc: str) -> int | None:
    fields = stat_fields(pid, proc)
    return int(fields[1]) if fields else None


def _is_first(pid: int, proc: str) -> bool:
    numbers = status_field(pid, "NSpid", proc).split()
    return len(numbers) > 1 and numbers[-1] == "1"


def stat_fields(pid: int, proc: str = "/proc") -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, parent, ...); empty when the process is gone."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as stream:
            text = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return os.fsdecode(text[text.rindex(b")") + 2 :]).split()


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """When the process started, in clock ticks since boot: with the pid, this names a process for ever."""
    fields = stat_fields(pid, proc)
    return int(fields[19]) if len(fields) > 19 else None


def status_field(pid: int, field: str, proc: str = "/proc") -> str:
    """One field of /proc/PID/status; empty when the process or the field is gone."""
    try:
        with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key == field:
                    return value.strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return ""


def catches(pid: int, number: int, proc: str = "/proc") -> bool:
    """Whether the process has a handler for the signal. The kernel drops a signal for an init that has none."""
    mask = status_field(pid, "SigCgt", proc)
    return bool(mask) and bool(int(mask, 16) >> (number - 1) & 1)


def ask_to_halt(pid: int, number: int) -> bool:
    """Ask a container's init to end, by its halt signal, or by SIGTERM when it only handles that.

    False when it handles neither, so that waiting for it is of no use, or is gone.
    """
    for candidate in (number, int(signal.SIGTERM)):
        if catches(pid, candidate):
            try:
                os.kill(pid, candidate)
            except ProcessLookupError:
                return False
            return True
    return False


def kill(pid: int) -> None:
    """SIGKILL to a container's init, which takes its PID namespace along, and to all of its control group."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
            text = stream.read(65536)
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
    for line in text.splitlines():
        number, _, path = line.split(":", 2)
        if number == "0" and cgroup.PAYLOAD in path:
            base = os.path.join(cgroup.ROOT, "unified") if cgroup.layout() == "hybrid" else cgroup.ROOT
            _kill_group(base + path)


def _kill_group(group: str) -> None:
    try:
        cgroup.kill_all(group)
    except OSError as error:
        # The monitor removed the group between our two steps: there is nobody left in it to kill.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


class Fifo:
    """The FIFO into which the monitors of one lxc path report; keep one open for as long as containers run."""

    __slots__ = ("_buffer", "_fd", "path")

    def __init__(self, lxc_path: str, run_dir: str = RUN_DIR) -> None:
        """Make the FIFO and open it. Both ends, so that it never reports an end of file between two monitors."""
        self.path = f"{run_dir}/{lxc_path}/{FIFO}"
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(self.path, 0o600)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._buffer = b""

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def read(self) -> list[Event]:
        """What was reported since the last call, oldest first. Messages are written whole (shorter than PIPE_BUF)."""
        try:
            self._buffer += os.read(self._fd, 64 * MESSAGE.size)
        except BlockingIOError:
            return []
        events = []
        while len(self._buffer) >= MESSAGE.size:
            kind, name, value = MESSAGE.unpack_from(self._buffer)
            self._buffer = self._buffer[MESSAGE.size :]
            events.append(Event(os.fsdecode(name.partition(b"\0")[0]), kind, value))
        return events

    def close(self) -> None:
        """Stop listening: monitors then find no reader and go on without us."""
        os.close(self._fd)


def describe_exit(status: int | None) -> str:
    """A wait status in words: `exit status 7`, `signal SIGSEGV`; None is a status nobody saw."""
    if status is None:
        return "exit status unknown"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name if -code in {int(known) for known in signal.Signals} else str(-code)
    return f"signal {name}"


def start_fault(log: str) -> str:
    """Why a container did not start: the first error of the last start in liblxc's log; empty when it names none."""
    errors: list[str] = []
    for line in reversed(log.splitlines()):
        _, error, rest = line.partition(" ERROR ")
        if not error:
            continue
        if "lxc_start.c:main:" in rest:
            # What lxc-start says in the end of each start; before it lies the start before.
            if errors:
                break
            continue
        errors.append(rest.partition(" - ")[2].partition(" - ")[2])
    return errors[-1].strip() if errors else ""


def tail(path: str, *, max_bytes: int = 400) -> str:
    """The last lines of a log file as text, for a message; empty when there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - max_bytes))
            return stream.read(max_bytes).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def environment_pairs(variables: Mapping[str, str]) -> tuple[str, ...]:
    """`KEY=value` lines for `lxc.environment`."""
    return tuple(f"{key}={value}" for key, value in variables.items())
