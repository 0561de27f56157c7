"""Which disks a power cut may leave, held against a disk that is small enough to be thought through whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError, UserError
from brickless.testkit.crashlab import states, writelog
from brickless.testkit.crashlab.images import Images
from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.writelog import SECTOR_BYTES, Entry

SECTORS = 6
FLUSH = Entry(0, b"", True)


def write(sector: int, *letters: str) -> Entry:
    return Entry(sector, b"".join(letter.encode() * SECTOR_BYTES for letter in letters), False)


def disk(log: list[Entry], state: CrashState) -> str:
    """The disk of a state, a letter a sector, built the simplest way."""
    content = ["."] * SECTORS
    whole = [(log[index], log[index].sectors) for index in (*range(state.durable), *state.extra)]
    torn = [(log[state.torn], state.cut)] if state.torn >= 0 else []
    for entry, sectors in whole + torn:
        for number in range(sectors):
            content[entry.sector + number] = chr(entry.data[number * SECTOR_BYTES])
    return "".join(content)


def legal(log: list[Entry]) -> set[str]:
    """Every disk that the model allows: any sectors of the writes since the last flush, each as new as may be."""
    found = set()
    durable = ["."] * SECTORS
    epoch: list[Entry] = []
    for entry in log:
        if entry.data:
            epoch.append(entry)
            found |= _choices(durable, epoch)
        if entry.flush:
            for one in epoch:
                for number in range(one.sectors):
                    durable[one.sector + number] = chr(one.data[number * SECTOR_BYTES])
            epoch = []
    return found | {"." * SECTORS}


def _choices(durable: list[str], epoch: list[Entry]) -> set[str]:
    options: list[set[str]] = [{letter} for letter in durable]
    for entry in epoch:
        for number in range(entry.sectors):
            options[entry.sector + number].add(chr(entry.data[number * SECTOR_BYTES]))
    disks = {""}
    for option in options:
        disks = {one + letter for one in disks for letter in option}
    return disks


LOGS = st.lists(
    st.one_of(
        st.just(FLUSH),
        st.builds(
            lambda sector, letters: write(sector, *letters[: SECTORS - sector]),
            st.integers(0, SECTORS - 1),
            st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3),
        ),
    ),
    max_size=8,
)


@given(LOGS, st.integers(0, 1000))
def test_every_state_is_one_that_the_model_allows(log: list[Entry], seed: int) -> None:
    allowed = legal(log)
    for state in states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=seed):
        assert disk(log, state) in allowed, state


@given(LOGS)
def test_the_disk_after_each_single_write_is_among_them(log: list[Entry]) -> None:
    chosen = {disk(log, one) for one in states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=1)}
    for end in range(len(log) + 1):
        assert disk(log, CrashState(end)) in chosen


@given(LOGS, st.integers(0, 1000))
def test_no_disk_is_counted_twice(log: list[Entry], seed: int) -> None:
    chosen = [disk(log, one) for one in states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=seed)]
    assert len(chosen) == len(set(chosen))


def test_a_small_epoch_is_enumerated_whole() -> None:
    log = [write(0, "a"), write(1, "b"), write(2, "c"), FLUSH, write(3, "d")]
    chosen = {disk(log, one) for one in states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=1)}
    assert chosen == legal(log)


def test_a_block_is_torn_at_each_of_its_sectors() -> None:
    log = [write(0, *"abcdef")]
    cuts = [state.cut for state in states.torn(log, random.Random(1))]
    assert cuts == [1, 2, 3, 4, 5]


def test_the_states_are_the_same_for_the_same_seed() -> None:
    log = [write(number % SECTORS, chr(97 + number)) for number in range(12)]
    first = states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=5)
    assert first == states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=5)
    assert first != states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=6)


@pytest.mark.parametrize("text", ["120", "120+123,125", "120+123~125:3", "0~1:1"])
def test_a_state_is_found_again_by_its_name(text: str) -> None:
    assert str(states.parse(text)) == text


@pytest.mark.parametrize("text", ["", "x", "1+", "1~2", "-1", "1" * 20])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no crash state"):
        states.parse(text)


@given(LOGS, st.integers(0, 1000))
def test_images_are_the_disks_of_their_states(log: list[Entry], seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.img")
        base.write_bytes(b"." * SECTOR_BYTES * SECTORS)
        out = Path(folder, "state.img")
        with Images(base, log, Path(folder, "running.img")) as images:
            for state in states.choose(log, lambda _: b"." * SECTOR_BYTES, seed=seed):
                images.build(state, out)
                content = out.read_bytes()
                assert "".join(chr(content[n * SECTOR_BYTES]) for n in range(SECTORS)) == disk(log, state)


def recorded(path: Path, *entries: tuple[int, int, int, bytes], number: int | None = None) -> Path:
    """A log as the kernel's target writes it: (sector, sectors, flags, data) each."""
    head = writelog._SUPER.pack(writelog.MAGIC, 1, len(entries) if number is None else number, 512)
    body = b"".join(
        writelog._ENTRY.pack(sector, sectors, flags, 0).ljust(512, b"\0") + data
        for sector, sectors, flags, data in entries
    )
    path.write_bytes(head.ljust(512, b"\0") + body)
    return path


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "writes.0", (8, 2, 0, b"a" * 1024), (0, 0, writelog.FLUSH, b""), (4, 9, writelog.DISCARD, b"")
    )
    assert writelog.read([path]) == [Entry(8, b"a" * 1024, False), FLUSH, Entry(0, b"", False)]
    assert writelog.count(path) == 3


def test_a_log_that_was_only_begun_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "writes.0"
    path.touch()
    assert writelog.read([path]) == []
    assert writelog.count(path) == 0


@pytest.mark.parametrize("content", [b"x" * 2048, b"\1" + bytes(511)])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "writes.0"
    path.write_bytes(content)
    with pytest.raises(HostileInputError, match="no log of writes"):
        writelog.read([path])


def test_a_log_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path / "writes.0", (8, 2, 0, b"a" * 1024), number=5)
    with pytest.raises(HostileInputError, match="entry 1 of 5"):
        writelog.read([path])
