"""Kernel modules: what they say they need, the order of loading, and the modules.dep that the device reads."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from brickless.core.errors import BricklessError
from brickless.image import modules
from brickless.image.compress import Compression
from brickless.linux.modules import load_order, parse_dep


def module(depends: str) -> bytes:
    """An ELF file with a `.modinfo` section, as the kernel's build makes it."""
    names = b"\0.shstrtab\0.modinfo\0"
    info = f"license=GPL\0depends={depends}\0vermagic=6.1.0\0".encode()
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 3, 1)
    start = 64 + 3 * 64
    section = struct.Struct("<IIQQQQIIQQ")
    table = section.pack(*([0] * 10))
    table += section.pack(1, 3, 0, 0, start, len(names), 0, 0, 1, 0)
    table += section.pack(11, 1, 0, 0, start + len(names), len(info), 0, 0, 1, 0)
    return header + table + names + info


def kernel(tmp_path: Path, **needs: str) -> modules.Tree:
    root = tmp_path / "lib/modules/6.1.0-test"
    (root / "kernel/drivers").mkdir(parents=True)
    for name, depends in needs.items():
        (root / f"kernel/drivers/{name.replace('_', '-')}.ko").write_bytes(module(depends))
    (root / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return modules.Tree(root)


def test_needs_come_first_and_built_in_ones_do_not_come_at_all(tmp_path: Path) -> None:
    tree = kernel(tmp_path, virtio="", virtio_ring="virtio", virtio_blk="virtio-ring,virtio,ext4")
    closure = tree.closure(["virtio_blk", "ext4"])
    assert closure["virtio_blk"] == ["virtio", "virtio_ring"]
    assert "ext4" not in closure


def test_an_unknown_module_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BricklessError, match="has no module i6300esb"):
        kernel(tmp_path, virtio="").closure(["i6300esb"])


def test_a_circle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BricklessError, match="in a circle"):
        kernel(tmp_path, a="b", b="a").closure(["a"])


def test_an_empty_tree_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "6.1").mkdir()
    with pytest.raises(BricklessError, match="no kernel module"):
        modules.Tree(tmp_path / "6.1")


def test_the_device_reads_what_we_wrote(tmp_path: Path) -> None:
    tree = kernel(tmp_path, virtio="", virtio_ring="virtio", virtio_blk="virtio-ring,virtio")
    out = tmp_path / "out.cpio"
    modules.build(out, tree=tree, names=["virtio_blk", "ext4"], compression=Compression.NONE)
    data = out.read_bytes()
    start = data.index(b"kernel/drivers/virtio-blk.ko:")
    known = parse_dep(data[start : data.index(b"\0", start)].decode())
    assert [Path(path).stem for path in load_order(known, "virtio_blk")] == ["virtio", "virtio-ring", "virtio-blk"]
    assert b"virtio_blk\n" in data
    assert b"ext4\n" not in data.replace(b"ext4.ko\n", b"")


def test_compressed_modules_are_packed_as_the_kernel_loads_them(tmp_path: Path) -> None:
    tree = kernel(tmp_path, virtio="")
    packed = tmp_path / "lib/modules/6.1.0-test/kernel/drivers/i6300esb.ko.xz"
    packed.write_bytes(lzma.compress(module("virtio")))
    tree = modules.Tree(tree.root)
    assert tree.content("i6300esb") == module("virtio")
    assert tree.place("i6300esb") == "kernel/drivers/i6300esb.ko"
    assert tree.closure(["i6300esb"])["i6300esb"] == ["virtio"]


def test_a_module_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = kernel(tmp_path, virtio="")
    (tree.root / "kernel/drivers/bomb.ko.xz").write_bytes(lzma.compress(bytes(1 << 20)))
    monkeypatch.setattr(modules, "MAX_MODULE_BYTES", 1 << 16)
    with pytest.raises(BricklessError, match="larger than any kernel module"):
        modules.Tree(tree.root).content("bomb")
