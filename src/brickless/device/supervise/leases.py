"""The leases of containers' addresses, for a supervisor that is started again. In memory (`/run`)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from brickless.core.ipam import Lease
from brickless.store import atomic

MAX_BYTES = 1 << 20


def read(path: str) -> dict[str, Lease]:
    """The leases by container; a file that is missing or damaged holds none."""
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read(MAX_BYTES))
        return {str(name): Lease(**fields) for name, fields in value.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def write(path: str, leases: Mapping[str, Lease]) -> None:
    """Write them down."""
    text = json.dumps({name: lease._asdict() for name, lease in leases.items()})
    atomic.write_file(path, text.encode(), mode=0o600, durable=False)
