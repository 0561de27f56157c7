"""Locks between processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from brickless.store.lock import LockedError, lock


def held_by_a_child(path: Path) -> tuple[int, int]:
    """A child process that holds the lock until the returned descriptor is closed."""
    ready_read, ready_write = os.pipe()
    stop_read, stop_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(stop_write)
        with lock(str(path), timeout_s=None):
            os.write(ready_write, b"1")
            os.read(stop_read, 1)
        os._exit(0)
    os.close(stop_read)
    os.close(ready_write)
    assert os.read(ready_read, 1) == b"1"
    os.close(ready_read)
    return pid, stop_write


def test_a_free_lock_is_taken_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        with lock(str(tmp_path / "lock"), timeout_s=0):
            assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_a_held_lock_says_who_holds_it(tmp_path: Path, timeout_s: float) -> None:
    pid, stop = held_by_a_child(tmp_path / "lock")
    with (
        pytest.raises(LockedError, match=f"locked by process {pid}"),
        lock(str(tmp_path / "lock"), timeout_s=timeout_s),
    ):
        pytest.fail("two hold the lock")
    os.close(stop)
    os.waitpid(pid, 0)
    with lock(str(tmp_path / "lock"), timeout_s=10):
        pass


@pytest.mark.parametrize("timeout_s", [None, 10.0])
def test_a_waiter_gets_the_lock_when_its_holder_dies(tmp_path: Path, timeout_s: float | None) -> None:
    pid, stop = held_by_a_child(tmp_path / "lock")
    got = threading.Event()

    def wait() -> None:
        with lock(str(tmp_path / "lock"), timeout_s=timeout_s):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.is_set()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(stop)
    assert got.wait(10)
    thread.join()


def test_a_lock_does_not_follow_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"), lock(str(tmp_path / "lock"), timeout_s=0):
        pytest.fail("followed")
    assert (tmp_path / "victim").read_text() == "precious"
