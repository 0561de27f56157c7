"""What all bootloaders with variables have in common: the calls of the supervisor as changes of one small record.

The order in which an update touches the disk (`core.update`), and what a power cut after each step leads to:

    0. `set_try` first has everything written out, journal and all: the bootloader must find the revision that it is
       about to be told of. A cut here: nobody knows of the revision yet, the old one boots
    1. `set_try`: pv_try=X            the next boots try X, as often as the board's bound says
    2. `commit`: pv_rev=X, no pv_try  the next boot runs X: this write is the one point at which old becomes new
    3. progress DONE, then `.pv/done` for people, the hub and the collection of garbage; made up for at the next boot

    A try that failed: progress ERROR first, then `give_up` (pv_failed: no further attempt), then the reboot with
    `pv_try` still set, and the bootloader falls back. A cut before `give_up` costs one more attempt, which ends at
    once. `fail` clears `pv_try` on the boot that fell back, never on the failing one, and only once the error is on
    disk. Only a trial in place clears it while the revision's containers still run, before they go back.
    `confirm` tells a bootloader that counts boots that this one went well.

Each change is one write of one record, old or new; the record's own docstring says what makes that true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from brickless.core import bootenv


class BootState(NamedTuple):
    """What bootloader and storage say. `rev` is the committed revision; `try_` the one to be tried, "" for none."""

    rev: str
    try_: str


class Record(Protocol):
    """Where the variables are stored. Both raise `OSError` when the disk refuses."""

    def load(self) -> Mapping[str, str]:
        """The variables; none when nothing is stored, or nothing that is sound."""
        ...

    def store(self, variables: Mapping[str, str]) -> None:
        """Replace all of them in one step. Raises `HostileInputError` for what cannot be stored."""
        ...


class Variables:
    """A bootloader that reads pv_rev, pv_try and their companions from a record."""

    __slots__ = ("_publish", "_record")

    def __init__(self, record: Record, publish: Callable[[], object]) -> None:
        """`publish` makes all that was written so far visible to a reader without a journal."""
        self._record = record
        self._publish = publish

    def read(self) -> BootState:
        """What is stored now. A missing or damaged record reads as the factory revision with nothing to try."""
        variables = self._record.load()
        return BootState(variables.get("pv_rev") or bootenv.FACTORY, variables.get("pv_try", ""))

    def set_try(self, rev: str) -> None:
        """Have the next boots try `rev`. Raises `HostileInputError` for a name that is no revision's."""
        variables = bootenv.request_try(self._record.load(), rev)
        self._publish()
        self._record.store(variables)

    def commit(self, rev: str) -> None:
        """Make `rev` the committed revision and end its try."""
        self._record.store(bootenv.commit(self._record.load(), rev))

    def give_up(self) -> None:
        """On the failing boot, its ERROR being on the disk: no further attempt. The try itself stays for `fail`."""
        self._record.store(bootenv.give_up(self._record.load()))

    def fail(self) -> None:
        """End a try that failed: on the boot that fell back, its ERROR being on the disk already."""
        self._record.store(bootenv.clear_try(self._record.load()))

    def confirm(self, mark: str) -> None:
        """This boot of a committed revision went well; `mark` is what the bootloader called it."""
        variables = self._record.load()
        if mark and variables.get("pv_alive") != mark:
            self._record.store(bootenv.confirm(variables, mark))
