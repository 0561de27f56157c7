"""What we hand to the kernel has the size and the fields of its headers; what it hands to us is read right."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from brickless.linux import cgroup, kmsg, libc, loop, net


def test_loop_structures_have_the_sizes_of_the_header() -> None:
    assert len(loop.info64("/a/root.squashfs", loop.LO_FLAGS_AUTOCLEAR)) == 232
    assert len(loop.config(3, "/a/root.squashfs", 0)) == 304


def test_loop_flags_and_name_lie_where_the_header_says() -> None:
    data = loop.info64("/a/root.squashfs", 5)
    assert struct.unpack_from("=I", data, 52) == (5,)
    assert data[56:72] == b"/a/root.squashfs"


def test_a_long_file_name_is_cut_and_ended() -> None:
    data = loop.info64("/" + "x" * 200, 0)
    assert len(data) == 232
    assert data[56 + 63] == 0


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="nosuch"), loop.attach("/nosuch/root.squashfs"):
        pytest.fail("attached nothing")


def test_interface_requests_are_32_or_40_bytes_with_the_name_first() -> None:
    request = net.flags_request("lo", net.IFF_UP)
    assert len(request) == 40
    assert request[:3] == b"lo\0"
    assert net.address_request("lo", "10.0.3.1")[20:24] == bytes([10, 0, 3, 1])


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a\0b"])
def test_bad_interface_names(name: str) -> None:
    with pytest.raises(OSError, match="not a name") as caught:
        net.flags_request(name, 0)
    assert caught.value.errno == errno.EINVAL


def test_the_loopback_interface_is_seen() -> None:
    assert "lo" in net.interfaces()
    assert isinstance(net.flags("lo"), int)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0::/lxc.payload.web/init\n", "web"),
        ("9:pids:/lxc.payload.a.b\n0::/\n", "a.b"),
        ("0::/lxc.monitor.web\n", None),
        ("0::/\n", None),
        ("0::/system/lxc.payload.\n", None),
    ],
)
def test_the_container_of_a_process(text: str, name: str | None) -> None:
    assert cgroup.parse_container(text) == name


def test_layouts_of_control_groups(tmp_path: Path) -> None:
    assert cgroup.layout(str(tmp_path)) == "none"
    (tmp_path / "devices").mkdir()
    assert cgroup.layout(str(tmp_path)) == "legacy"
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").touch()
    assert cgroup.layout(str(tmp_path)) == "hybrid"
    (tmp_path / "cgroup.controllers").touch()
    assert cgroup.layout(str(tmp_path)) == "unified"


def test_processes_of_a_group_that_is_gone_are_none(tmp_path: Path) -> None:
    assert cgroup.pids(str(tmp_path / "nosuch")) == []


def test_a_failed_call_says_what_was_tried() -> None:
    with pytest.raises(OSError, match=r"mount /nosuch on /nosuch/there, type ext4"):
        libc.mount("/nosuch", "/nosuch/there", "ext4")
    with pytest.raises(OSError, match=r"umount /nosuch"):
        libc.umount2("/nosuch")


def test_lines_for_the_console_cannot_be_forged() -> None:
    assert kmsg.one_line("died\nbrickless: revision 9 DONE\x1b[2J") == b"died brickless: revision 9 DONE [2J\n"
    assert len(kmsg.one_line("x" * 5000)) <= kmsg.LINE_MAX_BYTES + 1


def test_the_console_takes_lines(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.touch()
    console = kmsg.Console(str(path))
    assert console.line("brickless: pid1 up")
    os.close(console.fileno())
    assert path.read_text() == "brickless: pid1 up\n"
