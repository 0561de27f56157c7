"""Images of crash states: built anew, or over another one that was judged in between."""

from __future__ import annotations

from pathlib import Path

from brickless.testkit.crashlab.images import Images
from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.writelog import SECTOR_BYTES, Entry
from brickless.twin.disk import BLOCK_BYTES, equalise

SIZE = 3 * BLOCK_BYTES + 5000


def sparse(path: Path, *places: tuple[int, bytes]) -> Path:
    with path.open("wb") as stream:
        stream.truncate(SIZE)
        for at, data in places:
            stream.seek(at)
            stream.write(data)
    return path


def test_files_become_equal_wherever_they_differ(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", (10, b"begin"), (BLOCK_BYTES - 2, b"over"), (SIZE - 3, b"end"))
    target = sparse(tmp_path / "b", (10, b"BEGIN"), (2 * BLOCK_BYTES + 77, b"only here"))
    equalise(source, target)
    assert target.read_bytes() == source.read_bytes()


def test_a_part_behind_an_offset_becomes_equal(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", (10, b"before"), (BLOCK_BYTES + 512, b"first"), (SIZE - 3, b"end"))
    target = tmp_path / "b"
    target.write_bytes(b"x" * (SIZE - BLOCK_BYTES - 512))
    equalise(source, target, offset=BLOCK_BYTES + 512)
    assert target.read_bytes() == source.read_bytes()[BLOCK_BYTES + 512 :]


def test_a_state_is_the_same_disk_whatever_lay_there_before(tmp_path: Path) -> None:
    base = sparse(tmp_path / "base", (0, b"base"))
    log = [Entry(number * 600, bytes([65 + number]) * 2 * SECTOR_BYTES, number == 1) for number in range(3)]
    states = [CrashState(0, (1,)), CrashState(2, (), 2, 1), CrashState(3)]
    fresh, reused = [], tmp_path / "reused"
    with Images(base, log, tmp_path / "one") as one, Images(base, log, tmp_path / "two") as two:
        for number, state in enumerate(states):
            one.build(state, tmp_path / f"fresh-{number}")
            fresh.append((tmp_path / f"fresh-{number}").read_bytes())
            two.build(state, reused)
            assert reused.read_bytes() == fresh[-1]
            # What a judge does: the journal is replayed, free blocks are counted.
            with reused.open("r+b") as stream:
                stream.write(b"judged")
    assert len(set(fresh)) == len(states)
