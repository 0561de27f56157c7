"""The atomic write: old or new after any interruption, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.store import atomic
from brickless.testkit.power_cut import PowerCutError, PowerCutFiles


def every_stop(action: Callable[[PowerCutFiles], object], reset: Callable[[], None]) -> Iterator[int]:
    """Run `action` with the power cut after 0, 1, 2, ... system calls, until it gets through."""
    for stop_after in range(500):
        reset()
        files = PowerCutFiles(stop_after)
        try:
            action(files)
        except PowerCutError:
            files.settle()
            yield stop_after
            continue
        files.settle()
        yield stop_after
        return
    pytest.fail("the action never finished")


def test_a_power_cut_after_any_call_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    target = tmp_path / "json"
    old, new = b"old" * 1000, b"new" * 3000
    outcomes = []

    def reset() -> None:
        target.write_bytes(old)

    for stop in every_stop(lambda files: atomic.write_file(str(target), new, files=files), reset):
        found = target.read_bytes()
        assert found in (old, new), f"torn after {stop} calls"
        atomic.sweep(str(tmp_path))
        assert os.listdir(tmp_path) == ["json"]
        outcomes.append(found == new)
    assert outcomes == sorted(outcomes), "once new, always new"
    assert not outcomes[0]
    assert outcomes[-1]


def test_a_power_cut_leaves_no_file_or_a_whole_one_where_there_was_none(tmp_path: Path) -> None:
    target = tmp_path / "fresh"

    def reset() -> None:
        target.unlink(missing_ok=True)

    for _ in every_stop(lambda files: atomic.write_file(str(target), b"x" * 100, files=files), reset):
        assert not target.exists() or target.read_bytes() == b"x" * 100


def test_a_power_cut_leaves_the_old_or_the_new_symlink(tmp_path: Path) -> None:
    link = tmp_path / "current"

    def reset() -> None:
        link.unlink(missing_ok=True)
        link.symlink_to("1")

    seen = {os.readlink(link) for _ in every_stop(lambda f: atomic.replace_symlink("2", str(link), files=f), reset)}
    assert seen == {"1", "2"}


def test_a_power_cut_leaves_a_whole_tree_or_none(tmp_path: Path) -> None:
    tree = tmp_path / "3"
    content = ("a", "sub/b", "sub/deeper/c")

    def reset() -> None:
        atomic.sweep(str(tmp_path))
        for name in content:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)

    for stop in every_stop(lambda files: atomic.remove_tree(str(tree), files=files), reset):
        left = {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()}
        assert left in ({*content}, set()), f"half a tree after {stop} calls"
        atomic.sweep(str(tmp_path))
        assert not [name for name in os.listdir(tmp_path) if atomic.is_temporary(name)]


def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        atomic.write_file(str(tmp_path / "f"), b"", mode=0o644)
        atomic.write_file(str(tmp_path / "secret"), b"", mode=0o600)
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


class FullDisk(atomic.Files):
    """A disk with room for a few bytes."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if len(data) > 10:
            return super().write(fd, memoryview(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="No space") as raised:
        atomic.write_file(str(target), b"new" * 100, files=FullDisk())
    assert raised.value.errno == errno.ENOSPC
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_stream_beyond_its_bound_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="more than 5 bytes"):
        atomic.write_stream(str(target), [b"1234", b"5678"], max_bytes=5)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_an_exception_in_the_source_leaves_no_temporary(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_stream(str(tmp_path / "f"), chunks())
    assert os.listdir(tmp_path) == []


def test_publish_moves_a_finished_file(tmp_path: Path) -> None:
    source = tmp_path / "download"
    source.write_bytes(b"data")
    atomic.publish(str(source), str(tmp_path / "final"))
    assert os.listdir(tmp_path) == ["final"]


def test_publish_refuses_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic link"):
        atomic.publish(str(tmp_path / "link"), str(tmp_path / "final"))
    assert not (tmp_path / "final").exists()


def test_remove_tree_does_not_follow_a_symlink(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("me")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    atomic.remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "keep").read_text() == "me"


def test_remove_tree_removes_read_only_folders_and_forgives_a_missing_one(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_text("x")
    (tree / "sub").chmod(0o500)
    atomic.remove_tree(str(tree))
    atomic.remove_tree(str(tree))
    assert os.listdir(tmp_path) == []


def test_sweep_takes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "not.tmp-mine").write_text("")
    leftover = Path(atomic.temporary_path(str(tmp_path / "file")))
    leftover.mkdir()
    (leftover / "inside").write_text("")
    assert atomic.sweep(str(tmp_path)) == [leftover.name]
    assert sorted(os.listdir(tmp_path)) == [".hidden", "file", "not.tmp-mine"]
    assert atomic.sweep(str(tmp_path / "missing")) == []


def test_make_dirs_makes_parents_and_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    atomic.make_dirs(str(tmp_path / "a" / "b" / "c"))
    atomic.make_dirs(str(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        atomic.make_dirs(str(tmp_path / "file" / "below"))


@given(st.binary(min_size=1, max_size=400).filter(lambda b: b"/" not in b and b"\0" not in b))
def test_a_temporary_name_fits_and_is_recognised(name: bytes) -> None:
    temporary = atomic.temporary_name(os.fsdecode(name))
    assert len(os.fsencode(temporary)) <= 255
    assert atomic.is_temporary(temporary)
