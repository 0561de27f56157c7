"""Which disks a power cut may leave, from the record of writes and flushes. Pure.

The model is that of a disk with a volatile cache: what was written before a completed flush is there; of what came
after it any part may be there, in any order, and a write may be torn at any sector. Within one epoch (from a flush to
the next) the writes of one sector keep their order.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from brickless.core.errors import UserError
from brickless.testkit.crashlab.writelog import SECTOR_BYTES, Entry

# Epochs with at most this many writes are enumerated, larger ones are sampled.
EXHAUSTIVE_WRITES = 5
# A block of the file system, 4096 bytes, can be torn in seven places.
TORN_PLACES = 7
_ID = re.compile(
    r"(?P<durable>[0-9]{1,9})(?:\+(?P<extra>[0-9,]{1,100000}))?(?:~(?P<torn>[0-9]{1,9}):(?P<cut>[0-9]{1,9}))?"
)


class CrashState(NamedTuple):
    """A disk after a power cut: all entries before `durable`, the entries `extra`, and `cut` sectors of `torn`."""

    durable: int
    extra: tuple[int, ...] = ()
    torn: int = -1
    cut: int = 0

    def __str__(self) -> str:
        extra = "+" + ",".join(map(str, self.extra)) if self.extra else ""
        torn = f"~{self.torn}:{self.cut}" if self.torn >= 0 else ""
        return f"{self.durable}{extra}{torn}"

    @property
    def end(self) -> int:
        """The entries that had been issued when the power went are those before this one."""
        return max(self.durable, self.extra[-1] + 1 if self.extra else 0, self.torn + 1)


def parse(text: str) -> CrashState:
    """The state of that name. Raises `UserError`."""
    match = _ID.fullmatch(text)
    if match is None:
        raise UserError(
            "bad-crash-state",
            f"{text[:60]!r} is no crash state",
            hint="They look like 120, 120+123,125 or 120+123~125:3.",
        )
    extra = tuple(int(one) for one in (match["extra"] or "").split(",") if one)
    return CrashState(int(match["durable"]), extra, int(match["torn"] or -1), int(match["cut"] or 0))


def epochs(log: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    """First entry and end of each run of writes that no flush divides."""
    begin = 0
    for index, entry in enumerate(log):
        if entry.flush:
            yield begin, index + (1 if entry.data else 0)
            begin = index + 1
    if begin < len(log):
        yield begin, len(log)


def boundaries(log: Sequence[Entry]) -> Iterator[CrashState]:
    """The disk before the first and after each single write, in the order of the record: every prefix."""
    yield CrashState(0)
    for index, entry in enumerate(log):
        if entry.data:
            yield CrashState(index + 1)


def torn(log: Sequence[Entry], chance: random.Random) -> Iterator[CrashState]:
    """Each write of more than one sector, torn while it was the last: a block at each sector, a longer one at some."""
    for index, entry in enumerate(log):
        places = range(1, entry.sectors)
        for cut in places if len(places) <= TORN_PLACES else sorted(chance.sample(places, TORN_PLACES)):
            yield CrashState(index, (), index, cut)


def reordered(log: Sequence[Entry], chance: random.Random, *, an_epoch: int) -> Iterator[CrashState]:
    """For each epoch up to `an_epoch` sets of its writes that are no prefix; every third time the last one is torn."""
    for begin, end in epochs(log):
        writes = [index for index in range(begin, end) if log[index].data]
        for number, chosen in enumerate(_subsets(writes, chance, an_epoch)):
            last = log[chosen[-1]]
            if number % 3 == 2 and last.sectors > 1:
                yield CrashState(begin, chosen[:-1], chosen[-1], chance.randrange(1, last.sectors))
            else:
                yield CrashState(begin, chosen)


def _subsets(writes: Sequence[int], chance: random.Random, wanted: int) -> Iterable[tuple[int, ...]]:
    size = len(writes)
    if size < 2:
        return []
    if size <= EXHAUSTIVE_WRITES:
        masks: Iterable[int] = range(1, 1 << size)
    else:
        masks = dict.fromkeys(_mask(size, chance) for _ in range(wanted))
    prefixes = {(1 << length) - 1 for length in range(size + 1)}
    chosen = [mask for mask in masks if mask not in prefixes]
    if len(chosen) > wanted:
        chosen = chance.sample(chosen, wanted)
    return [tuple(write for bit, write in enumerate(writes) if mask >> bit & 1) for mask in chosen]


def _mask(size: int, chance: random.Random) -> int:
    """A set of writes: mostly all up to a place with a few missing, as caches leave them, sometimes any."""
    if chance.random() < 0.25:
        return chance.randrange(1, 1 << size)
    mask = (1 << chance.randrange(2, size + 1)) - 1
    for _ in range(chance.randrange(1, 4)):
        mask &= ~(1 << chance.randrange(size))
    return mask or 1


class Contents:
    """What lies on the disk as one number, so that states which are the same disk count once.

    The number is the XOR of a hash of each changed sector with its place; it does not depend on the order.
    """

    def __init__(self, log: Sequence[Entry], base: Callable[[int], bytes]) -> None:
        """`base` gives a sector of the disk before the record; the number of that disk is 0."""
        self._log = log
        self._base = base
        self._sectors: dict[int, int] = {}
        self._applied = 0
        self._sum = 0

    def of(self, state: CrashState) -> int:
        """The number of a state. Ask in the order of `durable`."""
        if state.durable < self._applied:
            raise ValueError(f"state {state} comes before {self._applied}, which was asked for already")
        for index in range(self._applied, state.durable):
            self._sum ^= self._apply(self._sectors, index, self._log[index].sectors)
        self._applied = state.durable
        over: dict[int, int] = {}
        result = self._sum
        for index in state.extra:
            result ^= self._apply(over, index, self._log[index].sectors)
        if state.torn >= 0:
            result ^= self._apply(over, state.torn, state.cut)
        return result

    def _apply(self, into: dict[int, int], index: int, sectors: int) -> int:
        entry = self._log[index]
        change = 0
        for number in range(sectors):
            sector = entry.sector + number
            value = _digest(sector, entry.data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
            change ^= value ^ self._value(into, sector)
            into[sector] = value
        return change

    def _value(self, over: dict[int, int], sector: int) -> int:
        if sector in over:
            return over[sector]
        if sector not in self._sectors:
            self._sectors[sector] = _digest(sector, self._base(sector))
        return self._sectors[sector]


def _digest(sector: int, data: bytes) -> int:
    salt = sector.to_bytes(16, "little")
    return int.from_bytes(hashlib.blake2b(data, digest_size=16, salt=salt).digest(), "little")


def choose(log: Sequence[Entry], base: Callable[[int], bytes], *, seed: int, an_epoch: int = 40) -> list[CrashState]:
    """Distinct states in the order of `durable`: all boundaries, torn writes and reorderings.

    `base` gives a sector of the disk before the record. The same record and seed give the same states.
    """
    chance = random.Random(seed)  # noqa: S311 - a sample that can be drawn again, no secret
    groups = [
        list(boundaries(log)),
        list(torn(log, chance)),
        list(reordered(log, chance, an_epoch=an_epoch)),
    ]
    contents = Contents(log, base)
    seen: set[int] = set()
    chosen = []
    for state in sorted({state for group in groups for state in group}):
        number = contents.of(state)
        if number not in seen:
            seen.add(number)
            chosen.append(state)
    return chosen
