"""A hub and one real board on this machine: updates of the BSP posted by `pvr`, and what the board makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.errors import BricklessError
from brickless.image import boards, factory, runtime
from brickless.image.boards import Board, Options
from brickless.image.bootscript import grub_memory, uboot_memory
from brickless.image.bsp import Bsp
from brickless.image.fat import Extent, Fat
from brickless.image.initramfs import Addition
from brickless.main.artefacts import BUILD_ID, GROUP_TIMEOUT_S, RUNTIME_CONFIG, STABLE_S, write_site
from brickless.main.badbsps import Fault, hanging_kernel, init_of
from brickless.main.developer import Developer
from brickless.main.hubapi import Device, Step
from brickless.main.lab import HUB_CONFIG, HUB_PORT, Lab
from brickless.testkit.hub import Certificate
from brickless.twin import board as twin
from brickless.twin.board import Start
from brickless.twin.qemu import Hardware, Service

# Bounds for a busy machine: an emulated board's boots take seconds or minutes, depending on who else works there.
START_TIMEOUT_S = 600.0
UPDATE_TIMEOUT_S = 1500.0
# 250 million instructions a second, which an emulator reaches on an idle machine.
INSTRUCTION_SHIFT = 2
# What the device tree of QEMU's arm64 board calls it.
MODEL = b"linux,dummy-virt"
# A container that starts and never says that it is ready.
STUCK = "stuck"


class Outcome(NamedTuple):
    """What came of an update: the hub's step, and what the board booted from the post on."""

    rev: int
    step: Step
    starts: tuple[Start, ...]


