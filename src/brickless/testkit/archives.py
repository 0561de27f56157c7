"""Archives for tests, made by Python's own tarfile: another program than the ones under test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Bytes:
    """A layer in memory."""

    data: bytes
    diff_id: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The archive in pieces that fit nothing."""
        for place in range(0, len(self.data), 7000):
            yield self.data[place : place + 7000]


def tar_of(*members: tuple[str, dict[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of (name, fields of its header and `data`)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            data = fields.get("data")
            for key, value in fields.items():
                if key != "data":
                    setattr(info, key, value)
            if data is not None:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return buffer.getvalue()


def file(data: bytes = b"", **fields: Any) -> dict[str, Any]:
    """A regular file."""
    return {"data": data, "mode": 0o644, **fields}


def folder(**fields: Any) -> dict[str, Any]:
    """A folder."""
    return {"type": tarfile.DIRTYPE, "mode": 0o755, **fields}


def symlink(target: str) -> dict[str, Any]:
    """A symbolic link."""
    return {"type": tarfile.SYMTYPE, "linkname": target, "mode": 0o777}


def hardlink(target: str) -> dict[str, Any]:
    """A hard link."""
    return {"type": tarfile.LNKTYPE, "linkname": target}
