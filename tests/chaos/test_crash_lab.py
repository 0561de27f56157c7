"""The crash lab on a real device: no power cut leaves anything but old or new; and the lab finds bugs that we plant.

`CRASH_SAMPLE` states are judged here, `make chaos` judges all of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import brickless
from brickless.core.errors import BricklessError
from brickless.image import initramfs
from brickless.image.compress import Compression
from brickless.main.artefacts import Variant
from brickless.main.chaos import campaign, cases, run
from brickless.main.chaos.record import Recording
from brickless.main.chaos.rigs import NAME, EmulatorRig
from brickless.main.chaos.scene import PAGE, Scene, page
from brickless.main.lab import Lab
from brickless.main.talk import Talk

CACHE = Path(__file__).parents[2] / ".cache"
SAMPLE = int(os.environ.get("CRASH_SAMPLE", "300"))
BOOTS = int(os.environ.get("CRASH_BOOTS", "4"))
CASES = {
    "storage-growth",
    "first-boot",
    "claim",
    "metadata",
    "log-rotation",
    "app-update",
    "commit",
    "bsp-update",
    "app-rollback",
    "bsp-rollback",
    "garbage-collection",
}
STEP_TIMEOUT_S = 300.0
# Of the states of a planted bug's case so many are judged at a time.
PART = 40


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder in memory: images are written and read whole."""
    folder = run.scratch()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.needs("qemu")
@pytest.mark.timeout(1800)
def test_a_power_cut_after_any_write_leaves_old_or_new(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = run.run(CACHE, work / "found", Talk(), run.Plan(sample=SAMPLE, boot=BOOTS))
    with capsys.disabled():
        print(f"\n{run.last_line(counts)}")
    assert counts.findings == ()
    assert counts.unbootable == 0
    assert counts.booted == BOOTS
    assert set(counts.cases) >= CASES, "a case was not recorded, or none of its states was drawn"
    assert sum(counts.cases.values()) >= SAMPLE * 0.8


# -- planted bugs ----------------------------------------------------------------------------------------------------


class Planted(Scene):
    """Devices with a bug: `bug` gets a copy of our package and puts it in."""

    def __init__(self, folder: Path, work: Path, bug: Callable[[Path], None]) -> None:
        super().__init__(folder, config=cases.CONFIG)
        self._work = work
        self._package = work / "package" / "brickless"
        shutil.copytree(Path(brickless.__file__).parent, self._package)
        bug(self._package)

    def initramfs(self, variant: Variant, compression: Compression = Compression.ZSTD) -> Path:
        out = self._work / f"planted-{variant}.cpio"
        if not out.exists():
            initramfs.build(out, cache=self.folder, config=self.config, package=self._package, compression=compression)
        return out


def replace(path: Path, old: str, new: str) -> None:
    """Change the source of the device; a text that is not there once is a mistake of this test."""
    source = path.read_text()
    assert source.count(old) == 1, f"{path} has {old!r} {source.count(old)} times"
    path.write_text(source.replace(old, new))


def environment_before_revision(package: Path) -> None:
    """The bootloader is told to try the revision before any of it is on the disk."""
    told = """
        from brickless.core import bootenv
        path = os.path.join(self.root, "boot", "uboot.txt")
        with open(path, "rb") as stream:
            found = bootenv.parse(stream.read())
        atomic.write_file(path, bootenv.render(bootenv.request_try(found, rev)).ljust(bootenv.SIZE_BYTES, b"\\0"))
        root = self.revision_dir(rev)
        for folder in (".pvr", ".pv"):
"""
    replace(
        package / "store/trails.py",
        '\n        root = self.revision_dir(rev)\n        for folder in (".pvr", ".pv"):\n',
        told,
    )


def without_fsync(package: Path) -> None:
    """The atomic write renames a file whose bytes are nowhere but in memory."""
    replace(
        package / "store/atomic.py",
        "            files.chmod(fd, mode)\n            if durable:\n                files.fsync(fd)\n",
        "            files.chmod(fd, mode)\n",
    )


def without_hash_check(package: Path) -> None:
    replace(package / "store/objects.py", "if found != wanted or wanted != self.sha:", "if wanted != self.sha:")


class Short(cases.Recorder):
    """A life with one update, for as long as it takes until the device is done with it."""

    def play(self) -> Recording:
        self.begin()
        repository = self._developer.clone(NAME, "user1")
        self._rig.set_link(up=False)
        before, self._page = self._page, page(1)
        (repository / PAGE).write_text(self._page)
        rev = self._post(repository, "planted")
        self.prepare()
        self._rig.set_link(up=True)
        self._lab.api.wait_for_step(self.device.known, rev, STEP_TIMEOUT_S)
        self._cut("planted", (0, rev), {}, (before, self._page))
        self._rig.kill()
        return self._finish()

    def prepare(self) -> None:
        """Nothing more: the bug is in the device."""


class Told(cases.Recorder):
    """A life in which metadata arrives, and no more."""

    def play(self) -> Recording:
        self.begin()
        self.metadata()
        self._rig.kill()
        return self._finish()


class BitFlip(Short):
    """The hub's copy of the new page is damaged before the device fetches it."""

    def prepare(self) -> None:
        objects = Path(self._lab.hub.data_dir, "objects")
        found = [path for path in objects.rglob("*") if path.is_file() and path.read_bytes() == self._page.encode()]
        assert len(found) == 1, found
        found[0].chmod(0o600)
        found[0].write_bytes(self._page.upper().encode())


@pytest.mark.needs("qemu")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("bug", "recorder", "case", "finding"),
    [
        (environment_before_revision, Short, "planted", "revision 1 has no"),
        (without_fsync, Told, "metadata", f"cache/usrmeta/{cases.META_KEY} is 0 bytes"),
        (without_hash_check, BitFlip, "planted", "is broken"),
    ],
)
def test_the_lab_finds_a_planted_bug(
    work: Path, bug: Callable[[Path], None], recorder: type[cases.Recorder], case: str, finding: str
) -> None:
    talk = Talk()
    try:
        with Lab(work / "lab", Planted(CACHE, work, bug), talk) as lab:
            recording = recorder(lab, EmulatorRig(lab), work / "recording").play()
    except BricklessError as error:
        pytest.fail(f"the device with the planted bug could not be recorded: {error}")
    planned = [one for one in campaign.plan(recording, sample=None, seed=1) if one[0].name == case]
    faults: list[str] = []
    # Parts that are spread over the whole case, until one shows the bug: all are judged before the lab has missed it.
    parts = max(1, len(planned) // PART)
    for part in range(parts):
        counts = campaign.judge_all(recording, planned[part::parts], work / f"judge-{part}")
        faults += [fault for found in counts.findings for fault in found.faults]
        if any(re.search(finding, fault) for fault in faults):
            break
    for line in dict.fromkeys(faults):
        talk.say(line)
    assert any(re.search(finding, fault) for fault in faults), f"{len(planned)} states, and none shows the bug"
