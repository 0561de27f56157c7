"""The machines that are recorded: the emulated device, and a real board with its own bootloader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from brickless.image import boards, partitions, runtime
from brickless.image.bsp import Bsp
from brickless.image.initramfs import Addition
from brickless.main.artefacts import BUILD_ID, PANIC, Variant
from brickless.main.chaos.scene import Scene, factory_state
from brickless.main.lab import HUB_CONFIG, HUB_PORT, WEB_PORT, Lab, LabDevice, Served, free_port
from brickless.testkit.crashlab import writelog
from brickless.twin import board as twin
from brickless.twin.qemu import Forward, Service

NAME = "crash"
DISK_MB = 128
BOARD_DISK_MB = 192
# What a disk is larger than the image that was written to it: another block group for the file system to take.
ROOM_BYTES = 48 << 20
# Without a join token: whoever wants the device claims it.
DEVICE_CONFIG = {
    "PH_FACTORY_AUTOTOK": "",
    "PH_UPDATER_INTERVAL": "1",
    "PH_METADATA_DEVMETA_INTERVAL": "5",
    "PH_METADATA_USRMETA_INTERVAL": "2",
}
# A board that is booted again later meets no hub: it comes back from a trial sooner than a product would.
BOARD_CONFIG = {**DEVICE_CONFIG, "PH_UPDATER_NETWORK_TIMEOUT": "20"}


class Kind(NamedTuple):
    """A board (`image.boards`), and whether its bootloader's environment lies on the FAT boot partition."""

    board: str
    environment_on_boot: bool = False


# The boards that are recorded, by the name of their view (`crashlab.views`).
KINDS = {"pc": Kind("pc"), "virt-arm64": Kind("virt-arm64"), "virt-arm64-fat": Kind("virt-arm64", True)}


class Rig(Protocol):
    """One machine whose disk is recorded. `view` names how its bootloader sees the disk (`crashlab.views`)."""

    view: str

    @property
    def disk(self) -> Path:
        """Its disk."""
        ...

    def start(self, before: Callable[[Path], None]) -> Served:
        """Make its disk, with room for its storage to grow into, give it to `before`, switch the machine on."""
        ...

    def bsp(self, variant: Variant) -> Bsp:
        """A board support package for it."""
        ...

    def logs(self) -> list[Path]:
        """What was written so far, in order."""
        ...

    def set_link(self, *, up: bool) -> None:
        """Plug or pull its network cable."""
        ...

    def wait_for(self, pattern: str, timeout_s: float, since: int) -> None:
        """Wait for a line of its console behind the mark `since`."""
        ...

    def mark(self) -> int:
        """The place behind the last line of its console."""
        ...

    def kill(self) -> None:
        """Cut its power."""
        ...


def recorded(rig: Rig) -> int:
    """How many writes and flushes it made so far."""
    return sum(writelog.count(path) for path in rig.logs())


class EmulatorRig:
    """The emulated device: its firmware is our own and not on the disk."""

    view = "emulator"

    def __init__(self, lab: Lab) -> None:
        """In this lab."""
        self._lab = lab
        self._device: LabDevice | None = None

    @property
    def device(self) -> LabDevice:
        """The device that was started."""
        if self._device is None:
            raise RuntimeError("the device was not started")
        return self._device

    @property
    def disk(self) -> Path:
        """See `Rig.disk`."""
        return self.device.twin.disk

    def start(self, before: Callable[[Path], None]) -> Served:
        """See `Rig.start`."""

        def made(disk: Path) -> None:
            os.truncate(disk, disk.stat().st_size + ROOM_BYTES)
            before(disk)

        self._device = self._lab.add(NAME, config=DEVICE_CONFIG, size_mb=DISK_MB, log_writes=True, before=made)
        return self._device

    def bsp(self, variant: Variant) -> Bsp:
        """See `Rig.bsp`."""
        return self._lab.bsp(variant)

    def logs(self) -> list[Path]:
        """See `Rig.logs`."""
        return self.device.twin.write_logs()

    def set_link(self, *, up: bool) -> None:
        """See `Rig.set_link`."""
        self.device.twin.machine.set_link(up=up)

    def wait_for(self, pattern: str, timeout_s: float, since: int) -> None:
        """See `Rig.wait_for`."""
        self.device.twin.wait_for(pattern, timeout_s=timeout_s, since=since)

    def mark(self) -> int:
        """See `Rig.mark`."""
        return self.device.twin.mark()

    def kill(self) -> None:
        """See `Rig.kill`."""
        self.device.twin.kill()


