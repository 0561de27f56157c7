"""Who hears that something changed: open dashboards and event streams of its owner, in this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_WAITING = 1000
#: Follows the streams of all accounts.
EVERYBODY = "*"


class LocalEvents:
    """`services.ports.Events` with subscriptions by owner.

    A subscriber that does not keep up gets one empty id instead of many: it must look at everything.
    """

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[str | None]]] = defaultdict(set)
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the hub stops: streams end now."""
        return self._closed

    def close(self) -> None:
        """End every subscription: the hub stops. None in a queue says so."""
        self._closed = True
        for queues in self._queues.values():
            for queue in queues:
                queue.put_nowait(None)
        for account in list(self._followers):
            self.happened(account)

    def happened(self, account: str) -> None:
        """See `services.ports.Events.happened`."""
        for name in (account, EVERYBODY):
            for waiting in self._followers.get(name, ()):
                waiting.set()

    @contextmanager
    def following(self, account: str) -> Iterator[asyncio.Event]:
        """An event that is set when there may be something new in the account's stream, and when the hub stops."""
        waiting = asyncio.Event()
        if self._closed:
            waiting.set()
        self._followers[account].add(waiting)
        try:
            yield waiting
        finally:
            self._followers[account].discard(waiting)
            if not self._followers[account]:
                del self._followers[account]

    def device_changed(self, owner: str, device_id: str) -> None:
        """See `services.ports.Events.device_changed`."""
        for queue in self._queues.get(owner, ()):
            if queue.qsize() < _MAX_WAITING:
                queue.put_nowait(device_id)
            else:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait("")

    def subscribers(self) -> int:
        """How many listen."""
        return sum(map(len, self._queues.values()))

    @contextmanager
    def subscribed(self, owner: str) -> Iterator[asyncio.Queue[str | None]]:
        """A queue of the ids of the owner's devices as they change."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(None)
        self._queues[owner].add(queue)
        try:
            yield queue
        finally:
            self._queues[owner].discard(queue)
            if not self._queues[owner]:
                del self._queues[owner]
