"""Objects over the wire: parallel, resumed where they broke off, hashed before they are named, stopped by Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import httpx

from brickless.core.errors import HostileInputError
from brickless.pvr import hub
from brickless.pvr.errors import RefusedError, TransferError
from brickless.pvr.http import ATTEMPTS, Client
from brickless.pvr.progress import Meter
from brickless.store.objects import CHUNK_BYTES, ObjectStore, Partial

_EXPIRED = {401, 403, 410}
Item = TypeVar("Item")


def in_parallel(client: Client, items: Sequence[Item], work: Callable[[Item], None]) -> None:
    """Run `work` for all items, at most `env.parallel` at once. The first error stops the rest and is raised."""
    if not items:
        return
    pool = ThreadPoolExecutor(max_workers=min(client.env.parallel, len(items)), thread_name_prefix="transfer")
    try:
        futures = [pool.submit(work, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    except BaseException:
        client.stop.set()
        raise
    finally:
        # Whoever runs sees `stop` between two pieces; whoever waits is cancelled.
        pool.shutdown(wait=True, cancel_futures=True)


def download(client: Client, objects_url: str, wanted: dict[str, str], store: ObjectStore) -> int:
    """Fetch the objects (sha -> a path that needs it) which the pool lacks; returns how many were fetched.

    Raises TransferError or RefusedError; whatever was fetched until then stays and is not fetched again.
    """
    lacking = [sha for sha in wanted if not store.has(sha)]
    with Meter(client.env, "Downloading", len(lacking), 0) as meter:
        in_parallel(client, lacking, lambda sha: _Download(client, objects_url, sha, wanted[sha], store, meter).run())
    return len(lacking)


class _Download:
    """One object: asks for its URL, fetches, resumes after a break, asks again when the URL expired."""

    def __init__(self, client: Client, objects_url: str, sha: str, path: str, store: ObjectStore, meter: Meter) -> None:
        self.client = client
        self.objects_url = objects_url
        self.sha = sha
        self.path = path
        self.store = store
        self.meter = meter

    def run(self) -> None:
        # What an earlier run left may be damaged itself: then once more, from the first byte.
        if not self._attempt(again=False):
            self._attempt(again=True)
        self.meter.add_object()

    def _attempt(self, *, again: bool) -> bool:
        """Fetch the object; false when it went on from an earlier run's bytes and came out wrong."""
        info = hub.object_info(self.client, self.objects_url, self.sha)
        if not again:
            self.meter.expect_bytes(info.size_bytes or 0)
        with self.store.partial(self.sha, max_bytes=info.size_bytes) as partial:
            if self.store.has(self.sha):
                partial.discard()
                return True
            inherited = partial.size_bytes
            self.meter.add_bytes(inherited)
            self._fetch(info, partial)
            fetched = partial.size_bytes
            try:
                partial.finish()
            except HostileInputError as error:
                self.meter.add_bytes(-fetched)
                if inherited and not again:
                    return False
                raise TransferError(
                    f"The server sent wrong bytes for {self.path}: {error}",
                    hint="Nothing was stored. Try again; if it stays, the hub's copy is damaged.",
                ) from error
        return True

    def _fetch(self, info: hub.ObjectInfo, partial: Partial) -> None:
        failures = 0
        while True:
            before = partial.size_bytes
            try:
                if info.size_bytes is not None and partial.size_bytes == info.size_bytes:
                    return
                self._stream(info.get_url, partial)
                if info.size_bytes is None or partial.size_bytes >= info.size_bytes:
                    return
                reason = f"it ended after {partial.size_bytes} of {info.size_bytes} bytes"
            except HostileInputError as error:
                partial.discard()
                raise TransferError(f"The server sent too much for {self.path}: {error}") from error
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
            except RefusedError as error:
                if error.status not in _EXPIRED and error.status < 500:
                    raise
                reason = str(error)
                info = hub.object_info(self.client, self.objects_url, self.sha)
            # Progress was made: the line is bad, not dead. Only attempts without any count.
            failures = 0 if partial.size_bytes > before else failures + 1
            if failures >= ATTEMPTS:
                raise TransferError(
                    f"Downloading {self.path} failed: {reason}",
                    context=f"object {self.sha}, after {ATTEMPTS} attempts without progress",
                    hint="What was fetched is kept; run the same command again to go on.",
                )
            self.client.pause(failures)

    def _stream(self, url: str, partial: Partial) -> None:
        if not url:
            raise TransferError(f"The hub gives no address for {self.path} (object {self.sha}).")
        start = partial.size_bytes
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self.client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416 or (start and response.status_code == 200):
                self.meter.add_bytes(-start)
                partial.restart()
                if response.status_code == 416:
                    raise httpx.ReadError("the server has fewer bytes than we do", request=response.request)
            elif response.status_code not in {200, 206}:
                raise RefusedError(f"Downloading {self.path} failed", status=response.status_code)
            elif start and not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise TransferError(f"The server resumed {self.path} at another place than asked.")
            for chunk in response.iter_raw(CHUNK_BYTES):
                if self.client.stop.is_set():
                    raise KeyboardInterrupt
                partial.append(chunk)
                self.meter.add_bytes(len(chunk))
                self.client.pace.took(len(chunk))


