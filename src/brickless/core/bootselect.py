"""Which revision a bootloader boots, and what it must remember before: the decision behind the boot scripts, as a pure
function.

Two records, each with one writer, so that neither side can undo what the other wrote:

    environment   written by the runtime: pv_rev, pv_try, pv_serial, pv_failed, pv_prev, pv_alive (`core.bootenv`)
    memory        written by the bootloader: pv_trying, pv_tryserial, pv_attempts; pv_mark, pv_boots

A try is booted at most `max_attempts` times. `pv_failed` ends it earlier: the runtime saw the revision fail and needs
no further proof. A request is told from an older one for the same revision by `pv_serial`.

A committed revision is counted as well: each boot adds to `pv_boots`, and the runtime says that all is well by writing
the boot's `pv_mark` into `pv_alive`. After `max_attempts` boots without a word the previous good revision's turn comes,
then the factory's, then all begin again: a committed revision may fail for a reason that passes. A runtime that never
says `pv_alive` (the reference's) is not counted.

The scripts for U-Boot and GRUB are made by `image.bootscript` from the same rules; the tests of the boards hold them
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import bootenv, paths
from brickless.core.errors import HostileInputError

MEMORY_KEYS = ("pv_trying", "pv_tryserial", "pv_attempts", "pv_mark", "pv_boots")
ENVIRONMENT_KEYS = ("pv_rev", "pv_try", "pv_serial", "pv_failed", "pv_prev", "pv_alive")
MAX_ATTEMPTS = 9
MARKS = 9
FRESH: Mapping[str, str] = {"pv_mark": "1", "pv_boots": "0", "pv_attempts": "0"}
"""The memory of a board that never booted."""


class Selection(NamedTuple):
    """What to boot: `candidates` in order, each next one when the one before cannot be loaded.

    `attempt` counts the tries from 1 and is 0 for a boot that is no try; `memory` is to be stored before anything is
    booted.
    """

    candidates: tuple[str, ...]
    memory: Mapping[str, str]
    attempt: int
    fell_back: bool = False


def select(env: Mapping[str, str], memory: Mapping[str, str] | None, *, max_attempts: int) -> Selection:
    """Decide. `memory` is None when it cannot be read: then nothing is tried, for nobody knows how often it was."""
    committed = _revision(env, "pv_rev") or bootenv.FACTORY
    previous = _revision(env, "pv_prev") or bootenv.FACTORY
    wanted = _revision(env, "pv_try")
    serial = env.get("pv_serial", "")
    kept = dict(FRESH if memory is None else {key: memory[key] for key in MEMORY_KEYS if memory.get(key)})
    if memory is None:
        kept |= {"pv_trying": wanted, "pv_tryserial": serial, "pv_attempts": str(max_attempts)}
    order = (committed, previous, bootenv.FACTORY)
    fell_back = False
    if wanted and wanted != committed:
        same = kept.get("pv_trying") == wanted and kept.get("pv_tryserial", "") == serial
        attempts = _number(kept, "pv_attempts") if same else 0
        if attempts < max_attempts and not (serial and env.get("pv_failed") == serial):
            kept |= {"pv_trying": wanted, "pv_tryserial": serial, "pv_attempts": str(attempts + 1)}
            return Selection(_distinct(wanted, *order), _stripped(kept), attempts + 1)
        fell_back = True
    turn = _count_boot(env, kept, max_attempts)
    return Selection(_distinct(*order[turn:], *order[:turn]), _stripped(kept), 0, fell_back)


def _count_boot(env: Mapping[str, str], memory: dict[str, str], max_attempts: int) -> int:
    """Count a boot of what is committed; whose turn it is: 0 the committed one, 1 the previous, 2 the factory's."""
    alive = env.get("pv_alive", "")
    if not alive:
        return 0
    mark, boots = _number(memory, "pv_mark") or 1, _number(memory, "pv_boots")
    if alive == str(mark):
        mark, boots = mark % MARKS + 1, 0
    boots = 1 if boots >= 3 * max_attempts else boots + 1
    memory |= {"pv_mark": str(mark), "pv_boots": f"{boots:x}"}
    return (boots - 1) // max_attempts


def _distinct(*revisions: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(revisions))


def _stripped(memory: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in memory.items() if value}


def _number(values: Mapping[str, str], key: str) -> int:
    # Hexadecimal, as U-Boot counts.
    text = values.get(key, "")
    return int(text, 16) if text and len(text) <= 4 and set(text) <= set("0123456789abcdef") else 0


def _revision(env: Mapping[str, str], key: str) -> str:
    name = env.get(key, "")
    try:
        paths.check_revision(name)
    except HostileInputError:
        return ""
    return name
