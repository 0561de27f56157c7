"""One run of QEMU, from start to exit: kernel, initrd, one disk, loopback-only network, console, monitor.

The guest has no way out: user networking with `restrict=on`, the host's services only through named forwards.
A guest reset ends the run (`-no-reboot`): whoever plays the board's firmware decides what starts next.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from brickless.linux import process
from brickless.twin.console import Console, Found
from brickless.twin.errors import MachineEndedError, TwinError
from brickless.twin.monitor import Monitor

# The address under which a guest finds what the host forwards to it.
SERVICE_ADDRESS = "10.0.2.100"
NETWORK_DEVICE = "net0"
END_TIMEOUT_S = 20.0
# Writes after which the log's own count of entries is brought up to date: it must be right when QEMU is killed.
LOG_UPDATE_INTERVAL = 1


class Hardware(NamedTuple):
    """What the board has."""

    memory_mb: int = 256
    cpus: int = 1
    machine: str = "q35"
    cpu: str = "max"
    program: str = "qemu-system-x86_64"
    package: str = "qemu-system-x86"
    # What lies in its flash, when QEMU's own is not meant; and whether it has an i6300esb watchdog.
    firmware: Path | None = None
    watchdog: bool = False
    # With a number, each instruction takes 2^n ns of the guest's time, however busy the host is: its timers, a hardware
    # watchdog's too, then see a board of constant speed.
    instruction_shift: int | None = None
    # More words for QEMU's command line, as they are.
    options: tuple[str, ...] = ()


class Forward(NamedTuple):
    """From a loopback port of the host to a port of the guest."""

    host_port: int
    guest_port: int


class Service(NamedTuple):
    """From `SERVICE_ADDRESS:guest_port`, as the guest sees it, to a loopback port of the host."""

    guest_port: int
    host_port: int


class Boot(NamedTuple):
    """What the firmware hands over: the kernel, one file with all initramfs archives, the command line."""

    kernel: Path
    initrd: Path
    command_line: str


class Machine:
    """A started QEMU. As a context manager it is killed at the end; it never outlives the program that started it."""

    def __init__(
        self,
        boot: Boot | None,
        console: Console,
        *,
        disk: Path | None = None,
        drive: str = "",
        hardware: Hardware | None = None,
        forwards: Sequence[Forward] = (),
        services: Sequence[Service] = (),
        write_log: Path | None = None,
    ) -> None:
        """Describe it; `start` starts it. The disk is a raw image that the guest writes to.

        Without `boot` the machine's own firmware boots from the disk, and a reset of the guest does not end it. `drive`
        replaces the options of QEMU's `-drive` for the disk (the id must be `disk0`).
        `write_log` gets every write and flush of the disk, in the kernel's dm-log-writes format.
        """
        self.boot = boot
        self.console = console
        self.disk = disk
        self.drive = drive
        self.write_log = write_log
        self.hardware = hardware or Hardware()
        self.forwards = tuple(forwards)
        self.services = tuple(services)
        self._process: process.Process | None = None
        self._monitor: Monitor | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> Machine:
        """Start QEMU. Raises `process.ToolMissingError` that names the package, `process.ProcessError`."""
        qemu = process.require(self.hardware.program, self.hardware.package)
        setpriv = process.require("setpriv", "util-linux")
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [setpriv, "--pdeathsig", "KILL", qemu, *self.arguments(theirs.fileno())]
            self._process = process.spawn(
                argv,
                purpose="running an emulated device",
                stdout=process.PIPE,
                stderr=process.STDOUT,  # QEMU's own complaints belong beside the console's last words
                pass_fds=(theirs.fileno(),),
            )
        self._monitor = Monitor(ours)
        self._reader = threading.Thread(target=self._read, name="console", daemon=True)
        self._reader.start()
        return self

    def arguments(self, monitor_fd: int) -> list[str]:
        """QEMU's arguments; the monitor talks on the inherited socket `monitor_fd`."""
        hardware = self.hardware
        # `thread=single`: one virtual CPU needs no more, and tests share two cores. `-nodefaults`: nothing unasked.
        arguments = ["-accel", "tcg,thread=single" if hardware.cpus == 1 else "tcg", "-M", hardware.machine]
        arguments += ["-cpu", hardware.cpu, "-smp", str(hardware.cpus), "-m", str(hardware.memory_mb)]
        arguments += ["-nodefaults", "-no-user-config", "-display", "none"]
        arguments += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        arguments += ["-chardev", f"socket,id=monitor,fd={monitor_fd}", "-mon", "chardev=monitor,mode=control"]
        if self.boot is not None:
            arguments += ["-no-reboot", "-kernel", str(self.boot.kernel), "-initrd", str(self.boot.initrd)]
            arguments += ["-append", self.boot.command_line]
        if hardware.instruction_shift is not None:
            arguments += ["-icount", f"shift={hardware.instruction_shift}"]
        if hardware.firmware is not None:
            arguments += ["-bios", str(hardware.firmware)]
        if hardware.watchdog:
            arguments += ["-device", "i6300esb", "-action", "watchdog=reset"]
        arguments += [*hardware.options, "-device", "virtio-rng-pci"]
        if self.disk is not None:
            arguments += [*self._drive(self.disk), "-device", "virtio-blk-pci,drive=disk0"]
        return arguments + self._network()

    def _drive(self, disk: Path) -> list[str]:
        # `unsafe` and `no-flush` drop the host's fdatasync only: a write that the guest saw completed is in the host's
        # page cache and outlives SIGKILL of QEMU. (A power cut of the guest's disk is another test's: `tests/chaos`.)
        if self.write_log is None:
            drive = f"file={_escape(disk)},format=raw,if=none,id=disk0,cache=unsafe,discard=unmap"
            return ["-drive", self.drive or drive]
        self.write_log.touch()
        node = f"driver=raw,file.driver=file,file.filename={_escape(disk)},cache.no-flush=on,node-name=image0"
        log = f"driver=file,filename={_escape(self.write_log)},cache.no-flush=on,node-name=log0"
        both = f"driver=blklogwrites,file=image0,log=log0,log-super-update-interval={LOG_UPDATE_INTERVAL}"
        return ["-blockdev", node, "-blockdev", log, "-blockdev", f"{both},node-name=disk0"]

    def _network(self) -> list[str]:
        options = ["user", f"id={NETWORK_DEVICE}", "restrict=on", "ipv6=off"]
        options += [f"hostfwd=tcp:127.0.0.1:{one.host_port}-:{one.guest_port}" for one in self.forwards]
        if self.services:
            socat = process.require("socat", "socat")
            options += [
                f"guestfwd=tcp:{SERVICE_ADDRESS}:{one.guest_port}-cmd:{socat} - TCP:127.0.0.1:{one.host_port}"
                for one in self.services
            ]
        device = f"virtio-net-pci,id=nic0,netdev={NETWORK_DEVICE},romfile="
        return ["-netdev", ",".join(options), "-device", device]

    def _read(self) -> None:
        stream = self._running().stdout
        if stream is None:
            raise TwinError("QEMU's console is not connected")
        while data := os.read(stream.fileno(), 65536):
            self.console.feed(data)

    def _running(self) -> process.Process:
        if self._process is None:
            raise TwinError("the machine was not started")
        return self._process

    @property
    def pid(self) -> int:
        """The id of the QEMU process."""
        return self._running().pid

    @property
    def monitor(self) -> Monitor:
        """The machine protocol."""
        if self._monitor is None:
            raise TwinError("the machine was not started")
        return self._monitor

    def wait_for(self, pattern: str, *, timeout_s: float, since: int = 0) -> Found:
        """Wait for a line of the console, see `Console.wait_for`."""
        return self.console.wait_for(pattern, timeout_s=timeout_s, since=since)

    def poll(self) -> bool:
        """Whether it still runs."""
        return self._running().poll() is None

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for QEMU's end and return its reason: `guest-reset`, `guest-shutdown`, `guest-panic`, or how it died.

        Raises `process.ProcessTimeoutError` and leaves it running after `timeout_s`.
        """
        code = self._running().wait(timeout_s)
        if self._reader is not None:
            self._reader.join(END_TIMEOUT_S)
        reason = self.monitor.shutdown_reason()
        return reason if code == 0 and reason else f"QEMU {process.describe_exit(code)}"

    def set_link(self, *, up: bool) -> None:
        """Plug or pull the network cable."""
        self.monitor.execute("set_link", name="nic0", up=up)

    def poweroff(self, timeout_s: float = END_TIMEOUT_S) -> str:
        """Ask QEMU to quit (as pulling the plug, after its own buffers are written) and wait. Returns the reason."""
        with suppress(MachineEndedError):  # it may end before it answers, which is what we asked for
            self.monitor.execute("quit")
        return self.wait(timeout_s)

    def signal_kill(self) -> None:
        """SIGKILL, at once; whoever waits for it reaps it."""
        with suppress(ProcessLookupError):  # it ended by itself, just now
            os.kill(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL, at once; reaped."""
        if self._process is not None:
            self._process.kill()
            if self._reader is not None:
                self._reader.join(END_TIMEOUT_S)

    def close(self) -> None:
        """Kill it if it runs, and free what it held."""
        self.kill()
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._monitor is not None:
            self._monitor.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _escape(path: Path) -> str:
    """A file name inside a QEMU option: commas are doubled."""
    return str(path).replace(",", ",,")
