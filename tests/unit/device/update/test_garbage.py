"""What a running container uses of a revision that goes, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.device.config import Config
from brickless.device.update.garbage import Garbage, mounted
from brickless.linux import mount
from brickless.store.trails import Storage

MOUNTINFO = """\
24 1 8:1 / / rw,relatime - ext4 /dev/root rw
61 24 8:2 / /storage rw - ext4 /dev/sda2 rw
75 24 8:2 /disks/rev/3/web/data /volumes/web/data rw - ext4 /dev/sda2 rw
76 24 8:2 /disks/rev/locals/x/web/with\\040space /volumes/web/w rw - ext4 /dev/sda2 rw
77 24 8:3 /host/storage/disks/rev/5/db/v /volumes/db/v rw master:1 - ext4 /dev/sdb rw
78 24 8:2 /disks/perm/web/data /volumes/web/perm rw - ext4 /dev/sda2 rw
"""


def test_what_is_mounted_of_revisions(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    assert mounted(mount.roots(str(tmp_path / "mountinfo"))) == {"3", "locals/x", "5"}
    assert "/" in mount.roots()


def test_a_collection_spares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path / "storage"))
    storage.prepare()
    entries = {"#spec": "pantavisor-service-system@1", "device.json": {"groups": [{"name": "app"}]}}
    for rev in ("0", "3", "4"):
        storage.install(rev, parse_state(canonical.dumps(entries)))  # type: ignore[arg-type]  # it is JSON
        (tmp_path / f"storage/disks/rev/{rev}/web/data").mkdir(parents=True)
    storage.set_current("4")
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    monkeypatch.setattr(mount.roots, "__defaults__", (str(tmp_path / "mountinfo"),))
    Garbage(storage, Config(), str(tmp_path / "private")).collect()
    assert storage.revisions() == ["0", "4"]
    assert sorted(path.name for path in (tmp_path / "storage/disks/rev").iterdir()) == ["0", "3", "4"]
