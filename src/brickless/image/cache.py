"""Artefacts that are made once: named by a hash of all that went into them, published whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from brickless.store import atomic, lock

LOCK_TIMEOUT_S = 900.0


def key(*inputs: object) -> str:
    """A name for these inputs (JSON values)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]


def digest(paths: Iterable[Path], base: Path) -> str:
    """A hash over the names (relative to `base`) and contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(base).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def artefact(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The file `folder/name`, made by `make(path)` if it is not there; two processes that want it make it once."""
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with lock.lock(str(folder / ".lock"), timeout_s=LOCK_TIMEOUT_S):
        if not path.exists():
            temporary = Path(atomic.temporary_path(str(path)))
            try:
                make(temporary)
                atomic.publish(str(temporary), str(path))
            finally:
                temporary.unlink(missing_ok=True)
    return path


def folder(path: Path, make: Callable[[Path], None]) -> Path:
    """The folder `path`, made by `make(new folder)` if it is not there; two processes that want it make it once."""
    complete = path.with_name(f"{path.name}.complete")
    if complete.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock.lock(str(path.with_name(f"{path.name}.lock")), timeout_s=LOCK_TIMEOUT_S):
        if not complete.exists():
            shutil.rmtree(path, ignore_errors=True)  # what an interrupted one left
            path.mkdir()
            make(path)
            complete.touch()
    return path
