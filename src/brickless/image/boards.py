"""Boards, and their disk images: a partition table, a boot partition, a storage partition with the factory revision.

An image is whole: written to a disk (or given to an emulator) it boots with nothing but the board's firmware. No root,
no mount; the same inputs give the same bytes. What lies where, and who writes it, is in docs/reference/bootloaders.md.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from brickless.core import bootenv
from brickless.core.errors import UserError
from brickless.image import bootscript, cache, debian, devicetree, fat, grub, modules, partitions, storage
from brickless.image import bsp as packs
from brickless.image.arch import AMD64, ARM64, Arch
from brickless.image.initramfs import unpacked
from brickless.image.partitions import FAT16_LBA, LINUX, Partition
from brickless.store.objects import ObjectStore

GAP_BYTES = 1 << 20
BOOT_MB = 64
MIB = 1 << 20
MAX_ATTEMPTS = 3
COMMON = "panic=2 rdinit=/usr/bin/pantavisor root=/dev/ram PV_STORAGE_DEVICE=LABEL=root"
# The boot partition as the kernel names it on QEMU's boards, and the file with U-Boot's variables on it.
BOOT_DEVICE, ENVIRONMENT_FILE = "/dev/vda1", "uboot.txt"
ENVIRONMENT = {"pv_rev": "0", "pv_try": ""}
# A boot partition is read by the runtime only on boards that keep the environment there.
MODULES = ("crc32c_generic", "ext4", *modules.EMULATED, "af_packet", "vfat", "nls_cp437", "nls_ascii")
UBOOT_PACKAGE = "u-boot-qemu"


class Board(NamedTuple):
    """A board: `kernel` and `update` are two real kernels of Debian's, `watchdog` is the driver of its watchdog."""

    name: str
    title: str
    arch: Arch
    bootloader: str
    console: str
    kernel: str
    update: str
    watchdog: str

    @property
    def modules(self) -> tuple[str, ...]:
        """What its kernels load at boot; the hardware's watchdog comes before the software's."""
        return MODULES if self.watchdog in MODULES else (self.watchdog, *MODULES)


BOARDS = {
    one.name: one
    for one in (
        Board(
            "pc",
            "x86_64 PC with a BIOS, GRUB (QEMU q35)",
            AMD64,
            "grub",
            "ttyS0",
            "linux-image-6.12-cloud-amd64",
            "linux-image-amd64",
            "i6300esb",
        ),
        Board(
            "virt-arm64",
            "arm64 with U-Boot (QEMU virt)",
            ARM64,
            "uboot",
            "ttyAMA0",
            "linux-image-cloud-arm64",
            "linux-image-6.12-cloud-arm64",
            "softdog",
        ),
    )
}


class Options(NamedTuple):
    """What an image is made with beside the factory revision.

    `config` becomes the storage's configuration, `command_line` is added to the kernel's; `watchdog_s` arms the
    hardware watchdog before the kernel (0: not), where the board's bootloader can. With `environment_on_boot` U-Boot's
    variables lie on the boot partition.
    """

    config: Mapping[str, str] = {}
    command_line: str = ""
    size_mb: int = 512
    max_attempts: int = MAX_ATTEMPTS
    watchdog_s: int = 0
    environment_on_boot: bool = False


def board(name: str) -> Board:
    """The board of that name. Raises `UserError` that lists the known ones."""
    if name not in BOARDS:
        raise UserError("board-unknown", f"there is no board {name!r}", hint=f"Known are {', '.join(BOARDS)}.")
    return BOARDS[name]


def pack(
    of: Board, folder: Path, initrd: Path, *, kernel: str = "", addons: tuple[tuple[str, Path], ...] = ()
) -> packs.Bsp:
    """The board support package: kernel (the board's first when not named), its modules, `initrd`, more `addons`, and
    the device tree where the board has one."""
    unpacked_kernel = packs.kernel(folder, kernel or of.kernel, of.arch)
    archive = packs.modules_archive(folder, unpacked_kernel, of.modules)
    image = unpacked_kernel.image if of.arch == AMD64 else compressed(folder, unpacked_kernel.image)
    flash = firmware(of, folder)
    tree = None if flash is None else devicetree.virt_arm64(folder, flash)
    return packs.Bsp(image, initrd, (("modules.cpio.zst", archive), *addons), tree)


def compressed(folder: Path, kernel: Path) -> Path:
    """An arm64 kernel image as U-Boot unpacks it: a third of the bytes to store, to hash and to send."""

    def make(out: Path) -> None:
        with (
            kernel.open("rb") as source,
            out.open("wb") as stream,
            gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=9) as packed,
        ):
            shutil.copyfileobj(source, packed)

    return cache.artefact(folder / "artefacts", f"{kernel.name}-{cache.key(str(kernel), 1)}.gz", make)


def firmware(of: Board, folder: Path) -> Path | None:
    """What the board has in its flash: U-Boot from Debian's package; None where the emulator brings a BIOS."""
    if of.bootloader != "uboot":
        return None
    (deb,) = debian.fetch([UBOOT_PACKAGE], folder / "debian", closure=False)
    return unpacked([deb], folder / "trees") / "usr/lib/u-boot/qemu_arm64/u-boot.bin"


