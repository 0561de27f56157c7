"""The `bsp/` part of a state: kernel, initramfs and its additional archives, and the `run.json` that names them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.errors import BricklessError
from brickless.image import cache, debian, modules
from brickless.image.arch import AMD64, Arch
from brickless.image.compress import Compression
from brickless.image.initramfs import unpacked
from brickless.linux import process

KERNEL = "linux-image-cloud-amd64"
FDT = "board.dtb"
KERNEL_IMAGE = re.compile(r"linux-image-[0-9][a-z0-9.+-]*")


class Kernel(NamedTuple):
    """An unpacked kernel package: the image that boots, and its modules."""

    image: Path
    modules: modules.Tree


class Bsp(NamedTuple):
    """The files of a board support package, by what they are; `addons` come after the initrd, in order."""

    kernel: Path
    initrd: Path
    addons: tuple[tuple[str, Path], ...] = ()
    fdt: Path | None = None

    def files(self) -> dict[str, Path]:
        """Path in the state -> file."""
        tree = {} if self.fdt is None else {f"bsp/{FDT}": self.fdt}
        return {
            "bsp/kernel.img": self.kernel,
            "bsp/pantavisor": self.initrd,
            **{f"bsp/{name}": path for name, path in self.addons},
            **tree,
        }

    def run_json(self) -> canonical.JsonValue:
        """`bsp/run.json` (device.md 1.10)."""
        names: list[canonical.JsonValue] = [name for name, _ in self.addons]
        tree: dict[str, canonical.JsonValue] = {} if self.fdt is None else {"fdt": FDT}
        return {"addons": names, "initrd": "pantavisor", "linux": "kernel.img", **tree}

    def jsons(self) -> Mapping[str, canonical.JsonValue]:
        """Path in the state -> inline JSON."""
        return {"bsp/run.json": self.run_json(), "bsp/src.json": {}}

    def write(self, repository: Path) -> None:
        """Put it into the working tree of a repository (files are copied, the old `bsp/` addons stay)."""
        for name, path in self.files().items():
            target = repository / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # A checkout may be hard links to objects: never write through one.
            target.unlink(missing_ok=True)
            target.write_bytes(path.read_bytes())
        for name, value in self.jsons().items():
            target = repository / name
            target.unlink(missing_ok=True)
            target.write_bytes(canonical.dumps(value))


def kernel(folder: Path, package: str = KERNEL, arch: Arch = AMD64) -> Kernel:
    """Debian's kernel, fetched and unpacked below the cache `folder`; `package` may be the one without a version."""
    (named,) = debian.fetch([package], folder / "debian", arch=arch.debian, closure=False)
    dependency = KERNEL_IMAGE.search(_depends(named))
    if dependency is not None:
        (named,) = debian.fetch([dependency.group()], folder / "debian", arch=arch.debian, closure=False)
    tree = unpacked([named], folder / "trees")
    images = sorted((tree / "boot").glob("vmlinuz-*"))
    releases = sorted((tree / "lib/modules").iterdir())
    if len(images) != 1 or len(releases) != 1:
        raise BricklessError(f"{named.name} holds {len(images)} kernels and {len(releases)} sets of modules, not one")
    return Kernel(images[0], modules.Tree(releases[0]))


def _depends(deb: Path) -> str:
    argv = ["dpkg-deb", "--field", str(deb), "Depends"]
    return process.run(argv, purpose=f"reading {deb.name}", timeout_s=60).stdout.decode()


def modules_archive(
    folder: Path, of: Kernel, names: Sequence[str] = modules.EMULATED, present: Sequence[str] = ()
) -> Path:
    """The archive of kernel modules, made once for each kernel and list; `present` are not loaded at boot."""
    name = f"modules-{cache.key(of.modules.release, str(of.modules.root), list(names), list(present), 3)}.cpio.zst"
    return cache.artefact(
        folder / "artefacts",
        name,
        lambda out: modules.build(out, tree=of.modules, names=names, present=present, compression=Compression.ZSTD),
    )
