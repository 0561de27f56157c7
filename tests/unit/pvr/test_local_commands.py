"""Commands that need no network: texts, exit codes, archives, bad input."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
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
    """A repository with one app, an object and a neighbour, committed."""
    pvr("init")
    (tree / "web").mkdir()
    (tree / "web" / "run.json").write_text('{"name":"web","n":1}')
    (tree / "web" / "root.squashfs").write_bytes(b"squash")
    (tree / "webby.json").write_text('{"neighbour":true}')
    pvr("add")
    pvr("commit", "-m", "first")
    return tree


# Texts (1.4)


def test_a_commit_says_what_it_does_on_stderr(pvr: Any, repo: Path) -> None:
    (repo / "web/run.json").write_text('{"name":"web","n":2}')
    (repo / "web/root.squashfs").write_bytes(b"other")
    (repo / "webby.json").unlink()
    (repo / "new").write_bytes(b"new")
    (repo / "new.json").write_bytes(b"{}")
    pvr("add")
    assert pvr("status").out == "A new\nA new.json\nD webby.json\nC web/root.squashfs\nC web/run.json\n"
    ran = pvr("commit")
    assert ran.out == ""
    assert ran.err.splitlines() == [
        f"Adding raw {repo}/new with {sha(b'new')}",
        "Adding inline new.json",
        f"Committing (raw): {repo}/web/root.squashfs",
        f"Committing (inline): {repo}/web/run.json",
        "Removing webby.json",
    ]
    assert pvr("status").out == ""


def test_a_checkpoint_is_a_new_state_each_time(pvr: Any, repo: Path) -> None:
    pvr("commit", "--checkpoint")
    assert list(json.loads((repo / "checkpoint.json").read_text())) == ["major"]
    assert "checkpoint.json" in json.loads((repo / ".pvr/json").read_text())
    assert (repo / "checkpoint.json").stat().st_mode & 0o777 == 0o640


def test_json_and_diff_print_the_fields_text(pvr: Any, repo: Path) -> None:
    (repo / "web/run.json").write_text('{"name":"<web>","n":1.5}')
    assert pvr("diff").out == '{\n\t"web/run.json": {\n\t\t"n": 1.5,\n\t\t"name": "\\u003cweb\\u003e"\n\t}\n}\n'
    assert '\t"web/run.json": {\n\t\t"n": 1.5E0,\n\t\t"name": "<web>"\n\t},\n' in pvr("json").out
    assert pvr("json", "-c").out.startswith('{"#spec":"pantavisor-service-system@1","web/root.squashfs":"')
    pvr("checkout")
    assert pvr("diff").out == "{}\n"


def test_inspect_reads_this_another_and_an_export(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "x.tgz"))
    pvr("export", str(tmp_path / "x.tar"))
    places = [[], ["."], [".pvr"], [f"{tmp_path}/x.tgz"], [f"{tmp_path}/x.tar"]]
    assert {pvr("inspect", *where, "-c").out for where in places} == {(repo / ".pvr/json").read_text() + "\n"}
    assert pvr("inspect").out.startswith('{\n\t"#spec"')
    pvr("inspect", "./nowhere", code=7)
    pvr("inspect", str(repo / "web" / "run.json"), code=7)


# Between repositories (3.3 to 3.5)


def test_clone_get_and_merge_between_folders(pvr: Any, repo: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert pvr("clone", str(repo), str(target)).out == f"Successfully cloned: {target}\n"
    assert (target / "web/root.squashfs").read_bytes() == b"squash"
    assert (target / ".pvr/json").read_bytes() == (repo / ".pvr/json").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["copy", "home", "tree"]

    (repo / "web/extra.json").write_text("{}")
    (repo / "webby.json").write_text('{"neighbour":2}')
    pvr("add")
    pvr("commit")
    assert pvr("-C", str(target), "get", f"{repo}#web").out == (
        f"\nImported 0 objects to {pool()}\n\n\nRun pvr checkout to checkout the changed files into the workspace.\n"
    )
    state = json.loads((target / ".pvr/json").read_text())
    assert "web/extra.json" in state
    assert state["webby.json"] == {"neighbour": True}, "#web must not touch webby.json"
    assert json.loads((target / ".pvr/config").read_text())["DefaultGetUrl"] == f"{repo}#web"
    pvr("-C", str(target), "merge", f"{repo}#-web")
    assert json.loads((target / ".pvr/json").read_text())["webby.json"] == {"neighbour": 2}


def test_a_clone_keeps_its_hands_off_what_exists(pvr: Any, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "f").write_text("mine")
    pvr("clone", str(repo), str(tmp_path / "full"), code=9)
    (tmp_path / "empty").mkdir()
    pvr("clone", str(repo), str(tmp_path / "empty"))
    assert (tmp_path / "full" / "f").read_text() == "mine"
    pvr("clone", code=2)
    pvr("clone", "one-word", code=7)
    pvr("clone", str(tmp_path), str(tmp_path / "x"), code=7)
    assert sorted(os.listdir(tmp_path)) == ["empty", "full", "home", "tree"]


def test_a_get_of_what_is_broken_changes_nothing(pvr: Any, repo: Path, tmp_path: Path) -> None:
    before = (repo / ".pvr/json").read_bytes()
    other = tmp_path / "other"
    pvr("clone", str(repo), str(other), "-o", str(tmp_path / "pool"))
    (other / "web/root.squashfs").write_bytes(b"v2")
    pvr("-C", str(other), "commit")
    broken = tmp_path / "pool" / sha(b"v2")
    broken.write_bytes(b"v3")
    assert "damaged object" in pvr("get", str(other), code=3).err
    broken.unlink()
    assert "not in" in pvr("get", str(other), code=3).err
    (other / ".pvr/json").write_text('{"../escape": "' + "0" * 64 + '"}')
    assert "not allowed" in pvr("get", str(other), code=3).err
    assert (repo / ".pvr/json").read_bytes() == before
    assert not (pool() / sha(b"v2")).exists()
    assert "has nothing below" in pvr("merge", f"{repo}#none").err


# Export and import (3.9)


def test_an_export_is_reproducible_and_starts_with_the_state(pvr: Any, repo: Path, tmp_path: Path) -> None:
    for name in ("a.tgz", "b.tgz", "c.tar"):
        pvr("export", str(tmp_path / name))
        os.utime(pool() / sha(b"squash"))
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tgz").read_bytes()
    with tarfile.open(tmp_path / "c.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == ["json", f"objects/{sha(b'squash')}"]
    assert members[0].mode == 0o600
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    assert gzip.decompress((tmp_path / "a.tgz").read_bytes()) == (tmp_path / "c.tar").read_bytes()


def test_parts_are_strict_and_keep_the_spec(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", "--parts", "web", str(tmp_path / "web.tar"))
    state = json.loads(pvr("inspect", str(tmp_path / "web.tar"), "-c").out)
    assert sorted(state) == ["#spec", "web/root.squashfs", "web/run.json"]


def test_an_export_comes_back_the_same(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "x.tgz"))
    (tmp_path / "in").mkdir()
    here = ("-C", str(tmp_path / "in"))
    pvr(*here, "-c", str(tmp_path / "cfg"), "init")
    pvr(*here, "import", str(tmp_path / "x.tgz"))
    pvr(*here, "checkout")
    assert (tmp_path / "in/.pvr/json").read_bytes() == (repo / ".pvr/json").read_bytes()
    assert (tmp_path / "in/web/root.squashfs").read_bytes() == b"squash"


def archive_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                out.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


STATE = b'{"#spec":"pantavisor-service-system@1"}'
HOSTILE: dict[str, dict[str, bytes | tarfile.TarInfo]] = {
    "escape": {"json": STATE, "../escaped": b"x"},
    "absolute": {"json": STATE, "/tmp/escaped": b"x"},
    "object-escape": {"json": STATE, "objects/../../escaped": b"x"},
    "wrong-hash": {"json": STATE, f"objects/{'0' * 64}": b"x"},
    "symlink": {"json": STATE, "l": special(f"objects/{'0' * 64}", tarfile.SYMTYPE)},
    "hard-link": {"json": STATE, "l": special("json2", tarfile.LNKTYPE)},
    "device": {"json": STATE, "l": special(f"objects/{'0' * 64}", tarfile.CHRTYPE)},
    "unknown-member": {"json": STATE, "hooks/run": b"x"},
    "no-state": {f"objects/{sha(b'x')}": b"x"},
    "bad-state": {"json": b"{"},
    "escaping-state": {"json": b'{"../x":"' + b"0" * 64 + b'"}'},
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_and_changes_nothing(
    members: dict[str, bytes | tarfile.TarInfo], pvr: Any, repo: Path, tmp_path: Path
) -> None:
    before = (repo / ".pvr/json").read_bytes()
    path = archive_of(tmp_path / "x.tar", members)
    pvr("import", str(path), code=3)
    assert (repo / ".pvr/json").read_bytes() == before
    assert not list(tmp_path.rglob("escaped"))
    assert set(os.listdir(pool())) <= {sha(b"squash"), sha(b"x")}


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(keep: float, pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "x.tgz"))
    data = (tmp_path / "x.tgz").read_bytes()
    (tmp_path / "x.tgz").write_bytes(data[: int(len(data) * keep)])
    pvr("import", str(tmp_path / "x.tgz"), code=3)


# Bad input (issue 2, last bar)


@pytest.mark.parametrize("name", ["json", "new", "config"])
def test_a_corrupt_repository_is_exit_2_and_stays_as_it_is(name: str, pvr: Any, repo: Path) -> None:
    (repo / ".pvr" / name).write_bytes(b'{"half')
    for args in (["status"], ["commit"], ["json"], ["diff"]):
        assert f".pvr/{name} is damaged" in pvr(*args, code=2).err
    assert (repo / ".pvr" / name).read_bytes() == b'{"half'


def test_a_missing_object_is_named_by_export_and_checkout(pvr: Any, repo: Path, tmp_path: Path) -> None:
    os.unlink(pool() / sha(b"squash"))
    assert "web/root.squashfs" in pvr("checkout", code=3).err
    assert sha(b"squash") in pvr("export", str(tmp_path / "x.tgz"), code=3).err
    assert sorted(os.listdir(tmp_path)) == ["home", "tree"]


def test_a_held_lock_is_named(pvr: Any, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brickless.store.repo.LOCK_TIMEOUT_S", 0.05)
    code = (
        "import sys\nfrom brickless.store.lock import lock\n"
        "with lock(sys.argv[1], timeout_s=0):\n print(1, flush=True)\n sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(repo / ".pvr/lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        assert f"locked by process {holder.pid}" in pvr("commit", code=3).err
        assert pvr("status").code == 0
    pvr("commit")


def limited(tree: Path, size_bytes: int, *args: str) -> subprocess.CompletedProcess[str]:
    """`pvr` in a process that may write only small files: what a full disk looks like."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes})); "
        "from brickless.pvr.main import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-B", "-c", code, *args]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def committed(repo: Path) -> dict[Path, bytes]:
    ours = {"lock", "stat-cache"}
    return {path: path.read_bytes() for path in (repo / ".pvr").rglob("*") if path.is_file() and path.name not in ours}


