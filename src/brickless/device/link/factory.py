"""First contact: the hub is given the factory revision, objects first, then the trail (contracts/device.md 7.4).

Each object is announced by hash; what the hub has already is not sent. Interrupted, it begins anew and skips all that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from brickless.core.state import parse_state
from brickless.device.link.http import Upload
from brickless.device.link.hub import Hub
from brickless.store.objects import read_chunks
from brickless.store.trails import FACTORY, Storage


def sync(hub: Hub, storage: Storage, report: Callable[[str], None]) -> None:
    """Uploads the factory revision. Raises as the hub does; raises StateError when the factory state is broken."""
    state = parse_state(storage.state_bytes(FACTORY))
    seen: set[str] = set()
    for path, sha in sorted(state.objects.items()):
        if sha not in seen:
            seen.add(sha)
            hub.upload_object(os.path.basename(path), sha, _upload(storage, sha))
    hub.post_trail(state.raw)
    report(f"the hub has the factory revision now, {len(seen)} objects")


def _upload(storage: Storage, sha: str) -> Upload:
    def pieces() -> Iterator[bytes]:
        with storage.objects.open(sha) as file:
            yield from read_chunks(file, 64 * 1024)

    return Upload(storage.objects.size_bytes(sha), pieces)
