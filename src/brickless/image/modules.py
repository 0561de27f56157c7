"""The kernel modules of a device as an archive of their own, with the list that PID 1 loads and its `modules.dep`.

`modules.dep` is made here, from what each module says of itself (`.modinfo`), because Debian's packages come without
it and `depmod` would be one more tool. Format: modules.dep(5).
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Sequence
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import elf
from brickless.image.compress import Compression, write
from brickless.image.cpio import Archive

# What an emulated device loads at boot, in this order: its disk first. Nothing is loaded on demand: there is no kmod.
EMULATED = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "loop",
    "squashfs",
    "overlay",
    "veth",
    "bridge",
    "softdog",
)
# What only some revisions use, loaded when one does: pools with NAT, macvlan, encrypted and verified disks, swap.
ON_DEMAND = (
    *("macvlan", "nf_tables", "nf_nat", "nft_chain_nat", "nft_masq"),
    *("dm_mod", "dm_crypt", "dm_verity", "ecb", "xts", "aes_generic", "sha256_generic"),
    *("zsmalloc", "lzo", "lzo_rle", "zram"),
)
# Merged /usr: a folder `lib` in this archive would replace the link of that name in the initramfs.
ROOT = "usr/lib/modules"
LIST = "etc/brickless/modules"
MAX_MODULE_BYTES = 32 << 20
XZ_MEMORY_BYTES = 128 << 20


class Tree:
    """The modules of one kernel below `root` (`lib/modules/RELEASE` of an unpacked package)."""

    def __init__(self, root: Path) -> None:
        """Find them. Raises `BricklessError` when there is none."""
        self.root = root
        self.release = root.name
        paths = sorted((*(root / "kernel").rglob("*.ko"), *(root / "kernel").rglob("*.ko.xz")))
        self._paths = {_name(path.name.partition(".")[0]): path for path in paths}
        if not self._paths:
            raise BricklessError(f"{root} holds no kernel module (*.ko, *.ko.xz)")
        self._builtin = {_name(Path(line).stem) for line in (root / "modules.builtin").read_text().splitlines() if line}

    def is_builtin(self, name: str) -> bool:
        """Whether the kernel has it inside."""
        return _name(name) in self._builtin

    def needs(self, name: str) -> list[str]:
        """The modules that `name` needs directly. Raises `BricklessError` when it is unknown."""
        for field in elf.section(self.content(name), ".modinfo", str(self.path(name))).split(b"\0"):
            key, _, value = field.partition(b"=")
            if key == b"depends":
                return [_name(one) for one in value.decode().split(",") if one]
        return []

    def path(self, name: str) -> Path:
        """Its file. Raises `BricklessError` when this kernel has no such module."""
        try:
            return self._paths[_name(name)]
        except KeyError:
            raise BricklessError(f"the kernel {self.release} has no module {name}") from None

    def content(self, name: str) -> bytes:
        """The module as the kernel loads it; Debian compresses those of newer kernels."""
        path = self.path(name)
        with path.open("rb") as stream:
            data = stream.read(MAX_MODULE_BYTES + 1)
        if path.suffix == ".xz":
            data = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES).decompress(data, MAX_MODULE_BYTES + 1)
        if len(data) > MAX_MODULE_BYTES:
            raise BricklessError(f"{path} is larger than any kernel module ({MAX_MODULE_BYTES} bytes)")
        return data

    def place(self, name: str) -> str:
        """Where it lies on a device, below `lib/modules/RELEASE`."""
        return self.path(name).relative_to(self.root).as_posix().removesuffix(".xz")

    def closure(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Name -> all it needs, in the order of loading (a module's own needs first), for `names` and their needs."""
        found: dict[str, list[str]] = {}
        for name in names:
            if not self.is_builtin(name):
                self._visit(_name(name), found, ())
        return found

    def _visit(self, name: str, found: dict[str, list[str]], above: tuple[str, ...]) -> list[str]:
        if name in above:
            raise BricklessError(f"the kernel modules {' -> '.join([*above, name])} need each other in a circle")
        if name not in found:
            order: list[str] = []
            for need in self.needs(name):
                if not self.is_builtin(need):
                    order += [one for one in [*self._visit(need, found, (*above, name)), need] if one not in order]
            found[name] = order
        return found[name]


def build(
    out: Path,
    *,
    tree: Tree,
    names: Sequence[str] = EMULATED,
    present: Sequence[str] = (),
    compression: Compression = Compression.ZSTD,
) -> None:
    """Write the archive of `names` and what they need to `out`; the list of PID 1 names only those not built in.

    `present` modules are there, too, for whoever needs them: they are not loaded at boot.
    """
    closure = tree.closure([*names, *present])
    archive = Archive()
    base = f"{ROOT}/{tree.release}"
    dep = []
    for name in sorted(closure):
        relative = tree.place(name)
        archive.file(f"{base}/{relative}", tree.content(name))
        # Farthest last in modules.dep(5): the reverse of the order of loading.
        needs = [tree.place(one) for one in reversed(closure[name])]
        dep.append(" ".join([f"{relative}:", *needs]))
    archive.file(f"{base}/modules.dep", "".join(f"{line}\n" for line in sorted(dep)).encode())
    archive.file(f"{base}/modules.builtin", tree.root / "modules.builtin")
    wanted = [name for name in names if not tree.is_builtin(name)]
    archive.file(LIST, "".join(f"{name}\n" for name in wanted).encode())
    out.parent.mkdir(parents=True, exist_ok=True)
    write(archive.chunks(), out, compression)


def _name(name: str) -> str:
    return name.replace("-", "_")
