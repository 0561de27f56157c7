"""Backup and restore of a hub's data folder as one tar file: a consistent copy of SQLite, the keys, the objects.

The hub may run meanwhile: the database is copied by SQLite itself, and objects are only ever added, except by garbage
collection, which the lock keeps out. A restore checks everything before it gives the folder its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing

from brickless.core.errors import UserError
from brickless.store.atomic import make_dirs, rename, sync_dir, write_stream
from brickless.store.lock import lock

_DATABASE = "hub.sqlite"
_MEMBER = re.compile(r"hub\.sqlite|keys/[a-z.-]{1,40}|objects/[0-9a-f]{2}/[0-9a-f]{62}")
_CHUNK = 1024 * 1024


def upkeep_lock(data_dir: str) -> str:
    """What backups and garbage collections take in turns."""
    return os.path.join(data_dir, "upkeep.lock")


def back_up(data_dir: str, target: str, *, keys: str) -> int:
    """Write a backup, with the keys in the folder `keys`; returns how many objects it holds.

    Raises UserError for a folder without a SQLite database.
    """
    database = os.path.join(data_dir, _DATABASE)
    if not os.path.exists(database):
        raise UserError(
            "no-sqlite",
            f"{data_dir} holds no SQLite database",
            hint="Back PostgreSQL up with pg_dump, and copy the rest.",
        )
    with lock(upkeep_lock(data_dir), timeout_s=600), tempfile.TemporaryDirectory(dir=data_dir) as folder:
        copy = os.path.join(folder, _DATABASE)
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as destination:
            source.backup(destination)
        temporary = f"{target}.partial"
        with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(copy, _DATABASE)
                count = _add_files(tar, data_dir, keys)
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, target)
    return count


def _add_files(tar: tarfile.TarFile, data_dir: str, keys: str) -> int:
    count = 0
    for top, source in (("keys", keys), ("objects", os.path.join(data_dir, "objects"))):
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                member = os.path.join(top, os.path.relpath(path, source))
                if _MEMBER.fullmatch(member):
                    tar.add(path, member)
                    count += top == "objects"
    return count


def restore(source: str, data_dir: str) -> int:
    """Make a data folder from a backup; returns how many objects it holds. Nothing is made when anything is wrong.

    Raises UserError for a folder that exists, and for a backup that is damaged or holds what no backup does.
    """
    if os.path.exists(data_dir):
        raise UserError("data-exists", f"{data_dir} exists", hint="Restore into a new folder.")
    parent = os.path.dirname(os.path.abspath(data_dir))
    make_dirs(parent)
    folder = tempfile.mkdtemp(dir=parent, prefix=".restore-")
    try:
        with tarfile.open(source, "r:") as tar:
            count = sum(_extract(tar, member, folder) for member in tar)
        _check_database(os.path.join(folder, _DATABASE))
        rename(folder, data_dir)
    except tarfile.TarError as error:
        raise UserError("backup-damaged", f"{source} is no whole backup: {error}") from error
    finally:
        if os.path.exists(folder):
            shutil.rmtree(folder)
    return count


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> int:
    """Write one member; returns 1 for an object."""
    if not member.isreg() or not _MEMBER.fullmatch(member.name):
        raise UserError("backup-foreign", f"the backup holds {member.name[:100]!r}, which is no part of one")
    stream = tar.extractfile(member)
    if stream is None:
        raise UserError("backup-damaged", f"{member.name} cannot be read")
    path = os.path.join(folder, member.name)
    make_dirs(os.path.dirname(path), mode=0o700)
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            yield chunk

    written = write_stream(path, chunks(), mode=0o600)
    if written != member.size:
        raise UserError("backup-damaged", f"{member.name} ends early")
    if not member.name.startswith("objects/"):
        return 0
    if digest.hexdigest() != member.name.removeprefix("objects/").replace("/", ""):
        raise UserError("backup-damaged", f"{member.name} does not have the content that its name says")
    return 1


def _check_database(path: str) -> None:
    if not os.path.exists(path):
        raise UserError("backup-damaged", "the backup holds no database")
    try:
        with closing(sqlite3.connect(path)) as connection:
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise UserError("backup-damaged", f"the backup's database is damaged: {error}") from error
    if verdict != "ok":
        raise UserError("backup-damaged", f"the backup's database is damaged: {verdict}")
    sync_dir(os.path.dirname(path))
