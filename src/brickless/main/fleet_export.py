"""Releases from an export: the tar file that a hub or `pvr export` writes, its objects handed in before its state.

The file may come from anywhere: its members are bounded and their hashes checked before anything is sent.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path
from typing import Any

from brickless.core import canonical
from brickless.core.errors import UserError
from brickless.main.fleetapi import FleetClient

_OBJECT = re.compile(r"(?:\./)?objects/([0-9a-f]{64})\Z")
_MAX_STATE_BYTES = 8 * 1024 * 1024
_CHUNK = 1024 * 1024


def state_of(client: FleetClient, path: Path) -> dict[str, Any]:
    """The state of an export, once the hub has every object of it. Raises `UserError` for a file that is none."""
    try:
        with tarfile.open(path, "r:*") as tar:
            members = {member.name: member for member in tar if member.isreg()}
            head = members.get("json") or members.get("./json")
            if head is None or head.size > _MAX_STATE_BYTES:
                raise _no_export(path, "it has no state in 'json'")
            state = _state(path, _read(tar, head))
            for name, member in members.items():
                if (match := _OBJECT.match(name)) is not None:
                    _hand_in(client, tar, member, match.group(1))
    except (tarfile.TarError, EOFError) as error:
        raise _no_export(path, str(error)) from error
    return state


def _no_export(path: Path, why: str) -> UserError:
    return UserError("no-export", f"{path} is no export: {why}", hint="Make one with `pvr export FILE.tar.gz`")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return b"" if stream is None else stream.read()


def _state(path: Path, data: bytes) -> dict[str, Any]:
    value = canonical.loads(data, max_bytes=_MAX_STATE_BYTES)
    if not isinstance(value, dict):
        raise _no_export(path, "its state is no object")
    return value


def _hand_in(client: FleetClient, tar: tarfile.TarFile, member: tarfile.TarInfo, sha: str) -> None:
    stream = tar.extractfile(member)
    digest = hashlib.sha256()
    while stream is not None and (chunk := stream.read(_CHUNK)):
        digest.update(chunk)
    if digest.hexdigest() != sha:
        raise UserError("export-damaged", f"the object {sha} does not have the content that its name says")
    client.hand_in(sha, member.size, lambda: tar.extractfile(member))