class BoardRig:
    """A board that boots from its disk alone: what its bootloader writes is recorded, too."""

    def __init__(self, lab: Lab, scene: Scene, name: str) -> None:
        """`name` is one of `KINDS`."""
        self.view = name
        self._lab = lab
        self._scene = scene
        self._board = boards.board(KINDS[name].board)
        self._folder = lab.state / NAME
        self.disk = self._folder / "disk.img"
        self._log = self._folder / "writes.0"
        self._twin: twin.Board | None = None

    @property
    def twin(self) -> twin.Board:
        """The board that was started."""
        if self._twin is None:
            raise RuntimeError("the board was not started")
        return self._twin

    def start(self, before: Callable[[Path], None]) -> Served:
        """See `Rig.start`."""
        self._folder.mkdir(parents=True)
        self._build(self.disk)
        enlarge(self.disk, ROOM_BYTES)
        before(self.disk)
        port = free_port()
        self._twin = board_twin(
            self._folder,
            self.disk,
            self.view,
            self._scene.folder,
            forwards=[Forward(port, WEB_PORT)],
            services=[Service(HUB_PORT, self._lab.hub.tls_port)],
            write_log=self._log,
            on_line=lambda line: self._lab.talk.console(NAME, line),
        ).start()
        return Served(NAME, port)

    def _build(self, disk: Path) -> None:
        made = self.bsp(Variant.FACTORY)
        cache, scratch = self._scene.folder, self._folder / "web.squashfs"
        boards.build(
            disk,
            self._board,
            folder=cache,
            bsp=made,
            fill=lambda objects: factory_state(objects, made, cache, scratch, self._board.arch),
            options=boards.Options(
                config={**HUB_CONFIG, **BOARD_CONFIG},
                size_mb=BOARD_DISK_MB,
                environment_on_boot=KINDS[self.view].environment_on_boot,
            ),
        )

    def bsp(self, variant: Variant) -> Bsp:
        """See `Rig.bsp`: the updated one has another real kernel."""
        files = {BUILD_ID: Addition(f"{variant}\n".encode())}
        if variant is Variant.PANICS:
            files["usr/bin/pantavisor"] = Addition(PANIC, 0o755)
        cache = self._scene.folder
        initrd = runtime.archive(cache, arch=self._board.arch, config=self._scene.config, files=files)
        kernel = self._board.update if variant is Variant.UPDATED else ""
        site = self._lab.state / "site.cpio"
        return boards.pack(self._board, cache, initrd, kernel=kernel, addons=(("site.cpio", site),))

    def logs(self) -> list[Path]:
        """See `Rig.logs`."""
        return [self._log]

    def set_link(self, *, up: bool) -> None:
        """See `Rig.set_link`."""
        self.twin.machine.set_link(up=up)

    def wait_for(self, pattern: str, timeout_s: float, since: int) -> None:
        """See `Rig.wait_for`."""
        self.twin.wait_for(pattern, timeout_s=timeout_s, since=since)

    def mark(self) -> int:
        """See `Rig.mark`."""
        return self.twin.mark()

    def kill(self) -> None:
        """See `Rig.kill`."""
        self.twin.kill()

    def stop(self) -> None:
        """Switch it off for good."""
        if self._twin is not None:
            self._twin.stop()


def board_twin(
    folder: Path,
    disk: Path,
    name: str,
    cache: Path,
    *,
    forwards: list[Forward],
    services: list[Service],
    write_log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> twin.Board:
    """The board of that view in QEMU."""
    firmware = boards.firmware(boards.board(KINDS[name].board), cache)
    hardware = twin.pc() if firmware is None else twin.virt_arm64(firmware)
    return twin.Board(
        folder, disk, hardware, services=services, forwards=forwards, write_log=write_log, on_line=on_line
    )


def enlarge(disk: Path, room_bytes: int) -> None:
    """Make a disk and its last partition larger, as an image on a larger card is after its table was adapted."""
    with disk.open("r+b") as stream:
        first = stream.read(partitions.SECTOR)
        *others, last = partitions.parse(first)
        larger = last._replace(size_bytes=last.size_bytes + room_bytes)
        stream.truncate(larger.offset_bytes + larger.size_bytes)
        stream.seek(0)
        stream.write(partitions.render([*others, larger], first[: partitions.CODE_BYTES]))


def copy_logs(rig: Rig, folder: Path) -> None:
    """Keep what was recorded."""
    for path in rig.logs():
        shutil.copyfile(path, folder / path.name)