def test_a_disk_that_takes_no_more_leaves_the_repository_as_it_was(pvr: Any, repo: Path, tmp_path: Path) -> None:
    (repo / "large").write_bytes(os.urandom(100_000))
    pvr("add")
    before, objects = committed(repo), sorted(os.listdir(pool()))
    ran = limited(repo, 50_000, "commit")
    assert ran.returncode == 3
    assert "Nothing was changed" in ran.stderr
    assert committed(repo) == before
    assert sorted(os.listdir(pool())) == objects
    pvr("commit")
    assert limited(repo, 50_000, "export", str(tmp_path / "x.tar")).returncode == 3
    assert sorted(os.listdir(tmp_path)) == ["home", "tree"]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_commit_leaves_a_working_repository(number: int, expected: int, pvr: Any, repo: Path) -> None:
    code = (
        "import os, sys\n"
        "from brickless.store import repo\n"
        "repo.Repository._store_objects = lambda *_: os.kill(os.getpid(), int(sys.argv[1]))\n"
        "from brickless.pvr.main import run\n"
        "sys.exit(run(['commit']))\n"
    )
    (repo / "web/root.squashfs").write_bytes(b"changed")
    before = committed(repo)
    command = [sys.executable, "-c", code, str(int(number))]
    ran = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert ran.returncode == expected, ran.stderr
    assert "run the same command again" in ran.stderr
    assert committed(repo) == before
    pvr("commit")
    assert pvr("status").out == ""


