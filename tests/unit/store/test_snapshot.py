"""A status that was kept is told only where a full look would find the same."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brickless.store import snapshot, snapshot_write
from brickless.store.repo import Repository, Status


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    repo = Repository.init(str(tmp_path / "tree"))
    for path in ("a", "b.json", "web/run.json", "web/deep/data", "other/x"):
        target = Path(repo.dir, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text('{"a":1}')
    repo.add()
    repo.commit("first")
    return repo


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks seem to be taken a minute after all changes, so that none is too young."""
    now = time.time_ns
    monkeypatch.setattr(snapshot_write.time, "time_ns", lambda: now() + 60_000_000_000)


def told(status: Status) -> tuple[str, str]:
    return repr(status), f"json {status!r}"


def kept(repo: Repository) -> str | None:
    found = snapshot.answer(repo.dir)
    return None if found is None else found.decode()


def test_the_same_tree_has_the_answer_that_was_kept(repo: Repository, later: None) -> None:
    assert kept(repo) is None
    status = repo.status(told=told)
    assert kept(repo) == repr(status)
    assert snapshot.answer(repo.dir, as_json=True) == f"json {status!r}".encode()


def test_from_within_the_tree_by_two_processes(repo: Repository, later: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SHARED_FROM", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.chdir(repo.dir)
    status = repo.status(told=told)
    assert snapshot.answer(".") == repr(status).encode()
    for path in ("a", "web/run.json"):  # one in each half
        os.utime(path, ns=(1, 1))
        assert snapshot.answer(".") is None
        repo.status(told=told)
        assert snapshot.answer(".") is not None
        os.unlink(path)
        assert snapshot.answer(".") is None
        repo.status(told=told)


def same_size(path: Path) -> None:
    path.write_text('{"a":2}')
    os.utime(path, ns=(5, 5))


def replaced(path: Path, how: Callable[[Path], None]) -> None:
    path.rename(path.with_name("kept-aside"))
    how(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited to the same size": lambda tree: same_size(tree / "a"),
    "edited with the old mtime": lambda tree: os.utime(tree / "a", ns=(os.stat(tree / "a").st_atime_ns, 7)),
    "a new file": lambda tree: (tree / "web/deep/new").touch(),
    "a new folder with a file": lambda tree: ((tree / "n").mkdir(), (tree / "n/f").touch()),
    "a file that is gone": lambda tree: (tree / "other/x").unlink(),
    "a file renamed": lambda tree: (tree / "a").rename(tree / "z"),
    "a folder becomes a link": lambda tree: replaced(tree / "web", lambda p: p.symlink_to("kept-aside")),
    "a file becomes a link": lambda tree: replaced(tree / "a", lambda p: p.symlink_to("kept-aside")),
    "a file becomes a folder": lambda tree: replaced(tree / "a", lambda p: p.mkdir()),
    "another committed state": lambda tree: (tree / ".pvr/json").write_text('{"#spec":"pantavisor-service-system@1"}'),
    "other marks": lambda tree: (tree / ".pvr/new").write_text('{"q":{"ForceObject":false,"Sha":""}}'),
    "another configuration": lambda tree: (tree / ".pvr/config").write_text("{}"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_changed_has_no_answer(repo: Repository, later: None, name: str) -> None:
    repo.status(told=told)
    assert kept(repo) is not None
    CHANGES[name](Path(repo.dir))
    assert kept(repo) is None


def test_random_changes_never_get_another_answer_than_a_full_look(repo: Repository, later: None) -> None:
    rng = random.Random(3)
    answered = 0
    for number in range(300):
        files = [path for path in Path(repo.dir).rglob("*") if path.is_file() and ".pvr" not in path.parts]
        target = rng.choice(files)
        match rng.randrange(6):
            case 0:
                target.write_text("x" * rng.randrange(3))
                os.utime(target, ns=(number, number))
            case 1:
                (target.parent / f"n{rng.randrange(3)}").write_text("1")
            case 2 if len(files) > 2:
                target.unlink()
            case 3:
                (target.parent / f"d{rng.randrange(2)}").mkdir(exist_ok=True)
            case _:
                pass
        found = kept(repo)
        try:
            status = repo.status(told=told)
        except Exception:  # a broken inline file: there is no status, so there must be no answer either
            assert found is None
            target.write_text("{}")
            continue
        assert found in (None, repr(status))
        answered += found is not None
    assert answered > 20


def test_young_files_and_links_are_not_vouched_for(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(repo.dir, "a").write_text("young")
    repo.status(told=told)
    assert kept(repo) is None, "it could change once more within the same tick"
    now = time.time_ns
    monkeypatch.setattr(snapshot_write.time, "time_ns", lambda: now() + 60_000_000_000)
    Path(repo.dir, "link").symlink_to("a")
    repo.status(told=told)
    assert kept(repo) is None
    Path(repo.dir, "link").unlink()
    Path(repo.dir, "dangling").symlink_to("nowhere")
    repo.status(told=told)
    assert kept(repo) is None, "a file could appear behind it"


def test_a_damaged_snapshot_is_none(repo: Repository, later: None) -> None:
    repo.status(told=told)
    path = Path(repo.meta, snapshot.NAME)
    good = path.read_bytes()
    rng = random.Random(1)
    damaged = [good[: rng.randrange(len(good))] for _ in range(50)]
    for _ in range(200):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(data))
    for data in [b"", b"x" * 100, *damaged]:
        path.write_bytes(data)
        assert kept(repo) is None


def test_a_read_only_repository_keeps_none_and_says_the_status(
    repo: Repository, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(snapshot_write.atomic, "write_stream", refuse)
    assert repo.status(told=told).clean
    assert kept(repo) is None