def upload(client: Client, objects_url: str, wanted: dict[str, str], store: ObjectStore, *, force: bool = False) -> int:
    """Offer objects (sha -> path) to a hub and send those that it lacks; returns how many were sent.

    Each sha is offered once. Raises before the first request when one is not in the pool.
    """
    for sha, path in wanted.items():
        if not store.has(sha):
            raise TransferError(
                f"The object of {path} ({sha}) is not in the pool {store.root}; nothing was posted.",
                hint="See what is missing with `pvr fsck`, and fetch it with `pvr get`.",
            )
    total = sum(store.size_bytes(sha) for sha in wanted)
    sent: list[str] = []
    with Meter(client.env, "Uploading", len(wanted), total) as meter:

        def offer(sha: str) -> None:
            if _upload_one(client, objects_url, wanted[sha], sha, store, meter, force):
                sent.append(sha)
            meter.add_object()

        in_parallel(client, list(wanted), offer)
    return len(sent)


def _upload_one(
    client: Client, objects_url: str, path: str, sha: str, store: ObjectStore, meter: Meter, force: bool
) -> bool:
    size = store.size_bytes(sha)
    for attempt in range(ATTEMPTS):
        info = hub.register_object(client, objects_url, path, sha, size)
        if info.present and not (force and not info.link):
            meter.say(f"Posting object info for: {path} ...  [{'LK' if info.link else 'OK'}]")
            meter.add_bytes(size)
            return False
        if not info.put_url:
            raise TransferError(f"The hub gives no address for uploading {path}.")
        try:
            status, text = _put(client, info.put_url, sha, size, store, meter)
        except httpx.HTTPError as error:
            status, text = 0, str(error) or type(error).__name__
        if status in {200, 201, 204}:
            meter.say(f"Posting object info for: {path} ...  [UP]")
            return True
        if status not in _EXPIRED and 0 < status < 500:
            raise RefusedError(f"Uploading {path} failed: the hub answered {status}", status=status, context=text)
        if attempt + 1 < ATTEMPTS:
            client.pause(attempt)
    raise TransferError(
        f"Uploading {path} failed: {text or status}",
        context=f"after {ATTEMPTS} attempts",
        hint="What was sent is kept; run the same command again to go on.",
    )


def _put(client: Client, url: str, sha: str, size: int, store: ObjectStore, meter: Meter) -> tuple[int, str]:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        with store.open(sha) as source:
            while chunk := source.read(CHUNK_BYTES):
                if client.stop.is_set():
                    raise KeyboardInterrupt
                yield chunk
                sent += len(chunk)
                meter.add_bytes(len(chunk))
                client.pace.took(len(chunk))

    try:
        content = chunks() if size else b""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with client.stream("PUT", url, headers=headers, content=content) as response:
            text = response.read()[:500].decode(errors="replace")
            status = response.status_code
    except BaseException:
        meter.add_bytes(-sent)
        raise
    if status not in {200, 201, 204}:
        meter.add_bytes(-sent)
    return status, text