def test_a_reader_that_leaves_is_no_error(repo: Path) -> None:
    script = f"{sys.executable} -m brickless.pvr.main json | head -c 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", script], cwd=repo, capture_output=True, text=True, check=False)
    assert ran.stdout == "{0\n"
    assert ran.stderr == ""


def test_a_read_only_repository_is_readable(pvr: Any, repo: Path) -> None:
    (repo / "web/run.json").write_text("{}")
    folders = [repo / ".pvr", repo / ".pvr/history", repo]
    for folder in folders:
        folder.chmod(0o555)
    (repo / ".pvr" / "lock").chmod(0o444)
    try:
        assert pvr("status").out == "C web/run.json\n"
        # The superuser writes in spite of the modes.
        if not os.access(repo / ".pvr", os.W_OK):
            before = committed(repo)
            assert "permissions" in pvr("commit", code=3).err
            assert committed(repo) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


# History, fsck, gc, put, deploy


def test_log_show_diff_and_undo_use_the_history(pvr: Any, repo: Path) -> None:
    (repo / "web/run.json").write_text('{"name":"web","n":2}')
    pvr("commit", "-m", "second")
    assert [line.split()[-1] for line in pvr("log").out.splitlines()] == ["second", "first", "start"]
    assert json.loads(pvr("diff", "HEAD~1", "HEAD").out) == {"web/run.json": {"n": 2}}
    assert "~ web" in pvr("show", "HEAD~1", "HEAD").out
    assert "web" in pvr("show").out
    first = pvr("log", "--json").json()[1]["sha"]
    assert pvr("diff", first[:10], "HEAD~1").out == "{}\n"
    pvr("undo")
    assert json.loads((repo / ".pvr/json").read_text())["web/run.json"]["n"] == 1
    pvr("revert", "HEAD~1")
    assert json.loads((repo / ".pvr/json").read_text())["web/run.json"]["n"] == 2
    assert "HEAD~99" in pvr("diff", "HEAD~99", code=3).err


