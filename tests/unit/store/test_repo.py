"""A repository on disk: bytes as the field's client writes them, changes whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError, UserError
from brickless.store import atomic, history, worktree
from brickless.store.entries import check_entries
from brickless.store.repo import Repository, RepositoryError
from brickless.store.selection import glob_match


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    (tmp_path / "tree").mkdir()
    return Repository.init(str(tmp_path / "tree"), objects_dir=str(tmp_path / "objects"))


def put(repo: Repository, path: str, data: bytes | str) -> Path:
    full = Path(repo.dir, path)
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(data.encode() if isinstance(data, str) else data)
    return full


def commit_all(repo: Repository, message: str = "m") -> None:
    repo.add()
    repo.commit(message)


# Bytes on disk (pvr.md 2.1, 2.2)


def test_init_writes_the_very_bytes_of_the_field(repo: Repository, tmp_path: Path) -> None:
    assert Path(repo.meta, "json").read_bytes() == b'{ "#spec": "pantavisor-service-system@1" }'
    assert Path(repo.meta, "config").read_text() == (
        '{\n\t"DefaultGetUrl": "",\n\t"DefaultPutUrl": "",\n\t"DefaultPostUrl": "",\n'
        f'\t"ObjectsDir": "{tmp_path}/objects",\n\t"AccessTokens": {{}},\n\t"RefreshTokens": {{}}\n}}'
    )
    assert Path(repo.meta).stat().st_mode & 0o777 == 0o755


def test_init_refuses_a_second_time_and_changes_nothing(repo: Repository) -> None:
    before = Path(repo.meta, "json").read_bytes()
    with pytest.raises(UserError, match="already"):
        Repository.init(repo.dir, spec="other@1")
    assert Path(repo.meta, "json").read_bytes() == before


def test_a_prepared_config_names_the_pool_relative_to_the_folder(tmp_path: Path) -> None:
    tree = tmp_path / "trails" / "0"
    (tree / ".pvr").mkdir(parents=True)
    (tree / ".pvr" / "config").write_text('{"ObjectsDir":"../../objects","Custom":1}')
    repo = Repository.init(str(tree))
    assert os.path.realpath(repo.objects.root) == str(tmp_path / "objects")
    assert json.loads((tree / ".pvr" / "config").read_text())["Custom"] == 1


def test_add_writes_marks_and_commit_writes_the_canonical_state(repo: Repository) -> None:
    put(repo, "web/run.json", '{"b": 1.5, "a": [null, "<é>"]}')
    put(repo, "web/data", b"\x00data")
    repo.add()
    marks = json.loads(Path(repo.meta, "new").read_bytes())
    assert marks["web/data"] == {"ForceObject": False, "Sha": sha(b"\x00data")}
    repo.commit("the message")
    state = '{"#spec":"pantavisor-service-system@1","web/data":"SHA","web/run.json":{"a":[null,"<é>"],"b":1.5E0}}'
    assert Path(repo.meta, "json").read_bytes() == state.replace("SHA", sha(b"\x00data")).encode()
    assert Path(repo.meta, "commitmsg").read_text() == "the message"
    assert not Path(repo.meta, "new").exists()
    assert repo.objects.verify(sha(b"\x00data"))


# Inline and objects (2.4)


def test_a_raw_json_stays_raw_until_it_was_removed_and_added_again(repo: Repository) -> None:
    put(repo, "a.json", "{ }")
    repo.add(["a.json"], raw=True)
    repo.commit("1")
    assert repo.pristine()["a.json"] == sha(b"{ }")
    put(repo, "a.json", '{"x":1}')
    commit_all(repo)
    assert repo.pristine()["a.json"] == sha(b'{"x":1}')
    Path(repo.dir, "a.json").unlink()
    repo.commit("2")
    put(repo, "a.json", '{"x":1}')
    commit_all(repo)
    assert repo.pristine()["a.json"] == {"x": 1}


def test_a_broken_inline_json_is_named_and_nothing_changes(repo: Repository) -> None:
    put(repo, "a.json", '{"x":1')
    repo.add()
    before = Path(repo.meta, "json").read_bytes()
    for action in (repo.status, lambda: repo.commit("m")):
        with pytest.raises(UserError, match=r"JSON Unmarshal \(.*a\.json\)"):
            action()
    assert Path(repo.meta, "json").read_bytes() == before


def test_null_means_removed_and_trailing_bytes_are_refused(repo: Repository) -> None:
    put(repo, "a.json", "null")
    commit_all(repo)
    assert "a.json" not in repo.pristine()
    put(repo, "b.json", "{} {}")
    repo.add()
    with pytest.raises(UserError, match=r"b\.json"):
        repo.commit("m")


def test_big_numbers_and_nulls_survive_a_commit(repo: Repository) -> None:
    put(repo, "a.json", '{"n":9007199254740993,"docker":{"Entrypoint":null,"l":[1,null]}}')
    commit_all(repo)
    assert b'"Entrypoint":null' in repo.pristine_bytes()
    assert b"9007199254740993" in repo.pristine_bytes()
    assert repo.status().clean


# Scan, add, status (2.5)


def test_status_groups_and_sorts(repo: Repository) -> None:
    for name in ("keep", "change", "remove"):
        put(repo, name, name)
    commit_all(repo)
    put(repo, "change", "other")
    put(repo, "z/new", "1")
    put(repo, "b/new", "1")
    repo.add(["z", "b/*"])
    Path(repo.dir, "remove").unlink()
    put(repo, "untracked", "")
    status = repo.status()
    assert status == (["b/new", "z/new"], ["remove"], ["change"], ["untracked"])
    assert not status.clean


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("a/*", "a/b", True),
        ("a/?.json", "a/x.json", True),
        ("a/[bc]", "a/c", True),
        ("**", "a/b", False),
        ("*/*", "a/b", True),
    ],
)
def test_globs_are_the_shells(pattern: str, path: str, expected: bool) -> None:
    assert glob_match(pattern, path) is expected


def test_add_recurses_and_says_what_matched_nothing(repo: Repository) -> None:
    put(repo, "a/b/c", "")
    put(repo, "[odd]", "")
    put(repo, ".pv/x", "")
    put(repo, ".pvfoo", "")
    assert repo.add(["a", "none*", os.path.join(repo.dir, "[odd]")])[:3] == (["[odd]", "a/b/c"], [], ["none*"])
    assert repo.add(["."]).paths == ["[odd]", "a/b/c"]
    assert repo.add([".pvr", ".pv/x"]).paths == []


def test_special_files_and_bad_names_are_skipped_with_a_reason(repo: Repository) -> None:
    put(repo, "real", "content")
    os.symlink("real", Path(repo.dir, "link"))
    os.symlink("nowhere", Path(repo.dir, "dangling"))
    os.symlink(".", Path(repo.dir, "loop"))
    os.mkfifo(Path(repo.dir, "pipe"))
    put(repo, "bad\nname", "")
    added = repo.add()
    assert added.paths == ["link", "real"]
    assert sorted(path for path, _ in added.skipped) == ["bad\nname", "link", "pipe"]


def test_empty_folders_are_no_entries(repo: Repository) -> None:
    Path(repo.dir, "empty").mkdir()
    assert repo.add().paths == []


# Nothing is hashed twice


def test_an_unchanged_file_is_not_read_again(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    full = put(repo, "big", b"x" * 1000)
    os.utime(full, (1, 1))
    commit_all(repo)
    settle(repo, full)
    repo.status()

    def refuse(self: object, root: str, path: str) -> str:
        pytest.fail(f"{path} was read again")

    monkeypatch.setattr(worktree.StatCache, "hash", refuse)
    assert repo.status().clean


def settle(repo: Repository, full: Path) -> None:
    """Wait until the file is old enough to be remembered: its clock tick has passed."""
    import time

    while time.time_ns() - full.stat().st_ctime_ns < 60_000_000:
        os.sched_yield()


def test_a_change_within_the_same_tick_is_seen(repo: Repository) -> None:
    full = put(repo, "f", "one")
    commit_all(repo)
    for number in range(20):
        info = full.stat()
        full.write_text(f"{number:03}"[:3])
        os.utime(full, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert repo.status().changed == ["f"], "same size, same mtime, other content"


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"version":1,"files":[]}', b'{"version":1,"files":{"f":[1]}}', b"\xff"]
)
def test_a_damaged_cache_is_no_cache(repo: Repository, damage: bytes) -> None:
    put(repo, "f", "content")
    commit_all(repo)
    Path(repo.meta, "stat-cache").write_bytes(damage)
    assert repo.status().clean
    put(repo, "f", "changed")
    assert repo.status().changed == ["f"]


# Damage (issue 2: a clear error, the repository unchanged)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'"x"', b'{"../x":"%s"}' % (b"0" * 64), b'{"a":"short"}', b'{"a":1}', b"\xff\xfe"],
)
def test_a_damaged_state_is_an_error_that_says_where(repo: Repository, damage: bytes) -> None:
    Path(repo.meta, "json").write_bytes(damage)
    put(repo, "f", "x")
    for action in (repo.status, repo.working, lambda: repo.commit("m"), repo.checkout):
        with pytest.raises(RepositoryError, match=r"\.pvr/json is damaged"):
            action()
    assert Path(repo.meta, "json").read_bytes() == damage


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a":1}'])
def test_a_damaged_new_is_an_error_that_says_where(repo: Repository, damage: bytes) -> None:
    Path(repo.meta, "new").write_bytes(damage)
    with pytest.raises(RepositoryError, match=r"\.pvr/new is damaged"):
        repo.status()
    assert Path(repo.meta, "new").read_bytes() == damage


def test_a_state_that_is_a_folder_or_missing(repo: Repository) -> None:
    Path(repo.meta, "json").unlink()
    with pytest.raises(RepositoryError, match="missing"):
        repo.status()
    Path(repo.meta, "json").mkdir()
    with pytest.raises(RepositoryError, match="bad state"):
        repo.status()


def test_a_damaged_config_is_an_error(repo: Repository) -> None:
    Path(repo.meta, "config").write_text("{")
    with pytest.raises(RepositoryError, match="config is damaged"):
        Repository.open(repo.dir)


def test_a_folder_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a pvr repository"):
        Repository.open(str(tmp_path))


class Full(atomic.Files):
    """A disk that takes no more data."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_during_a_commit_changes_nothing(repo: Repository) -> None:
    put(repo, "f", "x" * 10_000)
    repo.add()
    before = repo.pristine_bytes()
    repo.objects.files = Full()
    with pytest.raises(OSError, match="No space"):
        repo.commit("m")
    assert repo.pristine_bytes() == before
    assert Path(repo.meta, "new").exists()
    assert os.listdir(repo.objects.root) == []
    repo.objects.files = atomic.FILES
    repo.commit("m")
    assert repo.status().clean


