"""The disk refuses at each single call of an update, from the first byte to the commit: old or new, and it can be told.

The real storage, bootloader back ends and atomic writes on this machine's file system; only the calls fail.
`tests/chaos/test_faults.py` fills a real device's disk.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import State, parse_state
from brickless.device.boot.grub import Grub
from brickless.device.boot.uboot import FileRecord
from brickless.device.boot.variables import Variables
from brickless.image import factory
from brickless.main.chaos import run
from brickless.store.atomic import FILES, Files
from brickless.store.trails import Storage

fault = pytest.mark.fault
OLD, NEW = "0", "1"
CHANGES = ("open", "write", "chmod", "fsync", "rename", "rename_at", "link", "symlink", "unlink", "mkdir", "rmdir")


class Refusing(Files):
    """The `at`-th call fails with `number`; so do all later ones when `lasting`. `calls` counts."""

    __slots__ = ("at", "calls", "lasting", "number")

    def __init__(self, at: int, number: int, *, lasting: bool) -> None:
        self.at, self.number, self.lasting = at, number, lasting
        self.calls = 0

    def check(self, name: str) -> None:
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at):
            raise OSError(self.number, f"the disk refuses {name}, call {self.calls}")


def _refusing(name: str) -> Callable[..., object]:
    plain = getattr(Files, name)

    def call(self: Refusing, *arguments: object, **named: object) -> object:
        self.check(name)
        return plain(self, *arguments, **named)

    return call


for _name in CHANGES:
    setattr(Refusing, _name, _refusing(_name))


def states(storage: Storage) -> tuple[State, State]:
    """The running revision and the next one, whose objects have come."""
    made = []
    for kernel, page in ((b"kernel 1", b"old"), (b"kernel 2", b"new")):
        entries = {
            "#spec": factory.SPEC,
            "bsp/kernel.img": storage.objects.add([kernel]),
            "bsp/pantavisor": storage.objects.add([b"initramfs"]),
            "bsp/run.json": {"addons": [], "initrd": "pantavisor", "linux": "kernel.img"},
            "device.json": {"groups": factory.stock_groups()},
            "_config/web/page": storage.objects.add([page]),
        }
        made.append(parse_state(canonical.dumps(entries), require_bsp=True))
    return made[0], made[1]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: hundreds of updates are made, each with all its syncs."""
    folder = run.scratch()
    yield folder
    shutil.rmtree(folder)


def uboot(root: str, files: Files) -> Variables:
    return Variables(FileRecord(f"{root}/boot/uboot.txt", files), lambda: None)


def grub(root: str, files: Files) -> Variables:
    made = Grub(root, files)
    made._publish = lambda: None  # a checkpoint needs ext4; what it does is the boards' test
    return made


Loader = Callable[[str, Files], Variables]


def prepare(root: Path, loader: Loader) -> State:
    """A device that runs its factory revision, with the objects of the next one."""
    storage = Storage(str(root))
    storage.prepare()
    old, new = states(storage)
    storage.install(OLD, old)
    storage.write_progress(OLD, Progress.of(Status.DONE, Message.FACTORY).to_json())
    storage.mark_done(OLD)
    storage.set_current(OLD)
    loader(str(root), FILES).commit(OLD)
    return new


def update(root: Path, new: State, loader: Loader, files: Files) -> None:
    """All that an update writes after its objects came, in the order of `boot.variables`."""
    storage = Storage(str(root), files=files)
    boot = loader(str(root), files)
    storage.objects.add([b"an object that is fetched meanwhile"])
    storage.write_state(NEW, new.raw)
    storage.install(NEW, new)
    storage.write_progress(NEW, Progress.of(Status.INPROGRESS, Message.REBOOTING).to_json())
    boot.set_try(NEW)
    storage.set_current(NEW)
    boot.commit(NEW)
    storage.write_progress(NEW, Progress.of(Status.DONE, Message.DONE).to_json())
    storage.mark_done(NEW)


def check(root: Path, loader: Loader) -> str:
    """What boots, all of it whole; returns the committed revision."""
    storage = Storage(str(root))
    stored = loader(str(root), FILES).read()
    assert stored.rev in {OLD, NEW}
    for rev in {stored.rev, stored.try_ or stored.rev}:
        parse_state(storage.state_bytes(rev), require_bsp=True)
        assert storage.verify(rev) == [], f"revision {rev} may be booted and is not whole"
    assert storage.current() in {OLD, NEW}
    if storage.is_done(NEW):
        assert stored.rev == NEW, "done, and the bootloader does not know"
    return stored.rev


@fault(
    "the disk is full at each single write",
    "fails with the call that was refused; old or new is whole; the next attempt works",
)
@pytest.mark.parametrize("loader", [uboot, grub])
def test_a_disk_that_is_full_from_any_call_on(memory: Path, loader: Loader) -> None:
    every_call(memory, loader, errno.ENOSPC, lasting=True)


@fault(
    "an I/O error at each single write",
    "fails with the call that was refused; old or new is whole; the next attempt works",
)
@pytest.mark.parametrize("loader", [uboot, grub])
def test_an_io_error_at_any_call(memory: Path, loader: Loader) -> None:
    every_call(memory, loader, errno.EIO, lasting=False)


def refusal(change: Callable[[], None]) -> int:
    """The error with which it ended, 0 for none."""
    try:
        change()
    except OSError as error:
        return error.errno or -1
    return 0


def every_call(folder: Path, loader: Loader, number: int, *, lasting: bool) -> None:
    outcomes: set[str] = set()
    at = 0
    while True:
        at += 1
        root = folder / str(at)
        new = prepare(root, loader)
        files = Refusing(at, number, lasting=lasting)
        assert refusal(lambda: update(root, new, loader, files)) in {0, number}  # noqa: B023 - called at once
        outcomes.add(check(root, loader))
        refused = files.calls >= at
        # The disk is well again: the same update goes through, whatever the first attempt left.
        update(root, new, loader, FILES)
        assert check(root, loader) == NEW
        if not refused:
            break
    assert at > 60, f"only {at} calls were refused: is the seam still there?"
    assert outcomes == {OLD, NEW}