def test_fsck_names_every_bad_object_and_repairs_from_elsewhere(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "good.tgz"))
    assert pvr("fsck", "--json").json() == {"clean": True, "faults": [], "repaired": []}
    (pool() / sha(b"squash")).write_bytes(b"sQuash")
    ran = pvr("fsck", code=3)
    assert ran.out == f"damaged  {sha(b'squash')}  web/root.squashfs\n"
    assert "1 object(s)" in ran.err
    pvr("fsck", "--from", str(tmp_path / "good.tgz"))
    assert (pool() / sha(b"squash")).read_bytes() == b"squash"


def test_gc_lists_first_and_keeps_what_any_repository_names(pvr: Any, repo: Path, tmp_path: Path) -> None:
    (repo / "web/root.squashfs").write_bytes(b"second")
    pvr("commit")
    (pool() / sha(b"loose")).write_bytes(b"loose")
    flags = ["--older-than", "-1", str(tmp_path), "--json"]
    assert pvr("gc", *flags).json()["objects"] == [sha(b"loose")]
    assert (pool() / sha(b"loose")).exists()
    assert pvr("gc", "--delete", *flags).json()["deleted"] is True
    assert sorted(os.listdir(pool())) == sorted([sha(b"squash"), sha(b"second")]), "the history keeps its objects"
    assert pvr("gc", "--delete", "--json", str(tmp_path)).json()["objects"] == []
    pvr("gc", str(tmp_path / "misspelt"), code=3)