def test_many_objects_are_stored_like_few(repo: Repository) -> None:
    for number in range(40):
        put(repo, f"d/{number}", f"content {number % 30}")
    commit_all(repo)
    assert len(list(repo.objects.shas())) == 30
    assert all(repo.objects.verify(name) for name in repo.objects.shas())
    assert not [name for name in os.listdir(repo.objects.root) if atomic.is_temporary(name)]


# Checkout (3.4)


def test_a_checkout_writes_what_the_field_writes(repo: Repository) -> None:
    put(repo, "a.json", '{"z":{},"l":[],"n":[1,{"x":"<&>\u2028"}],"f":1.50,"e":1e21,"s":1e-7}')
    put(repo, "d/obj", "content")
    commit_all(repo)
    Path(repo.dir, "a.json").write_text("{}")
    Path(repo.dir, "d/obj").unlink()
    put(repo, "untracked", "stays")
    repo.checkout()
    assert Path(repo.dir, "a.json").read_text() == (
        '{\n    "e": 1e+21,\n    "f": 1.5,\n    "l": [],\n    "n": [\n        1,\n        {\n'
        '            "x": "\\u003c\\u0026\\u003e\\u2028"\n        }\n    ],\n    "s": 1e-7,\n    "z": {}\n}'
    )
    assert Path(repo.dir, "d/obj").read_text() == "content"
    assert Path(repo.dir, "untracked").exists()
    assert repo.status().clean
    repo.checkout(canonical_json=True)
    assert Path(repo.dir, "a.json").read_bytes().startswith(b'{"e":1000000000000000000000,"f":1.5E0')


