"""Data of a revision, kept and brought back, with the power cut after every single step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.device.supervise import snapshots
from brickless.device.supervise.snapshots import Version
from brickless.store.trails import Storage
from brickless.testkit.power_cut import PowerCutError, PowerCutFiles

STATE = b'{"#spec":"pantavisor-service-system@1"}'
OLD, NEW = "f-old", "f-new"


def prepare(root: Path) -> Storage:
    """Revision 1 is committed and runs; 2 is not."""
    storage = Storage(str(root))
    storage.prepare()
    for rev in ("1", "2"):
        storage.write_state(rev, STATE)
    storage.mark_done("1")
    return storage


def version(rev: str, fingerprint: str) -> Version:
    return Version("db", rev, fingerprint, ("data",))


def write(storage: Storage, text: str) -> None:
    folder = Path(storage.root, "disks/perm/db/data")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(text)


def read(storage: Storage) -> str | None:
    path = Path(storage.root, "disks/perm/db/data/file")
    return path.read_text() if path.exists() else None


def started(root: Path) -> Storage:
    storage = prepare(root)
    assert snapshots.enter(storage, version("1", OLD)) == ""
    write(storage, "one")
    return storage


def test_data_are_kept_and_carried_over_and_come_back(tmp_path: Path) -> None:
    storage = started(tmp_path)
    assert snapshots.enter(storage, version("2", NEW)).startswith("the data of revision 1 are kept")
    assert read(storage) == "one"
    write(storage, "two")
    assert snapshots.enter(storage, version("1", OLD)) == "the data that it had are back"
    assert read(storage) == "one"
    assert not snapshots.is_due(storage, version("1", OLD))


def test_data_of_a_failed_revision_are_not_kept(tmp_path: Path) -> None:
    storage = started(tmp_path)
    snapshots.enter(storage, version("2", NEW))
    write(storage, "rubbish")
    snapshots.enter(storage, version("1", OLD))
    snapshots.enter(storage, version("2", NEW))
    assert read(storage) == "one"


def test_data_travel_with_revisions_that_were_committed(tmp_path: Path) -> None:
    storage = started(tmp_path)
    snapshots.enter(storage, version("2", NEW))
    storage.mark_done("2")
    write(storage, "two")
    snapshots.enter(storage, version("1", OLD))
    assert read(storage) == "one"
    write(storage, "one and more")
    snapshots.enter(storage, version("2", NEW))
    assert read(storage) == "two"
    snapshots.enter(storage, version("1", OLD))
    assert read(storage) == "one and more"


def test_the_same_version_in_another_revision_keeps_its_data(tmp_path: Path) -> None:
    storage = started(tmp_path)
    assert snapshots.enter(storage, version("2", OLD)) == ""
    assert not Path(storage.root, "disks/rev/2/.snapshot").exists()
    storage.mark_done("2")
    storage.write_state("3", STATE)
    snapshots.enter(storage, version("3", NEW))
    assert Path(storage.root, "disks/rev/2/.snapshot/db/data/file").read_text() == "one"
    # Revision 1 means the same version: its data are those that were left last.
    write(storage, "three")
    snapshots.enter(storage, version("1", OLD))
    assert read(storage) == "one"


def test_a_volume_that_came_later_is_empty_again_before(tmp_path: Path) -> None:
    storage = prepare(tmp_path)
    snapshots.enter(storage, Version("db", "1", OLD, ()))
    snapshots.enter(storage, version("2", NEW))
    write(storage, "two")
    snapshots.enter(storage, Version("db", "1", OLD, ()))
    assert read(storage) is None


def test_modes_links_and_holes_are_kept(tmp_path: Path) -> None:
    storage = started(tmp_path)
    folder = Path(storage.root, "disks/perm/db/data")
    os.link(folder / "file", folder / "again")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")
    with (folder / "holes").open("wb") as stream:
        stream.seek(32 << 20)
        stream.write(b"end")
    (folder / "file").chmod(0o604)
    snapshots.enter(storage, version("2", NEW))
    kept = Path(storage.root, "disks/rev/1/.snapshot/db/data")
    assert (kept / "file").stat().st_ino == (kept / "again").stat().st_ino
    assert (kept / "file").stat().st_ino != (folder / "file").stat().st_ino
    assert os.readlink(kept / "link") == "/etc/passwd"
    assert (kept / "fifo").is_fifo()
    assert (kept / "file").stat().st_mode & 0o777 == 0o604
    holes = (kept / "holes").stat()
    assert (holes.st_size, holes.st_blocks < 1024) == ((32 << 20) + 3, True)


def crash_everywhere(tmp_path: Path, begin: Path, step: Version, then: Version, expected: str) -> int:
    """Cut the power after each write of `step`; whatever the next boot runs (`then`) finds its data."""
    cuts = 0
    while True:
        root = tmp_path / f"cut{cuts}"
        shutil.copytree(begin, root, symlinks=True)
        files = PowerCutFiles(cuts)
        try:
            snapshots.enter(Storage(str(root), files=files), step)
        except PowerCutError:
            files.settle()
        else:
            return cuts
        snapshots.enter(Storage(str(root)), then)
        assert read(Storage(str(root))) == expected, f"after {cuts} writes"
        cuts += 1


def test_a_power_cut_on_the_way_to_a_new_revision_loses_nothing(tmp_path: Path) -> None:
    started(tmp_path / "begin")
    assert crash_everywhere(tmp_path / "same", tmp_path / "begin", version("2", NEW), version("2", NEW), "one") > 10
    assert crash_everywhere(tmp_path / "back", tmp_path / "begin", version("2", NEW), version("1", OLD), "one") > 10


def test_a_power_cut_on_the_way_back_loses_nothing(tmp_path: Path) -> None:
    storage = started(tmp_path / "begin")
    snapshots.enter(storage, version("2", NEW))
    storage.mark_done("2")
    write(storage, "two")
    begin = tmp_path / "begin"
    assert crash_everywhere(tmp_path / "on", begin, version("1", OLD), version("1", OLD), "one") > 10
    assert crash_everywhere(tmp_path / "stay", begin, version("1", OLD), version("2", NEW), "two") > 10


def test_the_room_that_an_update_needs_is_known_before(tmp_path: Path) -> None:
    storage = started(tmp_path)
    run = {"name": "db", "config": "c", "storage": {"data": {"persistence": "permanent", "snapshot": True}}}
    state = parse_state(canonical.dumps({"#spec": "pantavisor-service-system@1", "db/run.json": run, "db/c": "a" * 64}))
    Path(storage.root, "disks/perm/db/data/big").write_bytes(bytes(100_000))
    assert snapshots.kept_bytes(storage, state, lambda _state, _name: NEW) >= 100_000
    assert snapshots.kept_bytes(storage, state, lambda _state, _name: OLD) == 0
