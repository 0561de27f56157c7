"""Drivers by alias: which modules `bsp/drivers.json` means by a name, with the owner's values filled in. Pure.

{"all": {"wifi": ["brcmfmac", "brcmutil debug=${user-meta:WIFI_DEBUG}"]}, "fitconfig:board-2": {...}}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

_REFERENCE = re.compile(r"\$\{user-meta:([^}]{1,128})\}")
MAX_ENTRY = 4096


class Module(NamedTuple):
    """A module of the kernel with its parameters."""

    name: str
    parameters: str


def resolve(
    drivers: Mapping[str, Mapping[str, tuple[str, ...]]], alias: str, *, fitconfig: str, user_meta: Callable[[str], str]
) -> list[Module]:
    """The modules of an alias, in the order of loading. Raises `ValueError` for an alias that nobody defines.

    The section of the booted configuration comes before `all`. A key that the owner did not set leaves its parameter
    out: `debug=` without a value would be refused by the kernel.
    """
    entries = drivers.get(f"fitconfig:{fitconfig}", {}).get(alias) if fitconfig else None
    if entries is None:
        entries = drivers.get("all", {}).get(alias)
    if entries is None:
        raise ValueError(f"no driver is called {alias} in bsp/drivers.json")
    return [_module(entry, user_meta) for entry in entries if entry.strip()]


def _module(entry: str, user_meta: Callable[[str], str]) -> Module:
    name, *words = entry.split()
    kept = []
    for word in words:
        values = [user_meta(key) for key in _REFERENCE.findall(word)]
        if all(values):
            kept.append(_REFERENCE.sub(lambda match: _clean(user_meta(match[1])), word))
    parameters = " ".join(kept)
    if "/" in name or len(parameters) > MAX_ENTRY:
        raise ValueError(f"{entry[:80]!r} is no module with parameters")
    return Module(name, parameters)


def _clean(value: str) -> str:
    """An owner's value is one word: a blank in it would start a parameter of its own."""
    return "".join(char for char in value if char.isprintable() and not char.isspace() and char not in "\"'")