def test_a_hardlink_checkout_is_the_pools_inode_read_only(repo: Repository) -> None:
    put(repo, "f", "content")
    commit_all(repo)
    repo.checkout(hardlink=True)
    info = Path(repo.dir, "f").stat()
    assert info.st_ino == os.stat(repo.objects.path(sha(b"content"))).st_ino
    assert info.st_mode & 0o777 == 0o444
    repo.checkout()
    assert Path(repo.dir, "f").stat().st_ino != info.st_ino
    assert Path(repo.dir, "f").read_text() == "content"


def test_a_missing_or_damaged_object_stops_a_checkout(repo: Repository) -> None:
    put(repo, "a", "first")
    put(repo, "b", "second")
    commit_all(repo)
    pool = Path(repo.objects.path(sha(b"second")))
    put(repo, "b", "local change")
    pool.write_bytes(b"sEcond")
    with pytest.raises(UserError, match="wrong sha"):
        repo.checkout()
    assert Path(repo.dir, "b").read_text() == "local change"
    pool.unlink()
    with pytest.raises(UserError, match="not in the pool"):
        repo.checkout()
    assert sorted(os.listdir(repo.dir)) == [".pvr", "a", "b"]


def test_a_checkout_never_leaves_the_tree(repo: Repository, tmp_path: Path) -> None:
    put(repo, "d/f", "content")
    commit_all(repo)
    (tmp_path / "outside").mkdir()
    Path(repo.dir, "d/f").unlink()
    Path(repo.dir, "d").rmdir()
    Path(repo.dir, "d").symlink_to(tmp_path / "outside")
    with pytest.raises(HostileInputError, match="symlink"):
        repo.checkout()
    assert os.listdir(tmp_path / "outside") == []


