"""The order in which kernel modules load, from modules.dep."""

from __future__ import annotations

import errno

import pytest

from brickless.linux import modules

DEP = """kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/drivers/block/virtio-blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
"""


def test_what_a_module_needs_comes_first() -> None:
    order = modules.load_order(modules.parse_dep(DEP), "virtio_blk")
    assert order == [
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_ring.ko",
        "kernel/drivers/block/virtio-blk.ko.xz",
    ]


@pytest.mark.parametrize("name", ["virtio-blk", "virtio_blk", "kernel/drivers/block/virtio-blk.ko.xz"])
def test_one_module_has_three_spellings(name: str) -> None:
    assert modules.canonical(name) == "virtio_blk"


def test_a_circle_in_the_file_ends() -> None:
    known = modules.parse_dep("a.ko: b.ko\nb.ko: a.ko\n")
    assert modules.load_order(known, "a") == ["b.ko", "a.ko"]


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(OSError, match="does not name the kernel module nosuch") as caught:
        modules.load_order(modules.parse_dep(DEP), "nosuch")
    assert caught.value.errno == errno.ENOENT


def test_a_line_without_a_colon_is_named() -> None:
    with pytest.raises(ValueError, match="line 2 has no colon"):
        modules.parse_dep("a.ko:\nnonsense\n")


def test_a_list_has_comments_and_parameters() -> None:
    assert modules.parse_list("# boot\nloop max_loop=8 # few\n\next4\n") == [("loop", "max_loop=8"), ("ext4", "")]


def test_what_is_built_in_is_not_loaded(tmp_path) -> None:
    (tmp_path / "modules.dep").write_text("")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    assert modules.Modules(str(tmp_path)).load("ext4") is False
