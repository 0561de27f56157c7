"""What the supervisor and the agent both need, for the process that loads it once and forks them (ADR 0072)."""

from __future__ import annotations

import contextlib
import decimal
import enum
import json
import re
import socket
import struct

from brickless.core import canonical, progress, state, update
from brickless.device import config
from brickless.device.link import supervisor
from brickless.linux import mount, net
from brickless.store import trails

__all__ = [
    "canonical",
    "config",
    "contextlib",
    "decimal",
    "enum",
    "json",
    "mount",
    "net",
    "progress",
    "re",
    "socket",
    "state",
    "struct",
    "supervisor",
    "trails",
    "update",
]
