"""Answers to idle polls from memory (design.md, D7): a device that has nothing to do costs no statement.

Each device has at most one remembered answer of each kind. Whoever writes anything that an answer depends on calls
`forget` after the write is durable. A reader takes a `ticket` before it looks at the database and hands it in with what
it found; an answer whose ticket is older than the last `forget` is thrown away, so a slow reader cannot put back what
a writer has just made stale. With several replicas, each forgets what the others announce (adapters: events), and when
it may have missed an announcement it forgets everything.
"""

from __future__ import annotations

from typing import NamedTuple

_MAX_ANSWER_BYTES = 16 * 1024


class Ticket(NamedTuple):
    """When a reader began to look."""

    epoch: int
    generation: int


class PollCache:
    """Remembered answers by device and kind; bounded by the number of devices times the kinds, and in answer size."""

    def __init__(self, *, max_devices: int = 200_000) -> None:
        self._answers: dict[str, dict[str, tuple[str, bytes]]] = {}
        self._generations: dict[str, int] = {}
        self._epoch = 0
        self._max_devices = max_devices
        self._paused = False
        self.hits = 0
        self.misses = 0

    def get(self, device_id: str, kind: str, variant: str) -> bytes | None:
        """The remembered answer, when it is of this variant (the query string, the owner in the token)."""
        found = self._answers.get(device_id, {}).get(kind)
        if found is None or found[0] != variant:
            self.misses += 1
            return None
        self.hits += 1
        return found[1]

    def ticket(self, device_id: str) -> Ticket:
        """Take this before reading what an answer is made of."""
        return Ticket(self._epoch, self._generations.get(device_id, 0))

    def put(self, device_id: str, kind: str, variant: str, answer: bytes, ticket: Ticket) -> None:
        """Remember an answer, unless something was forgotten since the ticket was taken or it is too large to keep."""
        if self._paused or ticket != self.ticket(device_id) or len(answer) > _MAX_ANSWER_BYTES:
            return
        if device_id not in self._answers and len(self._answers) >= self._max_devices:
            self.forget_everything()
            return
        self._answers.setdefault(device_id, {})[kind] = (variant, answer)

    def forget(self, device_id: str) -> None:
        """Something about this device changed."""
        self._answers.pop(device_id, None)
        self._generations[device_id] = self._generations.get(device_id, 0) + 1
        if len(self._generations) > 2 * self._max_devices:
            self.forget_everything()

    def pause(self) -> None:
        """Remember nothing: what other replicas write would not be heard."""
        self._paused = True
        self.forget_everything()

    def resume(self) -> None:
        """Remember again."""
        self.forget_everything()
        self._paused = False

    def forget_everything(self) -> None:
        """Anything may have changed. Tickets taken before are void: their epoch is over."""
        self._answers.clear()
        self._generations.clear()
        self._epoch += 1
