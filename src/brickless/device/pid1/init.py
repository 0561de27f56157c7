"""PID 1 at work: early mounts and modules, two children kept alive, orphans reaped, the reset at the end.

It knows nothing of revisions, containers or networks. The supervisor talks to it over a pipe, one word a line:

    alive               its loop turned: the watchdog, if armed, is fed
    trial 1 | trial 0   a revision is being tried: give up sooner
    watchdog MODE SECONDS   how the hardware watchdog is used (`pid1.guard`)
    shell MODE SECONDS      whether the console offers a debug shell, and how long a reboot waits for it (`pid1.shell`)
    defer SECONDS           how long from now on
    started             the revision's containers reached their goals
    reboot | poweroff   end the system; containers are stopped already

Nothing here wakes up by itself: with both children healthy the process sleeps until a signal or a line arrives (and
before the supervisor's first word to feed an armed watchdog).
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from typing import NoReturn

from brickless.device.pid1.daemon import Daemon
from brickless.device.pid1.guard import CONFIG_FILE, MODES, Guard, early_settings
from brickless.device.pid1.shell import MODES as SHELL_MODES
from brickless.device.pid1.shell import Shell
from brickless.linux import cgroup, kmsg, libc, modules, mount, power, spawn

MODULES_LIST = "/etc/brickless/modules"
# Programs that start before everything else (device.md 3.1).
EARLY_HOOKS = "/lib/pv/hooks_early.spawn"
# The supervisor's end of the pipe, named in its environment.
FD_VARIABLE = "BRICKLESS_INIT_FD"
DAEMONS = (("supervisor", "brickless.device.supervise.main", True), ("agent", "brickless.device.link.main", False))
# The inode of the first PID namespace (PROC_PID_INIT_INO of the kernel's proc_ns.h).
HOST_PID_NAMESPACE = 0xEFFFFFFC
# What the daemons have in common, loaded once, in a process that ends; it must not take longer than this.
SHARED = "brickless.device.shared"
NURSE_TIMEOUT_MS = 10_000
STOP_GRACE_S = 3.0
REAP_GRACE_S = 2.0
LINE_MAX_BYTES = 4096
RESET_SIGNALS = {
    signal.SIGINT: "reboot",
    signal.SIGTERM: "reboot",
    signal.SIGUSR1: "reboot",
    signal.SIGUSR2: "poweroff",
}


def run(*, greeted: bool) -> int:
    """Everything PID 1 does, in order. Ends by resetting the machine; raises what it cannot deal with."""
    mount.mount_early()
    console = kmsg.Console()
    if not greeted:
        console.line("brickless: pid1 up")
    libc.set_process_name("pantavisor")
    prepare(console)
    early_spawn(console)
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as stream:
        cmdline = stream.read()
    guard = Guard(console)
    guard.configure(*early_settings(cmdline, _text(CONFIG_FILE)), time.monotonic())
    daemons = [Daemon(name, module, essential=vital) for name, module, vital in DAEMONS]
    init = Init(console, daemons, on_trial(cmdline), guard)
    if is_standalone(sys.argv[1:], cmdline, _text(CONFIG_FILE)):
        init.stand_alone()
    return init.main()


def is_standalone(words: list[str], cmdline: str, config: str) -> bool:
    """Whether the board is being brought up: by the bare word (an argument of init), or the configuration."""
    setting = "PV_SYSTEM_INIT_MODE="
    last = [one.strip() for one in (*config.splitlines(), *cmdline.split()) if one.strip().startswith(setting)][-1:]
    return "pv_standalone" in words or last == [f"{setting}standalone"]


def _text(path: str) -> str:
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(LINE_MAX_BYTES * 16)


def run_contained() -> int:
    """PID 1 of a PID namespace on someone's machine: no early mounts, no modules, nothing of the host is touched.

    Ends by a reset of its namespace: the kernel kills it by SIGHUP for a reboot, by SIGINT for power off
    (pid_namespaces(7)). Raises `RuntimeError` where that would be the whole machine.
    """
    if os.getpid() != 1 or os.stat("/proc/self/ns/pid").st_ino == HOST_PID_NAMESPACE:
        raise RuntimeError("not in a PID namespace of its own: a reset would be the machine's")
    libc.set_process_name("pantavisor")
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as stream:
        trial = on_trial(stream.read())
    console = kmsg.Console()
    guard = Guard(console, _no_watchdog)
    guard.configure("disabled", 0, time.monotonic())
    daemons = [Daemon(name, module, essential=vital) for name, module, vital in DAEMONS]
    return Init(console, daemons, trial, guard, contained=True).main()


def _no_watchdog(_timeout_s: int) -> NoReturn:
    raise OSError("the hardware is a host's")


def prepare(console: kmsg.Console) -> None:
    """Kernel modules, control groups, Ctrl-Alt-Del. What fails is said; the supervisor finds out whether it matters."""
    steps = (("kernel modules", load_modules), ("control groups", cgroup.mount_unified))
    for what, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:
            console.line(f"brickless: pid1: {what}: {error}")
    try:
        power.ignore_ctrl_alt_del()
    except OSError as error:
        # Not allowed in a PID namespace: there Ctrl-Alt-Del belongs to the host.
        console.line(f"brickless: pid1: Ctrl-Alt-Del resets at once: {error}")


def early_spawn(console: kmsg.Console, folder: str = EARLY_HOOKS) -> None:
    """Start the BSP's early programs, in alphabetical order, and go on: they run beside us, and we reap them."""
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            try:
                spawn.program(path, {"PV_OP": "early-spawn"})
            except OSError as error:
                console.line(f"brickless: pid1: {path}: {error.strerror}")


