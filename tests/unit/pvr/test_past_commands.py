"""Commands about the past and the health of a repository: log, undo, revert, show, plan, gc, fsck, put, dm-*."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pool() -> Path:
    return Path(os.environ["HOME"], ".pvr", "objects")


@pytest.fixture
def repo(pvr: Any, tree: Path) -> Path:
    """Two commits: web with one image, then with another."""
    pvr("init")
    (tree / "web").mkdir()
    run = {"#spec": "service-manifest-run@1", "name": "web", "type": "lxc", "group": "app"}
    run |= {"config": "lxc.container.conf", "root-volume": "root.squashfs"}
    (tree / "web/run.json").write_text(json.dumps(run))
    (tree / "web/lxc.container.conf").write_bytes(b"conf")
    for number in (1, 2):
        (tree / "web/root.squashfs").write_bytes(f"squash {number}".encode())
        pvr("add")
        pvr("commit", "-m", f"image {number}")
    return tree


def committed(repo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo / ".pvr/json").read_text())
    return found


# log, undo, revert


def test_undo_goes_back_state_by_state_and_leaves_the_files(pvr: Any, repo: Path) -> None:
    assert [row["message"] for row in pvr("log", "--json").json()] == ["image 2", "image 1", ""]
    pvr("undo")
    assert committed(repo)["web/root.squashfs"] == sha(b"squash 1")
    assert (repo / "web/root.squashfs").read_bytes() == b"squash 2"
    pvr("undo")
    assert committed(repo) == {"#spec": "pantavisor-service-system@1"}
    ran = pvr("undo", code=3)
    assert "no earlier state" in ran.err
    assert committed(repo) == {"#spec": "pantavisor-service-system@1"}


def test_undo_can_write_the_files_too(pvr: Any, repo: Path) -> None:
    pvr("undo", "--checkout")
    assert (repo / "web/root.squashfs").read_bytes() == b"squash 1"
    assert pvr("status").out == ""


def test_revert_is_a_change_of_its_own(pvr: Any, repo: Path) -> None:
    pvr("revert", "HEAD~1", "--checkout")
    assert committed(repo)["web/root.squashfs"] == sha(b"squash 1")
    pvr("undo")
    assert committed(repo)["web/root.squashfs"] == sha(b"squash 2")
    assert "action" in pvr("log", "--json").json()[0]


def test_revert_of_a_part_leaves_its_neighbours(pvr: Any, repo: Path) -> None:
    (repo / "webby.json").write_text("{}")
    pvr("add")
    pvr("commit", "-m", "neighbour")
    pvr("revert", "HEAD~2", "web")
    assert committed(repo)["web/root.squashfs"] == sha(b"squash 1")
    assert "webby.json" in committed(repo)


def test_revert_to_a_state_whose_objects_are_gone_changes_nothing(pvr: Any, repo: Path) -> None:
    before = committed(repo)
    (pool() / sha(b"squash 1")).unlink()
    assert "not in the pool" in pvr("revert", "HEAD~1", code=3).err
    assert committed(repo) == before
    assert pvr("revert", code=2).err


def test_the_log_is_short_for_people_and_whole_for_machines(pvr: Any, repo: Path) -> None:
    lines = pvr("log", "-n", "1").out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("HEAD~0 ")
    assert lines[0].endswith("commit   image 2")


# show, plan


def test_show_tells_parts_and_changes(pvr: Any, repo: Path) -> None:
    assert pvr("show").out.startswith("web                  container")
    assert pvr("show", "HEAD~1", "HEAD").out.splitlines()[1] == "    root.squashfs is changed (8 B)"
    assert pvr("show", "HEAD~2", "HEAD", "--json").json() == [{"details": [], "kind": "added", "name": "web"}]
    assert pvr("show", "a", "b", "c", code=2).err


def test_a_plan_tells_bytes_and_restarts(pvr: Any, repo: Path) -> None:
    running = str(repo.parent / "running.tgz")
    pvr("undo")
    pvr("export", running)
    pvr("revert", "HEAD~1")
    ran = pvr("plan", running, "--json").json()
    assert (ran["download-bytes"], ran["reboot"], ran["start"]) == (8, False, ["web"])
    text = pvr("plan", running).out
    assert "reboot    no" in text
    assert "web/root.squashfs  8 B" in text


def test_a_plan_says_when_the_device_would_refuse(pvr: Any, repo: Path) -> None:
    pvr("export", str(repo.parent / "running.tgz"))
    (repo / "web/run.json").write_text('{"name":"other"}')
    pvr("commit")
    assert "REFUSED" in pvr("plan", str(repo.parent / "running.tgz")).out


# gc


def test_gc_keeps_what_any_state_of_any_repository_needs(pvr: Any, repo: Path, home: Path) -> None:
    waste = pool() / sha(b"waste")
    waste.write_bytes(b"waste")
    dry = pvr("gc", str(repo), "--older-than", "0", "--json").json()
    assert dry["objects"] == [sha(b"waste")]
    assert waste.exists()
    done = pvr("gc", "--delete", str(repo), "--older-than", "0", "--json").json()
    assert done["objects"] == [sha(b"waste")]
    assert not waste.exists()
    assert (pool() / sha(b"squash 1")).exists(), "undo needs it"
    assert pvr("fsck").out == ""


def put_bare(folder: Path, sha: str, config: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    (folder / "json").write_text(json.dumps({"#spec": "pantavisor-service-system@1", "x": sha}))
    (folder / "config").write_text(json.dumps(config))


@pytest.mark.parametrize("place", ["bare", "dev/deep/bare", "proc/bare", ".git/bare"])
def test_gc_keeps_what_only_a_bare_repository_names(
    pvr: Any, repo: Path, home: Path, tmp_path: Path, place: str
) -> None:
    pool = home / ".pvr/objects"
    sha, loose = "ab" * 32, "cd" * 32
    for name in (sha, loose):
        (pool / name).write_bytes(b"x")
    put_bare(tmp_path / place, sha, {"ObjectsDir": str(pool)})
    put_bare(tmp_path / "other", loose, {"ObjectsDir": "pool-of-its-own"})
    done = pvr("gc", "--delete", "--older-than", "-1", "--json", str(tmp_path)).json()
    assert done["objects"] == [loose]
    assert (pool / sha).exists()


def test_gc_knows_an_unpacked_export_whose_objects_lie_beside_it(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "x.tar"))
    bare = tmp_path / "unpacked"
    bare.mkdir()
    with tarfile.open(tmp_path / "x.tar") as archive:
        archive.extractall(bare)
    (bare / "objects" / ("ab" * 32)).write_bytes(b"loose")
    flags = ("--older-than", "-1", "--objects", str(bare / "objects"), "--json", str(tmp_path))
    assert pvr("gc", "--delete", *flags).json()["objects"] == ["ab" * 32]
    pvr("inspect", str(bare))
    other = tmp_path / "clone"
    pvr("clone", str(bare), str(other))


def test_gc_removes_nothing_while_a_folder_may_not_be_read(
    pvr: Any, repo: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".pvr/objects" / ("ab" * 32)).write_bytes(b"loose")
    secret = repo / "secret"
    secret.mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(secret):
            raise PermissionError(13, "no", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    ran = pvr("gc", "--delete", "--older-than", "-1", str(repo), code=3)
    assert str(secret) in ran.err
    assert (home / ".pvr/objects" / ("ab" * 32)).exists()
    assert str(secret) in pvr("gc", "--older-than", "-1", str(repo)).err


def test_gc_spares_the_young_and_the_linked(pvr: Any, repo: Path) -> None:
    (pool() / sha(b"young")).write_bytes(b"young")
    (pool() / sha(b"linked")).write_bytes(b"linked")
    os.link(pool() / sha(b"linked"), repo.parent / "checkout")
    found = pvr("gc", str(repo), "--json").json()
    assert (found["objects"], found["young"], found["linked"]) == ([], 1, 1)


def test_gc_removes_nothing_when_a_repository_cannot_be_read(pvr: Any, repo: Path, tmp_path: Path) -> None:
    (pool() / sha(b"waste")).write_bytes(b"waste")
    other = tmp_path / "other"
    other.mkdir()
    pvr("-C", str(other), "init")
    (other / ".pvr/json").write_text("{broken")
    ran = pvr("gc", "--delete", str(tmp_path), "--older-than", "0", code=2)
    assert "damaged" in ran.err
    assert (pool() / sha(b"waste")).exists()


# fsck


def test_fsck_names_every_fault_and_mends_from_the_tree(pvr: Any, repo: Path) -> None:
    (pool() / sha(b"squash 2")).write_bytes(b"rotten")
    (pool() / sha(b"conf")).unlink()
    ran = pvr("fsck", code=3)
    assert ran.out.splitlines() == [
        f"missing  {sha(b'conf')}  web/lxc.container.conf",
        f"damaged  {sha(b'squash 2')}  web/root.squashfs",
    ]
    assert "--repair" in ran.err
    assert pvr("fsck", "--repair").out.startswith("repaired ")
    assert pvr("fsck").out == ""
    assert (pool() / sha(b"squash 2")).stat().st_ino != (repo / "web/root.squashfs").stat().st_ino


def test_fsck_fetches_from_elsewhere_what_the_tree_has_not(pvr: Any, repo: Path, tmp_path: Path) -> None:
    export = tmp_path / "whole.tgz"
    pvr("export", str(export))
    (pool() / sha(b"squash 2")).write_bytes(b"rotten")
    (repo / "web/root.squashfs").write_bytes(b"changed since")
    ran = pvr("fsck", "--repair", "--json", code=3)
    assert ran.json()["faults"] == [{"fault": "damaged", "path": "web/root.squashfs", "sha": sha(b"squash 2")}]
    assert pvr("fsck", "--repair", "--from", str(export)).out.startswith("repaired ")
    assert (pool() / sha(b"squash 2")).read_bytes() == b"squash 2"


def test_fsck_of_the_pool_finds_what_no_path_leads_to(pvr: Any, repo: Path) -> None:
    (pool() / ("a" * 64)).write_bytes(b"not that")
    assert pvr("fsck").out == ""
    assert pvr("fsck", "--pool", code=3).out == f"damaged  {'a' * 64}\n"


# put


def test_put_into_a_folder_is_the_inverse_of_get(pvr: Any, repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pvr("-C", str(other), "init", "--objects", str(tmp_path / "pool2"))
    pvr("put", str(other))
    assert (other / ".pvr/json").read_bytes() == (repo / ".pvr/json").read_bytes()
    assert (tmp_path / "pool2" / sha(b"squash 2")).read_bytes() == b"squash 2"
    pvr("-C", str(other), "checkout")
    assert (other / "web/root.squashfs").read_bytes() == b"squash 2"
    assert pvr("put", code=2).err


def test_put_into_a_bare_repository(pvr: Any, repo: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "objects").mkdir(parents=True)
    (bare / "json").write_text("{}")
    pvr("put", str(bare))
    assert json.loads((bare / "json").read_text()) == committed(repo)
    assert (bare / "objects" / sha(b"conf")).read_bytes() == b"conf"


def test_put_objects_wants_a_url(pvr: Any, repo: Path) -> None:
    assert "URL" in pvr("put-objects", "somewhere", code=2).err


# dm-verity


@pytest.mark.needs("verity")
def test_a_volume_is_converted_committed_and_applied_again(pvr: Any, repo: Path) -> None:
    (repo / "web/root.squashfs").write_bytes(bytes(8192))
    ran = pvr("dm-convert", "web/root.squashfs")
    assert ran.out.splitlines()[0] == "- Updated web/_dm/root.squashfs.json"
    pvr("commit", "-m", "verity")
    state = committed(repo)
    assert state["web/run.json"]["root-volume"] == "dm:root.squashfs"
    assert set(state) >= {"web/root.squashfs.hash", "web/_dm/root.squashfs.json"}
    assert pvr("dm-apply").out == "- Unchanged verity format web/_dm/root.squashfs.json\n"
    (repo / "web/root.squashfs").write_bytes(os.urandom(8192))
    assert pvr("dm-apply", "web").out == "- Updated web/_dm/root.squashfs.json\n"
    assert pvr("dm-convert", "web", code=2).err


def test_fastcopy_wants_two_trails(pvr: Any, repo: Path) -> None:
    assert "local" in pvr("fastcopy", str(repo), "me/device", code=7).err
