"""What the supervisor and the agent both need, for the process that loads it once and forks them (ADR 0072)."""

from __future__ import annotations

import contextlib
import decimal
import enum
import json
import re
import socket
import struct
import zlib

from brickless.core import canonical, progress, state, update
from brickless.device import config
from brickless.device.boot import backend
from brickless.device.control import places
from brickless.device.link import supervisor
from brickless.linux import journal, mount, net
from brickless.store import sector, trails

__all__ = [
    "backend",
    "canonical",
    "config",
    "contextlib",
    "decimal",
    "enum",
    "journal",
    "json",
    "mount",
    "net",
    "places",
    "progress",
    "re",
    "sector",
    "socket",
    "state",
    "struct",
    "supervisor",
    "trails",
    "update",
    "zlib",
]
