"""Making a revision the factory revision (device.md 2.5): what a device goes back to when nothing else is left.

The state is replaced in one step, and all its objects are in the pool before: a power cut on the way leaves the old or
the new state, whose tree is linked together again when it is next booted.
"""

from __future__ import annotations

from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.store.trails import FACTORY, Storage


def make_factory(storage: Storage, rev: str) -> None:
    """Copy `rev` to revision 0. Raises FileNotFoundError when it or an object of it is not there."""
    if rev == FACTORY:
        storage.state_bytes(FACTORY)
        return
    state = parse_state(storage.state_bytes(rev))
    storage.install(FACTORY, state)
    storage.write_progress(FACTORY, Progress.of(Status.DONE, Message.FACTORY).to_json())
    storage.mark_done(FACTORY)
