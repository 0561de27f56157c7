"""Disks whose key is in hardware, through a helper that is a script here; and dual disks, whatever their members are.

That a helper's mount is really a mount is the kernel's business, and the guest's test: here a file stands for it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.core.disks import Disk
from brickless.device.disks import copying, dual, opening, places
from brickless.device.disks.places import Places
from brickless.linux import mount
from brickless.linux.process import ProcessError

HELPER = """#!/bin/sh
printf '%s\\n' "$@" >{log}
for target; do :; done
{then}
"""


class Bench:
    """A device's folders, a helper, and a table of mounts that the helper writes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        storage, media, disks, lib = (str(folder / name) for name in ("storage", "media", "disks", "lib"))
        self.where = Places(storage, media, disks, lib)
        self.mounts = folder / "mounts"
        self.mounts.touch()
        monkeypatch.setattr(mount, "targets", lambda: set(self.mounts.read_text().split()))
        monkeypatch.setattr(mount, "bind", self._bind)
        self.bound: list[tuple[str, str]] = []

    def _bind(self, source: str, target: str) -> None:
        self.bound.append((source, target))

    def helper(self, then: str = 'echo "$target" >>{mounts}') -> None:
        path = Path(self.where.lib, opening.HELPER)
        path.parent.mkdir(parents=True)
        path.write_text(HELPER.format(log=self.folder / "said", then=then.format(mounts=self.mounts)))
        path.chmod(0o755)

    def said(self) -> list[str]:
        return (self.folder / "said").read_text().splitlines()

    def open(self, disk: Disk) -> str:
        return opening.open_disk(disk, [disk], self.where, str(self.folder / "private"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


CAAM = Disk("safe", "dm-crypt-caam", path="-v2 /storage/safe.img,16,key")


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (CAAM, ["mount", "--type", "caam", "--mode", "mainline"]),
        (CAAM._replace(mode="nxp"), ["mount", "--type", "caam", "--mode", "nxp"]),
        (CAAM._replace(type="dm-crypt-dcp"), ["mount", "--type", "dcp", "--mode", "mainline"]),
        (
            CAAM._replace(migrate_keyblob=True),
            ["mount", "--type", "caam", "--mode", "mainline", "--migrate-keyblob"],
        ),
    ],
    ids=["caam", "nxp", "dcp", "migrate"],
)
def test_the_helper_is_called_as_the_contract_says(bench: Bench, disk: Disk, words: list[str]) -> None:
    bench.helper()
    target = bench.open(disk)
    assert target == os.path.join(bench.where.media, "pv/dmcrypt/safe")
    assert bench.said() == [*words, "--", "-v2 /storage/safe.img,16,key", target]
    (bench.folder / "said").unlink()
    assert bench.open(disk) == target, "what is mounted stays"
    assert not (bench.folder / "said").exists()


def test_without_a_helper_it_says_what_is_missing(bench: Bench) -> None:
    with pytest.raises(OSError, match=r"key in hardware \(caam\): the BSP brings no helper .*/pv/volmount/crypt/crypt"):
        bench.open(CAAM)


def test_a_helper_that_fails_or_lies(bench: Bench) -> None:
    bench.helper("echo the key blob is of another device >&2; exit 7")
    with pytest.raises(ProcessError, match=r"(?s)opening the disk safe.*another device"):
        bench.open(CAAM)
    Path(bench.where.lib, opening.HELPER).unlink()
    Path(bench.where.lib, opening.HELPER).parent.rmdir()
    bench.helper("exit 0")
    with pytest.raises(OSError, match="ended well, but mounted nothing"):
        bench.open(CAAM)


# Dual disks ---------------------------------------------------------------------------------------------------------

DUAL = Disk("both", "dual", disks=("hard", "soft"))
MEMBERS = (Disk("hard", "dm-crypt-caam"), Disk("soft", "dm-crypt-versatile"))


class Members:
    """Opens the members of a dual disk: `made` are there already, `broken` never open."""

    def __init__(self, bench: Bench, made: set[str], broken: set[str]) -> None:
        self.bench, self.made, self.broken = bench, made, broken
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, disk: Disk, create: bool) -> str:
        self.asked.append((disk.name, create))
        if disk.name in self.broken or not (create or disk.name in self.made):
            raise OSError(f"{disk.name} does not open")
        self.made.add(disk.name)
        folder = self.bench.folder / disk.name
        folder.mkdir(exist_ok=True)
        return str(folder)


def open_dual(bench: Bench, members: Members, *steps: str) -> str:
    dual.open_dual(DUAL._replace(init_order=steps), MEMBERS, bench.where, members)
    return Path(bench.bound[-1][0]).name


@pytest.mark.parametrize(
    ("made", "broken", "steps", "used"),
    [
        ({"hard", "soft"}, set(), (), "hard"),
        ({"soft"}, set(), (), "soft"),
        (set(), set(), (), "hard"),
        (set(), {"hard"}, ("create-primary", "create-secondary"), "soft"),
        ({"hard"}, set(), ("secondary", "primary"), "hard"),
    ],
)
def test_the_first_step_that_succeeds_counts(
    bench: Bench, made: set[str], broken: set[str], steps: tuple[str, ...], used: str
) -> None:
    assert open_dual(bench, Members(bench, made, broken), *steps) == used
    assert Path(places.dual_marker(DUAL, bench.where)).name == "dual_hard_soft.init_done"
    assert Path(places.dual_marker(DUAL, bench.where)).exists()


def test_each_step_that_failed_is_told(bench: Bench) -> None:
    with pytest.raises(OSError, match=r"primary: hard does not open; secondary: soft does not open; create-primary: "):
        open_dual(bench, Members(bench, set(), {"hard"}))
    assert not Path(places.dual_marker(DUAL, bench.where)).exists()


def test_what_is_on_the_second_is_copied_to_the_first_once(bench: Bench) -> None:
    members = Members(bench, {"soft"}, set())
    (bench.folder / "soft").mkdir()
    (bench.folder / "soft/data").write_text("old")
    assert open_dual(bench, members, "copy-once-to-primary") == "hard"
    assert (bench.folder / "hard/data").read_text() == "old"
    (bench.folder / "soft/data").write_text("newer")
    (bench.folder / "hard/data").write_text("the primary's own")
    members.asked.clear()
    assert open_dual(bench, members, "copy-once-to-primary") == "hard"
    assert (bench.folder / "hard/data").read_text() == "the primary's own"
    assert members.asked == [("hard", True)], "the second is not even opened again"


def test_a_copy_that_was_interrupted_is_done_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members(bench, {"soft"}, set())
    (bench.folder / "soft").mkdir()
    for name in ("a", "b"):
        (bench.folder / "soft" / name).write_text(name)
    whole = copying.copy_into

    def cut(source: str, target: str) -> None:
        Path(target, "a").write_text("half")
        raise OSError(f"{source}: the power is gone")

    monkeypatch.setattr(copying, "copy_into", cut)
    assert open_dual(bench, members, "copy-once-to-primary", "secondary") == "soft"
    monkeypatch.setattr(copying, "copy_into", whole)
    assert open_dual(bench, members, "copy-once-to-primary", "secondary") == "hard"
    assert sorted(path.read_text() for path in (bench.folder / "hard").iterdir()) == ["", "a", "b"]
