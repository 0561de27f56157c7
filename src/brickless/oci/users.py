"""The user that an image names, as numbers: `nginx`, `1000`, `www-data:staff`. Source: OCI image specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from brickless.core.errors import UserError

MAX_ID = (1 << 32) - 2
MAX_DATABASE_BYTES = 4 << 20


class Files(Protocol):
    """Something that holds an image's files."""

    def read_file(self, path: str, *, max_bytes: int = ...) -> bytes | None:
        """A file's bytes, None if it is not there."""


def resolve(user: str, files: Files) -> tuple[int, int]:
    """The user id and group id of `user[:group]`, names looked up in the image's own /etc/passwd and /etc/group.

    A number without an entry counts as it is, with group 0. Raises `UserError` for a name that the image does not have.
    """
    name, _, group = user.partition(":")
    record = _find(files, "/etc/passwd", name)
    if record is not None:
        uid, gid = _number(record[2], user), _number(record[3], user)
    elif name.isdigit():
        uid, gid = _number(name, user), 0
    else:
        raise UserError("image-user", f"the image runs as {user!r}, but its /etc/passwd has no such user")
    return uid, _group(group, user, files) if group else gid


def _group(group: str, user: str, files: Files) -> int:
    record = _find(files, "/etc/group", group)
    if record is not None:
        return _number(record[2], user)
    if group.isdigit():
        return _number(group, user)
    raise UserError("image-user", f"the image runs as {user!r}, but its /etc/group has no such group")


def _find(files: Files, path: str, wanted: str) -> list[str] | None:
    """The record whose name, or else whose number, is wanted."""
    data = files.read_file(path, max_bytes=MAX_DATABASE_BYTES) or b""
    by_number = None
    for record in _records(data):
        if record[0] == wanted:
            return record
        if record[2] == wanted and by_number is None:
            by_number = record
    return by_number


def _records(data: bytes) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and not line.startswith("#"):
            yield fields


def _number(text: str, user: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_ID:
        raise UserError("image-user", f"the image's user {user!r} leads to {text!r}, which is no id")
    return int(text)
