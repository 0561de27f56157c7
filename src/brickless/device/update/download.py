"""Objects of an update, fetched in a few threads: resumed where they were cut off, hashed before they are named.

Every object ends in one `Outcome`. Nothing is decided here: whether to try again, to ask for a new address or to give
up is the engine's business (contracts/device.md 4.4, steps 6 to 8).
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from brickless.core.errors import BricklessError, HostileInputError
from brickless.device.link import http
from brickless.device.link.http import Address, Client, HubUnreachableError, Transport
from brickless.device.link.wire import ObjectInfo
from brickless.store.objects import ObjectStore, Partial

_STACK_BYTES = 256 * 1024


class End(StrEnum):
    """How the fetching of one object ended."""

    WHOLE = "whole"
    CUT = "cut"  # the connection broke; what came is kept
    EXPIRED = "expired"  # the address is not (or no longer) good
    BROKEN = "broken"  # the bytes are not the object
    DISK = "disk"  # the disk refused the bytes
    STOPPED = "stopped"


class Outcome(NamedTuple):
    """What became of one object. `reason` is a sentence for people; `gained_bytes` came and stayed."""

    info: ObjectInfo
    end: End
    reason: str = ""
    gained_bytes: int = 0
    disk_error: OSError | None = None


class _DiskError(BricklessError):
    """The disk, not the network, refused: it must not be taken for a broken connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The disk refuses more bytes: {error.strerror}")
        self.error = error


class _StoppedError(BricklessError):
    """Somebody wants the downloads to end."""


class Downloads:
    """A number of objects on their way. Made and asked by one thread; `wake` is called when an object has ended."""

    def __init__(
        self,
        objects: ObjectStore,
        transport: Transport,
        *,
        check: Callable[[Address], None],
        wake: Callable[[], None],
    ) -> None:
        self._objects = objects
        self._transport = transport
        self._check = check
        self._wake = wake
        self._queue: collections.deque[ObjectInfo] = collections.deque()
        self._done: list[Outcome] = []
        self._received: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._bug: Exception | None = None

    def start(self, infos: Iterable[ObjectInfo], max_count: int) -> None:
        """Adds objects and sees to it that at most `max_count` threads work on them."""
        self._queue.extend(infos)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        before = threading.stack_size(_STACK_BYTES)
        try:
            while len(self._threads) < min(max_count, len(self._queue)):
                thread = threading.Thread(target=self._work, name="download", daemon=True)
                self._threads.append(thread)
                thread.start()
        finally:
            threading.stack_size(before)

    def ended(self) -> list[Outcome]:
        """Outcomes since the last call. Raises what a thread has died of."""
        if self._bug is not None:
            raise self._bug
        with self._lock:
            found, self._done = self._done, []
        return found

    @property
    def received_bytes(self) -> int:
        """Bytes of all objects of this batch that are there now, resumed ones included."""
        return sum(self._received.copy().values())

    def stop(self) -> None:
        """Ends the downloads; what came stays. Returns when no thread works any more."""
        self._stop.set()
        self._queue.clear()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        clients: dict[Address, Client] = {}
        try:
            while not self._stop.is_set():
                try:
                    info = self._queue.popleft()
                except IndexError:
                    return
                self._end(self._fetch(info, clients))
        except Exception as error:  # a bug of ours: it must not end as a thread that is silently gone
            self._bug = error
            self._wake()
        finally:
            for client in clients.values():
                client.close()

    def _end(self, outcome: Outcome) -> None:
        with self._lock:
            self._done.append(outcome)
        self._wake()

    def _fetch(self, info: ObjectInfo, clients: dict[Address, Client]) -> Outcome:
        before = 0
        try:
            with self._objects.partial(info.sha, max_bytes=info.size_bytes) as partial:
                before = partial.size_bytes
                self._received[info.sha] = before
                end, reason = self._fill(info, partial, clients)
                self._received[info.sha] = partial.size_bytes if end != End.BROKEN else 0
                return Outcome(info, end, reason, max(0, self._received[info.sha] - before))
        except _DiskError as error:
            return Outcome(info, End.DISK, str(error), disk_error=error.error)
        except OSError as error:
            return Outcome(info, End.DISK, f"The disk refuses object {info.sha[:16]}: {error}", disk_error=error)
        except HostileInputError as error:  # an address that is none, or of a scheme that the hub may not give
            return Outcome(info, End.BROKEN, str(error))

    def _fill(self, info: ObjectInfo, partial: Partial, clients: dict[Address, Client]) -> tuple[End, str]:
        try:
            if partial.size_bytes < info.size_bytes:
                status = self._receive(info, partial, clients)
                if status not in {200, 206}:
                    return End.EXPIRED, f"the address of object {info.sha[:16]} was answered with {status}"
            if partial.size_bytes < info.size_bytes:
                return End.CUT, f"object {info.sha[:16]} ended after {partial.size_bytes} of {info.size_bytes} bytes"
            partial.finish()
        except HubUnreachableError as error:
            return End.CUT, str(error)
        except _StoppedError as error:
            return End.STOPPED, str(error)
        except HostileInputError as error:
            return End.BROKEN, str(error)
        return End.WHOLE, ""

    def _receive(self, info: ObjectInfo, partial: Partial, clients: dict[Address, Client]) -> int:
        address, target = http.parse_url(info.url)
        self._check(address)
        client = clients.setdefault(address, Client(address, self._transport))

        def sink(chunk: bytes) -> None:
            if self._stop.is_set():
                raise _StoppedError("The downloads were stopped")
            try:
                partial.append(chunk)
            except OSError as error:
                raise _DiskError(error) from error
            self._received[info.sha] = partial.size_bytes

        start = partial.size_bytes
        status, used = client.download(target, offset=start, expected_bytes=info.size_bytes, sink=sink)
        if start and not used and status in {200, 416}:  # no ranges here, or none that fits: from the start
            partial.restart()
            status, _ = client.download(target, offset=0, expected_bytes=info.size_bytes, sink=sink)
        return status
