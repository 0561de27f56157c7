"""An emulated device: a folder with a disk, a board with firmware, and power that can be cut at any moment.

A guest reset ends QEMU; the firmware decides again and starts the next one, until the device is switched off or has
booted more often than its bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import BricklessError
from brickless.twin.console import Console, Found
from brickless.twin.errors import TwinError
from brickless.twin.firmware import Firmware, Selected
from brickless.twin.qemu import Forward, Hardware, Machine, Service

MAX_BOOTS = 20
STOP_TIMEOUT_S = 30.0
RESETS = frozenset({"guest-reset"})


class BootRecord(NamedTuple):
    """One boot: what was booted, when (monotonic), and how it ended ("" while it runs)."""

    rev: str
    attempt: int
    fell_back: bool
    at_s: float
    ended: str = ""


class EmulatedDevice:
    """A device in `folder` (`disk.img` must be there). As a context manager it is switched off at the end."""

    def __init__(
        self,
        folder: Path,
        *,
        services: Sequence[Service] = (),
        forwards: Sequence[Forward] = (),
        hardware: Hardware | None = None,
        options: str = "",
        on_line: Callable[[str], None] | None = None,
        log_writes: bool = False,
        drive: str = "",
    ) -> None:
        """`services` and `forwards` are its only network; `options` are added to the kernel's command line.

        With `log_writes` each boot leaves `writes.<number>` in the folder, see `write_logs`; `drive` replaces QEMU's
        options for the disk, as in `Machine`.
        """
        self.folder = folder
        self.disk = folder / "disk.img"
        self.console = Console(folder / "console.log", on_line)
        self.firmware = Firmware(self.disk, folder / "pv_trying", folder / "boot", options=options)
        self.services = tuple(services)
        self.forwards = tuple(forwards)
        self.hardware = hardware or Hardware()
        self.boots: list[BootRecord] = []
        self._log_writes = log_writes
        self.drive = drive
        self._machine: Machine | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._off = True

    def start(self) -> EmulatedDevice:
        """Switch it on. Raises `TwinError` when it is on already."""
        if self._thread is not None and self._thread.is_alive():
            raise TwinError(f"the device in {self.folder} is on already")
        self._off = False
        self.console.reopen()
        self._thread = threading.Thread(target=self._run, name=f"device {self.folder.name}", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        reason = f"it booted more than {MAX_BOOTS} times"
        try:
            for _ in range(MAX_BOOTS):
                reason = self._boot()
                if self._off or reason not in RESETS:
                    break
        except (BricklessError, OSError) as error:
            reason = str(error)
            self.console.note(f"firmware: {error}")
        finally:
            self.console.end(reason)

    def _boot(self) -> str:
        selected = self.firmware.select()
        self.console.note(f"firmware: boot {len(self.boots) + 1}: revision {selected.rev}{_why(selected)}")
        machine = Machine(
            selected.boot,
            self.console,
            disk=self.disk,
            drive=self.drive,
            hardware=self.hardware,
            forwards=self.forwards,
            services=self.services,
            write_log=self._new_write_log(),
        )
        with machine:
            with self._lock:
                if self._off:
                    return "switched off"
                machine.start()
                self._machine = machine
            self.boots.append(BootRecord(selected.rev, selected.attempt, selected.fell_back, time.monotonic()))
            reason = machine.wait()
            with self._lock:
                self._machine = None
        self.boots[-1] = self.boots[-1]._replace(ended=reason)
        return reason

    def _new_write_log(self) -> Path | None:
        return self.folder / f"writes.{len(self.write_logs())}" if self._log_writes else None

    def write_logs(self) -> list[Path]:
        """What was written to the disk, a file a boot, in order (dm-log-writes)."""
        found = list(self.folder.glob("writes.*"))
        return sorted(found, key=lambda path: int(path.suffix[1:]))

    @property
    def machine(self) -> Machine:
        """The QEMU that runs now. Raises `TwinError` when there is none."""
        with self._lock:
            if self._machine is None:
                raise TwinError(f"the device in {self.folder} is off, or between two boots")
            return self._machine

    @property
    def is_on(self) -> bool:
        """Whether it runs or is between two boots."""
        return self._thread is not None and self._thread.is_alive()

    def wait_for(self, pattern: str, *, timeout_s: float, since: int = 0) -> Found:
        """Wait for a line of its console, over reboots; see `Console.wait_for`."""
        return self.console.wait_for(pattern, timeout_s=timeout_s, since=since)

    def mark(self) -> int:
        """The place behind the last console line so far."""
        return self.console.mark()

    def kill(self) -> None:
        """Cut the power: SIGKILL to QEMU, no further boot. `start` switches it on again."""
        self._off = True
        with self._lock:
            if self._machine is not None:
                self._machine.signal_kill()
        self._join()

    def stop(self) -> None:
        """Switch it off (pulls the plug) and free its console."""
        self.kill()
        self.console.close()

    def wait_off(self, timeout_s: float) -> str:
        """Wait until it is off by itself and return how its last boot ended. Raises `TwinError` after `timeout_s`."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TwinError(f"the device in {self.folder} is still on after {timeout_s:g} s{self.console.tail()}")
        return self.boots[-1].ended if self.boots else ""

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():
                raise TwinError(f"the device in {self.folder} cannot be switched off")

    def __enter__(self) -> EmulatedDevice:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _why(selected: Selected) -> str:
    if selected.attempt:
        return f" (try {selected.attempt})"
    return " (fell back)" if selected.fell_back else ""
