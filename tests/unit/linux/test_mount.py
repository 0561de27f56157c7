"""The mount table as the kernel writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.linux import mount


def test_a_space_in_a_path_is_unescaped() -> None:
    entry = mount.parse_line(r"/dev/loop0 /volumes/a\040b squashfs ro,relatime 0 0")
    assert entry == mount.Mounted("/dev/loop0", "/volumes/a b", "squashfs", "ro,relatime")


@pytest.mark.parametrize("line", ["", "proc /proc"])
def test_a_short_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of a mount table"):
        mount.parse_line(line)


@given(st.text(st.characters(min_codepoint=1, max_codepoint=126)))
def test_unescape_undoes_what_the_kernel_escapes(text: str) -> None:
    escaped = "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in text)
    assert mount.unescape(escaped) == text


def test_the_root_is_a_mountpoint_and_a_folder_is_not(tmp_path) -> None:
    assert mount.is_mountpoint("/")
    assert not mount.is_mountpoint(str(tmp_path))
    assert not mount.is_mountpoint(str(tmp_path / "nosuch"))


def test_this_process_has_mounts() -> None:
    assert "/proc" in mount.targets()


def test_waiting_for_what_is_mounted_already_does_not_wait() -> None:
    mount.wait_for_mount("/proc")
