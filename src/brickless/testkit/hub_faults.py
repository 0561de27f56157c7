"""What a simulated hub can be told to do wrong, and a request as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What goes wrong. `Fault.number` and `Fault.text` mean what stands beside each."""

    STALL = "stall"  # no answer until the simulator closes
    RESET = "reset"  # the connection is reset before an answer
    TRUNCATE = "truncate"  # the connection ends after `number` bytes of the body
    CUT = "cut"  # the connection is reset after `number` bytes of the body
    FLIP = "flip"  # the lowest bit of byte `number` of the body is flipped
    LENGTH = "length"  # Content-Length is `number` bytes more than the body
    STATUS = "status"  # status `number` with the body `text` and `headers`
    GARBAGE = "garbage"  # 200 with the body `text`
    DRIP = "drip"  # the body comes one byte every `number` milliseconds
    HUGE = "huge"  # a body of `number` bytes without an end in sight
    REDIRECT = "redirect"  # 302 to `text`
    IGNORE_RANGE = "ignore-range"  # the whole body with 200, whatever range was asked for


@dataclass(frozen=True)
class Fault:
    """One scripted misbehaviour: for requests with this method and a path that the expression `path` finds."""

    kind: Kind
    path: str
    method: str = "GET"
    number: int = 0
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    times: int | None = 1
    skip: int = 0


@dataclass
class Armed:
    """A fault with the count of the requests that it was meant for."""

    fault: Fault
    seen: int = 0

    def hits(self, method: str, path: str) -> bool:
        """Whether it is carried out for this request, which counts."""
        if method != self.fault.method or not re.search(self.fault.path, path):
            return False
        self.seen += 1
        first = self.fault.skip + 1
        return self.seen >= first and (self.fault.times is None or self.seen < first + self.fault.times)


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)
