"""A revision made in any folder, for provisioning: the folder is the old tree or the new one, never a mixture."""

from __future__ import annotations

import os

from brickless.core.state import State
from brickless.store import atomic
from brickless.store.objects import ObjectStore
from brickless.store.trails import FACTORY, Storage


def deploy(target: str, objects: str, state: State) -> None:
    """Make `target` the tree of `state`, whose objects are in the folder `objects` of the same file system.

    The new tree is built beside the old one, which stays as `<target>.bak` until the new one is in its place. Raises
    FileNotFoundError when an object is missing; nothing is changed then.
    """
    scratch, old = f"{target}.new", f"{target}.bak"
    for leftover in (scratch, old):
        if os.path.lexists(leftover):
            atomic.remove_tree(leftover)
    storage = Storage(scratch)
    storage.objects = ObjectStore(objects)
    try:
        storage.install(FACTORY, state)
        if os.path.lexists(target):
            atomic.rename(target, old)
        atomic.rename(storage.revision_dir(FACTORY), target)
        atomic.sync_dir(os.path.dirname(target))
    finally:
        if os.path.lexists(scratch):
            atomic.remove_tree(scratch)
    if os.path.lexists(old):
        atomic.remove_tree(old)