def test_a_local_put_is_the_inverse_of_a_local_get(pvr: Any, repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pvr("-C", str(other), "-c", str(tmp_path / "cfg"), "init")
    pvr("put", str(other))
    assert (other / ".pvr/json").read_bytes() == (repo / ".pvr/json").read_bytes()
    assert (tmp_path / "cfg/objects" / sha(b"squash")).read_bytes() == b"squash"
    bare = tmp_path / "bare"
    (bare / "objects").mkdir(parents=True)
    (bare / "json").write_text("{}")
    pvr("put", str(bare))
    assert (bare / "json").read_bytes() == (repo / ".pvr/json").read_bytes()
    assert (bare / "objects" / sha(b"squash")).exists()


def test_deploy_builds_a_revision_of_hard_links(pvr: Any, repo: Path, tmp_path: Path) -> None:
    (repo / "bsp").mkdir()
    for name, data in (("kernel.img", b"kernel"), ("pantavisor", b"initrd"), ("board.dtb", b"fdt"), ("more", b"addon")):
        (repo / "bsp" / name).write_bytes(data)
    (repo / "bsp/run.json").write_text(
        '{"initrd":"pantavisor","linux":"kernel.img","fdt":"board.dtb","addons":["more"]}'
    )
    pvr("add")
    pvr("commit")
    pvr("export", str(tmp_path / "all.tgz"))
    target = tmp_path / "storage/trails/0"
    (target / ".pvr").mkdir(parents=True)
    (target / ".pvr/config").write_text('{"ObjectsDir":"../../objects"}')
    (target / "stale").mkdir()
    (target / "stale/file").write_text("from before")
    out = pvr("deploy", str(target), f"{tmp_path}/all.tgz#bsp", f"{tmp_path}/all.tgz#web").out.splitlines()
    assert out[0] == "Starting deployment ..."
    assert out[-1] == str(target)
    assert not (target / "stale").exists()
    assert not (target / "webby.json").exists()
    objects = tmp_path / "storage/objects"
    links = {".pv/pv-kernel.img": b"kernel", ".pv/pv-initrd.img": b"initrd", ".pv/pv-fdt.dtb": b"fdt"}
    links[".pv/pv-initrd.img.0"] = b"addon"
    for path, data in {"bsp/kernel.img": b"kernel", **links}.items():
        assert (target / path).stat().st_ino == (objects / sha(data)).stat().st_ino
        assert (target / path).stat().st_mode & 0o777 == 0o444
    assert (target / "web/run.json").read_bytes() == b'{"n":1,"name":"web"}'
    assert pvr("deploy", str(target), f"{tmp_path}/all.tgz").code == 0
    assert (target / "webby.json").exists()
    pvr("deploy", code=101)


def test_global_config_reads_and_writes_the_fields_file(pvr: Any, home: Path) -> None:
    assert pvr("global-config", "--json").json() == {"AutoUpgrade": True, "DistributionTag": "develop", "Spec": "1"}
    pvr("global-config", "AutoUpgrade=false", "DistributionTag=stable")
    text = (home / ".pvr/config.json").read_text()
    assert text == '{"Spec":"1","AutoUpgrade":false,"DistributionTag":"stable"}'
    pvr("global-config", "AutoUpgrade=yes", code=3)
    pvr("global-config", "Nonsense=1", code=3)
    assert (home / ".pvr/config.json").read_text() == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, pvr: Any) -> None:
    assert "_PVR_COMPLETE" in pvr("completion", shell).out