def load_modules() -> None:
    """Load what /etc/brickless/modules lists, in its order. A missing list is a kernel that has all built in."""
    if not os.path.exists(MODULES_LIST):
        return
    with open(MODULES_LIST, encoding="utf-8") as stream:
        wanted = modules.parse_list(stream.read())
    known = modules.Modules()
    faults = []
    for name, parameters in wanted:
        try:
            known.load(name, parameters)
        except OSError as error:
            faults.append(str(error))
    if faults:
        raise OSError("; ".join(faults))


def share_memory() -> None:
    """Before a fork: memory is shared as long as nobody writes to it, and marks and counts would be such writes."""
    gc.collect()
    libc.keep_for_ever(gc.get_objects())
    gc.freeze()


def on_trial(cmdline: str) -> bool:
    """Whether the bootloader booted a revision that it was asked to try (device.md 3.3: trying = pv_rev is pv_try)."""
    words = dict(word.partition("=")[::2] for word in cmdline.split())
    return bool(words.get("pv_try")) and words.get("pv_try") == words.get("pv_rev")


class Init:
    """The loop of PID 1."""

    __slots__ = (
        "_buffer",
        "_console",
        "_contained",
        "_daemons",
        "_guard",
        "_pipe",
        "_shell",
        "_signals",
        "_standalone",
        "_trial",
        "_wish",
    )

    def __init__(
        self, console: kmsg.Console, daemons: list[Daemon], trial: bool, guard: Guard, *, contained: bool = False
    ) -> None:
        """`contained`: the file systems are a host's, which are not ours to remount."""
        self._console = console
        self._contained = contained
        self._daemons = daemons
        self._trial = trial
        self._wish = ""
        self._buffer = b""
        self._guard = guard
        self._shell = Shell(console)
        self._standalone = False
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def main(self) -> int:
        """Keep the daemons alive until someone wishes the end; then reset."""
        self._catch_signals()
        share_memory()
        while not self._wish or self._shell.holds_until_s(time.monotonic()) is not None:
            if not self._wish and not self._standalone:
                self._start_due()
            self._guard.tick(time.monotonic())
            for fd, _ in self._poll().poll(self._wait_ms()):
                if fd == self._signals[0]:
                    self._take_signals()
                elif fd == self._pipe[0]:
                    self._take_lines()
                else:
                    self._shell.asked()
            self._reap()
        self._end()
        return 1

    def stand_alone(self) -> None:
        """Bring-up of a board (device.md 9.4): a shell and nothing else, until someone starts `pantavisor` in it."""
        self._standalone = True
        self._console.line("brickless: standalone: `pantavisor` starts the runtime")
        self._shell.offer("open", 0.0)

    def _poll(self) -> select.poll:
        poll = select.poll()
        for fd in (self._signals[0], self._pipe[0], self._shell.fd):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        return poll

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *RESET_SIGNALS):
            signal.signal(number, _noted)
        signal.signal(signal.SIGHUP, _noted)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _take_signals(self) -> None:
        for number in _read(self._signals[0]):
            if number == signal.SIGHUP:
                self._standalone = False  # `pantavisor`, started by hand
            if number != signal.SIGCHLD and number in {int(known) for known in RESET_SIGNALS}:
                self._wish = RESET_SIGNALS[signal.Signals(number)]

    def _wait_ms(self) -> int | None:
        held_s = self._shell.holds_until_s(time.monotonic()) if self._wish else None
        waiting = [] if held_s is None else [held_s]
        if not self._wish and not self._standalone:
            waiting += [daemon.next_start_s for daemon in self._daemons if not daemon.pid]
        feed_s = self._guard.due_s()
        if feed_s is not None:
            waiting.append(feed_s)
        if not waiting:
            return None
        return max(0, int((min(waiting) - time.monotonic()) * 1000) + 1)

    # -- children ------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        if len(self._daemons) > 1 and not any(daemon.pid or daemon.deaths for daemon in self._daemons):
            self._start_together()
        for daemon in self._daemons:
            if not daemon.pid and daemon.next_start_s <= time.monotonic():
                daemon.started(self._fork(daemon), time.monotonic())

    def _start_together(self) -> None:
        """The first start: one child loads what all of them need and forks them, so that they share it (ADR 0072).

        It tells us their pids and ends, which makes them ours. Whom it does not start is started by itself.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        nurse = os.fork()
        if not nurse:
            os.close(reader)
            self._nurse(writer)
        os.close(writer)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        told = b""
        while poll.poll(NURSE_TIMEOUT_MS) and (data := os.read(reader, LINE_MAX_BYTES)):
            told += data
        os.close(reader)
        _signal(nurse, signal.SIGKILL)  # it has ended, unless it hangs
        os.waitpid(nurse, 0)
        pids = dict(line.split() for line in told.decode("ascii").splitlines())
        for daemon in self._daemons:
            if daemon.name in pids:
                daemon.started(int(pids[daemon.name]), time.monotonic())

    def _nurse(self, writer: int) -> None:
        code = 70
        try:
            __import__(SHARED)
            share_memory()
            for daemon in self._daemons:
                pid = self._fork(daemon, (writer,))
                os.write(writer, f"{daemon.name} {pid}\n".encode("ascii"))
            code = 0
        except BaseException as error:
            self._console.line(f"brickless: {SHARED}: {type(error).__name__}: {error}{_place(error)}")
        os._exit(code)

    def _fork(self, daemon: Daemon, unwanted: tuple[int, ...] = ()) -> int:
        """Start a child without exec: what the interpreter has in memory stays shared (ADR 0006)."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            for fd in unwanted:
                os.close(fd)
            code = self._become(daemon)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException as error:
            self._console.line(f"brickless: {daemon.name} failed: {type(error).__name__}: {error}{_place(error)}")
        os._exit(code)

    def _become(self, daemon: Daemon) -> int:
        signal.set_wakeup_fd(-1)
        # SIGPIPE stays ignored, as Python has it: a peer that hangs up fails that write, it does not end the child.
        for number in (signal.SIGCHLD, *RESET_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        libc.set_process_name(f"pv-{daemon.name}")
        for fd in (self._signals[0], self._signals[1], self._pipe[0]):
            os.close(fd)
        if daemon.essential:
            os.environ[FD_VARIABLE] = str(self._pipe[1])
        else:
            os.close(self._pipe[1])
        __import__(daemon.module)
        return int(sys.modules[daemon.module].main())

    def _reap(self) -> None:
        """Collect every child that ended: ours, and orphans of anyone."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._shell.ended(pid)
            for daemon in self._daemons:
                if daemon.pid == pid:
                    self._mourn(daemon, status)

    def _mourn(self, daemon: Daemon, status: int) -> None:
        delay_s = daemon.died(time.monotonic())
        code = os.waitstatus_to_exitcode(status)
        how = f"exit status {code}" if code >= 0 else f"signal {-code}"
        if daemon.is_hopeless(self._trial):
            self._console.line(f"brickless: {daemon.name} died {daemon.deaths} times ({how}): reboot")
            self._wish = "reboot"
            return
        self._console.line(f"brickless: {daemon.name} died ({how}): started again in {delay_s:g} s")

    # -- the supervisor's words ----------------------------------------------------------------------------------

    def _take_lines(self) -> None:
        self._buffer = (self._buffer + _read(self._pipe[0]))[-LINE_MAX_BYTES:]
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._obey(line.decode("ascii", "replace").split())

    def _obey(self, words: list[str]) -> None:
        if words in (["reboot"], ["poweroff"]):
            self._wish = words[0]
        elif words == ["alive"]:
            self._guard.alive()
        elif words == ["started"]:
            self._guard.started()
        elif words[:1] == ["shell"] and len(words) == 3 and words[1] in SHELL_MODES and words[2].isdecimal():
            self._shell.offer(words[1], float(words[2]))
        elif words[:1] == ["defer"] and len(words) == 2 and words[1].isdecimal():
            self._shell.defer(float(words[1]), time.monotonic())
        elif words[:1] == ["trial"] and words[1:] in (["0"], ["1"]):
            self._trial = words[1] == "1"
        elif words[:1] == ["watchdog"] and len(words) == 3 and words[1] in MODES and words[2].isdecimal():
            self._guard.configure(words[1], int(words[2]), time.monotonic())
        else:
            self._console.line(f"brickless: pid1: not understood: {' '.join(words)}")

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Stop who is left, write everything out, reset. Bounded in time: a stuck process does not hold the reset."""
        self._console.line(f"brickless: {self._wish}")
        self._guard.ending(time.monotonic())
        for daemon in self._daemons:
            if daemon.pid:
                _signal(daemon.pid, signal.SIGTERM)
        self._await_children([daemon.pid for daemon in self._daemons if daemon.pid], STOP_GRACE_S)
        if os.getpid() != 1:
            raise RuntimeError("only PID 1 may end all processes")
        _signal(-1, signal.SIGKILL)
        self._await_children(None, REAP_GRACE_S)
        if self._contained:
            os.sync()
        else:
            for fault in power.settle():
                self._console.line(f"brickless: pid1: {fault}")
        if self._wish == "poweroff":
            power.poweroff()
        power.reboot()

    def _await_children(self, pids: list[int] | None, timeout_s: float) -> None:
        """Reap until these children (None: all) are gone, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._signals[0], select.POLLIN)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid and pids is not None:
                pids = [other for other in pids if other != pid]
                if not pids:
                    return
            left_s = deadline - time.monotonic()
            if not pid and left_s <= 0:
                return
            if not pid and poll.poll(int(left_s * 1000) + 1):
                _read(self._signals[0])


def _noted(_number: int, _frame: object) -> None:
    """The number of the signal lies in the wake-up pipe."""


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, LINE_MAX_BYTES)
    except BlockingIOError:
        return b""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