class BoardLab:
    """A board in a lab whose hub it knows. `name` is the board's; as a context manager it is switched off at the
    end."""

    def __init__(
        self, lab: Lab, name: str, folder: Path, options: Options | None = None, *, steady: bool = True
    ) -> None:
        """`options` of the disk image; what the hub needs is added to its configuration.

        `steady`: the guest's clocks follow its instructions, so that its watchdogs do not bite on a busy host.
        """
        self.lab = lab
        self.board: Board = boards.board(name)
        self.folder = folder
        self.cache = lab.artefacts.folder
        self.options = options or Options()
        self.steady = steady
        self.twin: twin.Board | None = None
        self._known: Device | None = None
        self._repository: Path | None = None
        self.developer = Developer(folder / "developer", lab.api, lab.talk)

    @property
    def running(self) -> twin.Board:
        """The board that is switched on."""
        if self.twin is None:
            raise BricklessError(f"the board {self.board.name} was not switched on yet")
        return self.twin

    @property
    def known(self) -> Device:
        """Its record at the hub."""
        if self._known is None:
            raise BricklessError(f"the board {self.board.name} did not register yet")
        return self._known

    @cached_property
    def hardware(self) -> Hardware:
        """The machine."""
        firmware = boards.firmware(self.board, self.cache)
        hardware = twin.pc() if firmware is None else twin.virt_arm64(firmware)
        return hardware._replace(instruction_shift=INSTRUCTION_SHIFT if self.steady else None)

    def bsp(
        self,
        *,
        kernel: str = "",
        fault: Fault | None = None,
        site: Path | None = None,
        build: str = "",
        model: bytes = MODEL,
    ) -> Bsp:
        """A BSP with the kernel of that package (the board's own when empty) that works, or fails in a known way.

        `model` is what its device tree calls the board, where it has one.
        """
        files = {BUILD_ID: Addition(f"{build or 'factory'}\n".encode()), **(init_of(fault) if fault else {})}
        initrd = runtime.archive(self.cache, arch=self.board.arch, config=RUNTIME_CONFIG, files=files)
        addons = (("site.cpio", site or self.lab.state / "site.cpio"),)
        made = boards.pack(self.board, self.cache, initrd, kernel=kernel, addons=addons)
        if fault is Fault.HANG_EARLY:
            made = made._replace(kernel=hanging_kernel(self.board, made.kernel, self.cache))
        return made if made.fdt is None or model == MODEL else made._replace(fdt=self._renamed(made.fdt, model))

    def _renamed(self, tree: Path, model: bytes) -> Path:
        """A device tree that calls the board otherwise, in as many letters: nothing else in it moves."""
        content = tree.read_bytes()
        if len(model) != len(MODEL) or MODEL not in content:
            raise BricklessError(f"{tree} does not say {MODEL!r}, or {model!r} is not as long")
        out = self.folder / f"{model.decode()}.dtb"
        out.write_bytes(content.replace(MODEL, model))
        return out

    def build(self, out: Path, config: Mapping[str, str]) -> None:
        """Its disk image with the factory revision."""
        made = self.bsp()
        groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=STABLE_S)
        boards.build(
            out,
            self.board,
            folder=self.cache,
            bsp=made,
            fill=lambda objects: factory.revision(objects, made, self.cache, groups=groups, arch=self.board.arch),
            options=self.options._replace(config={**HUB_CONFIG, **config, **self.options.config}),
        )

    def start(self) -> BoardLab:
        """Make the disk, switch the board on, wait for it at the hub, clone what it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self.folder.name
        disk = self.folder / "disk.img"
        self.build(disk, {"PH_FACTORY_AUTOTOK": self.lab.api.join_token(name)})
        self.twin = twin.Board(
            self.folder,
            disk,
            self.hardware,
            services=[Service(HUB_PORT, self.lab.hub.tls_port)],
            on_line=lambda line: self.lab.talk.console(name, line),
        ).start()
        found = self.lab.api.wait_for_device(name, START_TIMEOUT_S)
        self._known = self.lab.api.rename(found, name)
        self.lab.api.wait_for_step(self.known, 0, START_TIMEOUT_S)
        self._repository = self.developer.clone(name, self.lab.api.nick)
        return self

    @property
    def repository(self) -> Path:
        """The working copy of what it runs."""
        if self._repository is None:
            raise BricklessError(f"the board {self.board.name} was not cloned yet")
        return self._repository

    def update(self, new: Bsp, message: str, *, stuck: bool = False, timeout_s: float = UPDATE_TIMEOUT_S) -> Outcome:
        """Post a BSP and wait until the hub knows how it ended; with `stuck`, a container that never becomes ready."""
        mark = self.running.mark()
        rev = self.post(new, message, stuck=stuck)
        step = self.lab.api.wait_for_step(self.known, rev, timeout_s)
        self.lab.talk.say(f"the hub: revision {rev} is {step.status}: {step.message}")
        return Outcome(rev, step, tuple(self.running.starts(mark)))

    def post(self, new: Bsp, message: str, *, stuck: bool = False) -> int:
        """Post a BSP, see `update`; returns the number of the revision."""
        new.write(self.repository)
        self._stuck(wanted=stuck)
        self.developer.commit(self.repository, message)
        return self.developer.post(self.repository, message)

    @property
    def memory_file(self) -> str:
        """Where on the boot partition the bootloader remembers."""
        return "grub/grubenv" if self.board.bootloader == "grub" else "pv.env"

    def place_of(self, name: str) -> Extent:
        """Where a file of the boot partition lies on the disk."""
        with (self.folder / "disk.img").open("rb") as disk:
            found = Fat(disk, boards.layout(self.options.size_mb)[0].offset_bytes).find(name)
        if found is None:
            raise BricklessError(f"the boot partition has no {name}")
        return found

    def forget_attempts(self) -> None:
        """While it is off: the bootloader's memory as that of a board that never booted."""
        fresh = grub_memory() if self.board.bootloader == "grub" else uboot_memory()
        place = self.place_of(self.memory_file)
        with (self.folder / "disk.img").open("r+b") as disk:
            disk.seek(place.clusters[0])
            disk.write(fresh)

    def _stuck(self, *, wanted: bool) -> None:
        """A copy of the network container's image under a manifest whose goal it does not reach."""
        folder, source = self.repository / STUCK, self.repository / factory.NETWORK
        for name in ("run.json", "root.squashfs", "lxc.container.conf"):
            (folder / name).unlink(missing_ok=True)
        if not wanted:
            return
        folder.mkdir(exist_ok=True)
        for name in ("root.squashfs", "lxc.container.conf"):
            content = (source / name).read_bytes()
            (folder / name).write_bytes(content.replace(b"/volumes/network/", f"/volumes/{STUCK}/".encode()))
        manifest = canonical.loads((source / "run.json").read_bytes())
        if not isinstance(manifest, dict):
            raise BricklessError(f"{source}/run.json is no manifest")
        manifest |= {"name": STUCK, "group": "platform", "status_goal": "READY"}
        (folder / "run.json").write_bytes(canonical.dumps(manifest))

    def wrong_site(self) -> Path:
        """What belongs to an installation with another hub: devices that get it do not trust ours any more."""
        path = self.folder / "wrong-site.cpio"
        write_site(path, Path(Certificate(str(self.folder / "wrong-tls")).ca_file).read_bytes())
        return path

    def stop(self) -> None:
        """Switch it off."""
        if self.twin is not None:
            self.twin.stop()

    def __enter__(self) -> BoardLab:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
