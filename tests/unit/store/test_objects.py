"""The object store: a name is a promise about the content."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.store import atomic
from brickless.store.objects import ObjectStore
from brickless.testkit.power_cut import PowerCutError, PowerCutFiles


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects"))


def test_what_is_added_is_found_under_its_hash(store: ObjectStore) -> None:
    data = b"hello" * 100_000
    name = store.add(iter([data[:7], data[7:]]))
    assert name == sha(data)
    assert store.has(name)
    assert store.verify(name)
    assert store.size_bytes(name) == len(data)
    with store.open(name) as stream:
        assert stream.read() == data
    assert list(store.shas()) == [name]
    assert store.add([b"never read"], sha=name) == name


@pytest.mark.parametrize(
    ("sha_", "size", "max_bytes"),
    [(sha(b"other"), None, None), (None, 3, None), (None, 50, None), (None, None, 3)],
    ids=["wrong-hash", "longer-than-announced", "shorter-than-announced", "over-the-bound"],
)
def test_a_lie_leaves_nothing(store: ObjectStore, sha_: str | None, size: int | None, max_bytes: int | None) -> None:
    with pytest.raises(HostileInputError):
        store.add([b"four", b"more"], sha=sha_, size=size, max_bytes=max_bytes)
    assert os.listdir(store.root) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "a" * 63, "A" * 64, "a" * 65, "a" * 63 + "\n", "/" + "a" * 63])
def test_what_is_no_hash_names_no_file(store: ObjectStore, name: str) -> None:
    with pytest.raises(HostileInputError):
        store.path(name)


def test_a_power_cut_during_add_never_leaves_a_wrong_object(tmp_path: Path) -> None:
    data = b"payload" * 1000
    for stop in range(200):
        root = tmp_path / str(stop)
        files = PowerCutFiles(stop)
        store = ObjectStore(str(root), files=files)
        try:
            store.add([data[:100], data[100:]])
            finished = True
        except PowerCutError:
            finished = False
        files.settle()
        after = ObjectStore(str(root))
        for name in after.shas():
            assert after.verify(name), f"a broken object has a name after {stop} calls"
        if finished:
            assert after.has(sha(data))
            return
        assert after.add([data]) == sha(data)
    pytest.fail("never finished")


def test_an_object_that_is_a_symlink_is_not_one(store: ObjectStore, tmp_path: Path) -> None:
    store.prepare()
    (tmp_path / "secret").write_bytes(b"x")
    os.symlink(tmp_path / "secret", store.path(sha(b"x")))
    assert not store.has(sha(b"x"))
    assert not store.verify(sha(b"x"))
    with pytest.raises(OSError, match="symbolic"):
        store.open(sha(b"x"))


def test_verify_finds_a_flipped_bit(store: ObjectStore) -> None:
    name = store.add([b"data"])
    Path(store.path(name)).write_bytes(b"dbta")
    assert not store.verify(name)
    store.remove(name)
    assert not store.has(name)


def test_a_link_is_the_same_inode_and_makes_its_parents(store: ObjectStore, tmp_path: Path) -> None:
    name = store.add([b"data"])
    dest = tmp_path / "trails" / "1" / "web" / "root.squashfs"
    assert store.link(name, str(dest), root=str(tmp_path))
    assert not store.link(name, str(dest))
    assert dest.stat().st_ino == os.stat(store.path(name)).st_ino


def test_a_link_does_not_go_through_a_symlink(store: ObjectStore, tmp_path: Path) -> None:
    name = store.add([b"data"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trail").symlink_to("elsewhere")
    with pytest.raises(HostileInputError):
        store.link(name, str(tmp_path / "trail" / "f"))
    assert os.listdir(tmp_path / "elsewhere") == []


def test_adopt_takes_only_what_is_whole(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"data")
    (tmp_path / "bad").write_bytes(b"dbta")
    os.symlink(tmp_path / "good", tmp_path / "link")
    assert not store.adopt(str(tmp_path / "bad"), sha(b"data"))
    assert not store.adopt(str(tmp_path / "link"), sha(b"data"))
    assert not store.adopt(str(tmp_path / "missing"), sha(b"data"))
    assert store.adopt(str(tmp_path / "good"), sha(b"data"))
    assert store.verify(sha(b"data"))


# Partial downloads


def test_an_interrupted_download_goes_on_where_it_stopped(store: ObjectStore) -> None:
    data = os.urandom(3 << 20)
    with store.partial(sha(data)) as partial:
        partial.append(data[:2_000_000])
    with store.partial(sha(data)) as partial:
        assert partial.size_bytes == 2_000_000
        partial.append(data[2_000_000:])
        assert partial.finish(sha(data)) == sha(data)
    assert store.verify(sha(data))
    assert os.listdir(store.root) == [sha(data)]


def test_a_download_with_a_wrong_hash_is_dropped(store: ObjectStore) -> None:
    with store.partial(sha(b"right")) as partial:
        partial.append(b"wrong")
        with pytest.raises(HostileInputError, match="arrived with the hash"):
            partial.finish(sha(b"right"))
    assert os.listdir(store.root) == []


def test_a_download_does_not_outgrow_its_bound(store: ObjectStore) -> None:
    with store.partial(sha(b"12345"), max_bytes=5) as partial:
        partial.append(b"1234")
        with pytest.raises(HostileInputError, match="5 bytes"):
            partial.append(b"56")
        partial.append(b"5")
        partial.finish()
    assert store.verify(sha(b"12345"))


def test_too_much_from_an_earlier_attempt_is_forgotten(store: ObjectStore) -> None:
    with store.partial(sha(b"123")) as partial:
        partial.append(b"garbage")
    with store.partial(sha(b"123"), max_bytes=3) as partial:
        assert partial.size_bytes == 0
        partial.append(b"123")
        partial.finish()


def test_a_server_that_cannot_resume_starts_again(store: ObjectStore) -> None:
    with store.partial(sha(b"abc")) as partial:
        partial.append(b"ab")
        partial.restart()
        partial.append(b"abc")
        partial.finish()
    assert store.verify(sha(b"abc"))


def test_two_downloads_of_one_object_take_turns(store: ObjectStore) -> None:
    data = b"shared"
    first = store.partial(sha(data))
    first.append(data)
    sizes = []

    def second() -> None:
        with store.partial(sha(data)) as partial:
            sizes.append((partial.size_bytes, store.has(sha(data))))
            partial.discard()

    thread = threading.Thread(target=second)
    thread.start()
    first.finish()
    thread.join()
    assert sizes == [(0, True)]
    assert store.verify(sha(data))


# Garbage


def test_collect_frees_only_what_nobody_uses(store: ObjectStore, tmp_path: Path) -> None:
    linked, kept, loose = (store.add([data]) for data in (b"linked", b"kept", b"loose" * 1000))
    store.link(linked, str(tmp_path / "checkout"))
    Path(store.path(kept) + ".part").write_bytes(b"")
    Path(store.path(loose) + ".part").write_bytes(b"x")
    Path(atomic.temporary_path(store.path(loose))).write_bytes(b"x")
    (Path(store.root) / "README").write_text("not ours")
    assert store.collect({kept}) >= 5000
    assert sorted(os.listdir(store.root)) == sorted([linked, kept, kept + ".part", "README"])
    assert ObjectStore(str(tmp_path / "none")).collect(set()) == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=20), max_size=12), data=st.data())
def test_collect_never_removes_a_linked_or_kept_object(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("gc")
    store = ObjectStore(str(root / "objects"))
    names = [store.add([content]) for content in contents]
    linked = data.draw(st.sets(st.sampled_from(names))) if names else set()
    kept = data.draw(st.sets(st.sampled_from(names))) if names else set()
    for name in linked:
        store.link(name, str(root / "tree" / name))
    store.collect(kept)
    assert set(store.shas()) == linked | kept
    assert all(store.verify(name) for name in linked | kept)