def test_a_folder_in_the_way_is_named(repo: Repository) -> None:
    put(repo, "f", "content")
    commit_all(repo)
    Path(repo.dir, "f").unlink()
    Path(repo.dir, "f").mkdir()
    with pytest.raises(UserError, match="f cannot be written"):
        repo.checkout()


# History


def test_every_change_of_the_state_is_in_the_history(repo: Repository) -> None:
    put(repo, "f", "1")
    commit_all(repo, "one")
    put(repo, "f", "2")
    commit_all(repo, "two")
    repo.commit("nothing")
    found = history.entries(repo.meta)
    assert [(entry.action, entry.message) for entry in found] == [("start", ""), ("commit", "one"), ("commit", "two")]
    assert Path(history.state_path(repo.meta, found[-1].sha)).read_bytes() == repo.pristine_bytes()


def test_the_history_is_bounded(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_ENTRIES", 3)
    for number in range(6):
        repo.replace_state({"#spec": "x", "a.json": number}, action="test")
    found = history.entries(repo.meta)
    assert len(found) == 3
    assert len(os.listdir(os.path.join(repo.meta, "history"))) == 4


# Entries


@pytest.mark.parametrize(
    "entries",
    [
        {"/abs": "0" * 64},
        {"../up": "0" * 64},
        {"a/../../b": "0" * 64},
        {".pvr/json": {}},
        {"": {}},
        {"a": "0" * 63},
        {"a": None},
        {"a": "0" * 64, "a/b": "0" * 64},
        {"x.json": {}, "x.json/y": "0" * 64},
    ],
    ids=str,
)
def test_entries_that_cannot_be_files_are_refused(entries: dict[str, object]) -> None:
    with pytest.raises(HostileInputError, match="a state"):
        check_entries(entries, source="a state")  # type: ignore[arg-type]  # plain values that the test knows


NAMES = st.text(alphabet="ab.é ", min_size=1, max_size=4).filter(lambda n: n.strip(". ") and not n.startswith(".pv"))
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=30), max_size=8
).filter(lambda tree: not any(a != b and b.startswith(a + "/") for a in tree for b in tree))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TREES)
def test_what_is_committed_is_what_is_checked_out(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("repo")
    repo = Repository.init(str(root / "a"), objects_dir=str(root / "objects"))
    for path, data in tree.items():
        put(repo, path, data)
    commit_all(repo)
    other = Repository.init(str(root / "b"), objects_dir=str(root / "objects"))
    other.replace_state(repo.pristine(), action="test")
    other.checkout()
    found = {path: Path(other.dir, path).read_bytes() for path in worktree.scan(other.dir)}
    assert found == tree
    assert other.status().clean
