"""Who hears that something changed: open dashboards and event streams of its owner, in this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from brickless.hub.services.ports_operators import logs_of

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
        self._wake(*self._followers)

    def _wake(self, *names: str) -> None:
        for name in names:
            for waiting in self._followers.get(name, ()):
                waiting.set()

    def happened(self, account: str) -> None:
        """See `services.ports.Events.happened`."""
        self._wake(account, EVERYBODY)

    def logged(self, device: str) -> None:
        """See `services.ports.Events.logged`."""
        self._wake(logs_of(device))

    @contextmanager
    def following(self, *names: str) -> Iterator[asyncio.Event]:
        """See `services.ports_operators.Bus.following`."""
        waiting = asyncio.Event()
        if self._closed:
            waiting.set()
        for name in names:
            self._followers[name].add(waiting)
        try:
            yield waiting
        finally:
            for name in names:
                self._followers[name].discard(waiting)
                if not self._followers[name]:
                    del self._followers[name]

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