def build(
    out: Path,
    of: Board,
    *,
    folder: Path,
    bsp: packs.Bsp,
    fill: Callable[[ObjectStore], bytes],
    options: Options | None = None,
) -> None:
    """Write the disk image `out`; `fill` adds the factory revision's objects and returns its state.

    Raises `BricklessError` and its kin for what does not fit or is missing, `process.ProcessError` of a tool.
    """
    chosen = options or Options()
    bootscript.check_attempts(chosen.max_attempts)
    if chosen.environment_on_boot and of.bootloader != "uboot":
        raise UserError("board-environment", f"{of.name}: only U-Boot's environment may lie on the boot partition")
    with tempfile.TemporaryDirectory(prefix="brickless-image-", dir=out.parent) as scratch:
        data, boot = Path(scratch) / "storage", Path(scratch) / "boot"
        storage.build(
            data, fill=fill, size_mb=chosen.size_mb, config=chosen.config, files={"boot/grubenv": grub_environment()}
        )
        files = boot_files(of, bsp, chosen)
        fat.build(boot, size_bytes=BOOT_MB * MIB, files=files, label="BOOT", hidden_sectors=GAP_BYTES // 512)
        code, core = grub.build(folder, gap_bytes=GAP_BYTES) if of.bootloader == "grub" else (b"", b"")
        _assemble(out, code, core, boot, data)


def grub_environment(values: Mapping[str, str] = ENVIRONMENT) -> bytes:
    """`boot/grubenv` of a device that never booted."""
    lines = b"".join(f"{key}={values[key]}\n".encode() for key in sorted(values))
    return (bootscript.GRUBENV_HEADER + lines).ljust(bootscript.GRUBENV_BYTES, b"#")


def command_line(of: Board, options: Options) -> str:
    """The kernel's command line, without what the boot script adds."""
    words = [f"console={of.console}", COMMON, f"PV_BOOTLOADER_TYPE={of.bootloader}", "PV_WDT_MODE=always"]
    if options.environment_on_boot:
        words.append(f"PV_BOOTLOADER_ENV=fat:{BOOT_DEVICE}:{ENVIRONMENT_FILE}")
    return " ".join([*words, options.command_line] if options.command_line else words)


def boot_files(of: Board, bsp: packs.Bsp, options: Options) -> dict[str, bytes | Path]:
    """What lies on the boot partition: script, bootloader's memory, rescue copies of the factory's files."""
    line = command_line(of, options)
    files: dict[str, bytes | Path] = {
        f"{bootscript.RESCUE}/kernel.img": bsp.kernel,
        f"{bootscript.RESCUE}/initrd.img": _joined([bsp.initrd, *(path for _, path in bsp.addons)]),
    }
    if bsp.fdt is not None:
        files[f"{bootscript.RESCUE}/board.dtb"] = bsp.fdt
    if of.bootloader == "grub":
        script = bootscript.grub(line, max_attempts=options.max_attempts, watchdog_s=options.watchdog_s)
        return files | {"grub/grub.cfg": script.encode(), "grub/grubenv": bootscript.grub_memory()}
    if options.environment_on_boot:
        files[ENVIRONMENT_FILE] = bootenv.render(ENVIRONMENT).ljust(bootenv.SIZE_BYTES, b"\0")
    script = bootscript.uboot(line, max_attempts=options.max_attempts)
    return files | {"boot.scr": bootscript.uboot_image(script), "pv.env": bootscript.uboot_memory()}


def _joined(parts: list[Path]) -> bytes:
    """Archives of an initramfs one after the other, each at a multiple of four bytes."""
    joined = io.BytesIO()
    for part in parts:
        joined.write(bytes(-joined.tell() % 4))
        joined.write(part.read_bytes())
    return joined.getvalue()


def layout(size_mb: int) -> list[Partition]:
    """The partitions of an image whose storage has `size_mb`."""
    boot = Partition(FAT16_LBA, True, GAP_BYTES, BOOT_MB * MIB)
    return [boot, Partition(LINUX, False, GAP_BYTES + BOOT_MB * MIB, size_mb * MIB)]


def _assemble(out: Path, code: bytes, core: bytes, boot: Path, data: Path) -> None:
    places = layout(data.stat().st_size // MIB)
    out.unlink(missing_ok=True)
    with out.open("wb") as stream:
        stream.truncate(places[-1].offset_bytes + places[-1].size_bytes)
        stream.write(partitions.render(places, code))
        stream.write(core)
    for source, place in ((boot, places[0]), (data, places[1])):
        copy_sparse(source, out, place.offset_bytes)


def copy_sparse(source: Path, out: Path, offset: int) -> None:
    """Copy a file into another at `offset`, leaving out what is only zeros."""
    with source.open("rb") as read, out.open("r+b") as write:
        position = offset
        while chunk := read.read(1 << 16):
            if chunk.count(0) != len(chunk):
                write.seek(position)
                write.write(chunk)
            position += len(chunk)
