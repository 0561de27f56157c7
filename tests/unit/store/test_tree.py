"""Writes stay below their root, whatever the path says and whatever lies on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.store import tree

BAD = {
    "empty": "",
    "absolute": "/etc/passwd",
    "parent": "../x",
    "parent-inside": "a/../../x",
    "parent-last": "a/..",
    "dot": "./a",
    "double-slash": "a//b",
    "trailing-slash": "a/",
    "nul": "a\0b",
    "long-name": "a" * 256,
    "long-path": "/".join(["a" * 200] * 30),
}


@pytest.mark.parametrize("path", BAD.values(), ids=BAD.keys())
def test_bad_paths_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(HostileInputError):
        tree.safe_join(str(tmp_path), path)
    with pytest.raises(HostileInputError):
        tree.write_beneath(str(tmp_path), path, b"x")
    assert os.listdir(tmp_path) == []


@given(st.text(max_size=30))
def test_a_joined_path_stays_below_the_root(path: str) -> None:
    try:
        joined = tree.safe_join("/root/dir", path)
    except (HostileInputError, UnicodeEncodeError):
        return
    assert os.path.normpath(joined) == joined
    assert joined.startswith("/root/dir/")


@pytest.fixture
def escaping(tmp_path: Path) -> Path:
    """A root in which a folder is a symlink to the outside, and a file too."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / "sub").symlink_to("../outside")
    (root / "file").symlink_to("../outside/file")
    return root


def test_no_write_follows_a_symlink_of_a_folder(escaping: Path) -> None:
    source = escaping / "source"
    source.write_text("evil")
    for write in (
        lambda: tree.write_beneath(str(escaping), "sub/file", b"evil"),
        lambda: tree.link_beneath(str(source), str(escaping), "sub/file"),
        lambda: tree.open_beneath(str(escaping), "sub/file", os.O_WRONLY | os.O_CREAT),
        lambda: tree.unlink_beneath(str(escaping), "sub/file"),
    ):
        with pytest.raises(HostileInputError, match="symlink 'sub'"):
            write()
    assert (escaping.parent / "outside" / "file").read_text() == "precious"
    assert os.listdir(escaping.parent / "outside") == ["file"]


def test_a_symlink_at_the_end_is_replaced_or_refused_and_never_followed(escaping: Path) -> None:
    with pytest.raises(HostileInputError, match="symlink"):
        tree.open_beneath(str(escaping), "file", os.O_WRONLY)
    tree.write_beneath(str(escaping), "file", b"mine")
    assert not (escaping / "file").is_symlink()
    assert (escaping.parent / "outside" / "file").read_text() == "precious"


def test_a_link_replaces_what_is_there_and_is_quiet_when_it_is_right(tmp_path: Path) -> None:
    source = tmp_path / "object"
    source.write_text("data")
    assert tree.link_beneath(str(source), str(tmp_path), "a/b/c")
    assert not tree.link_beneath(str(source), str(tmp_path), "a/b/c")
    (tmp_path / "other").write_text("old")
    assert tree.link_beneath(str(source), str(tmp_path), "other")
    assert (tmp_path / "other").stat().st_ino == source.stat().st_ino == (tmp_path / "a/b/c").stat().st_ino
    assert sorted(os.listdir(tmp_path)) == ["a", "object", "other"]


def test_a_folder_or_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(IsADirectoryError):
        tree.write_beneath(str(tmp_path), "folder", b"x")
    with pytest.raises(IsADirectoryError):
        tree.link_beneath(str(tmp_path / "file"), str(tmp_path), "folder")
    with pytest.raises(NotADirectoryError):
        tree.write_beneath(str(tmp_path), "file/below", b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_walk_lists_files_and_symlinks_and_follows_none(escaping: Path) -> None:
    (escaping / "a" / "b").mkdir(parents=True)
    (escaping / "a" / "b" / "c").write_text("")
    assert tree.walk(str(escaping)) == ["a/b/c", "file", "sub"]


def test_unlink_says_whether_there_was_a_file(tmp_path: Path) -> None:
    tree.write_beneath(str(tmp_path), "a/b", [b"1", b"2"])
    assert (tmp_path / "a" / "b").read_bytes() == b"12"
    assert tree.unlink_beneath(str(tmp_path), "a/b")
    assert not tree.unlink_beneath(str(tmp_path), "a/b")
    assert not tree.unlink_beneath(str(tmp_path), "missing/b")
