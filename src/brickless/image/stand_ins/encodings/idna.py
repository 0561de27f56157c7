"""What a device gets as the codec `idna`: host names in ASCII as they are, all others refused.

`socket` encodes every host name by this codec. Our code passes ASCII alone (hosts of the configuration and of URLs are
checked); the standard library's would bring the tables of Unicode, a megabyte.
"""

from __future__ import annotations

import codecs
from typing import Any


def _encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    if errors != "strict":
        raise UnicodeError(f"unsupported error handling {errors}")
    if any(not 0 < len(label) < 64 for label in text.rstrip(".").split(".")) and text:
        raise UnicodeError("label empty or too long")
    return text.encode("ascii"), len(text)


def _decode(data: Any, errors: str = "strict") -> tuple[str, int]:
    return bytes(data).decode("ascii", errors), len(bytes(data))


def getregentry() -> codecs.CodecInfo:
    """What the registry of codecs asks for."""
    return codecs.CodecInfo(_encode, _decode, name="idna")
