"""Drivers of a container: the modules behind its aliases, loaded before it starts (device.md 1.10, 5.8).

Loading runs apart from the supervisor: reading `modules.dep` takes memory that a process for life should not keep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from brickless.core import drivers
from brickless.linux import modules

MAX_VALUE_BYTES = 4096
Table = Mapping[str, Mapping[str, tuple[str, ...]]]


class Board(NamedTuple):
    """What aliases are resolved with: `bsp/drivers.json`, PV_BOOTLOADER_FITCONFIG, folders of user-meta files."""

    table: Table
    fitconfig: str
    user_meta: tuple[str, ...]

    def value(self, key: str) -> str:
        """The owner's value of a key, from the first folder that has it; "" when nobody set it."""
        if "/" in key or key in ("", ".", ".."):
            return ""
        for folder in self.user_meta:
            try:
                with open(os.path.join(folder, key), "rb") as stream:
                    return stream.read(MAX_VALUE_BYTES).decode("utf-8", "replace").strip()
            except FileNotFoundError:
                continue
        return ""

    def modules_of(self, alias: str) -> list[drivers.Module]:
        """See `core.drivers.resolve`."""
        return drivers.resolve(self.table, alias, fitconfig=self.fitconfig, user_meta=self.value)


def load(board: Board, aliases: Iterable[str]) -> None:
    """Load the modules of the aliases in order. Raises `OSError`, and `ValueError` for an alias nobody defines."""
    for alias in aliases:
        wanted = board.modules_of(alias)
        if not wanted:
            continue
        known = modules.Modules()
        for module in wanted:
            known.load(module.name, module.parameters)


def try_load(board: Board, aliases: Iterable[str]) -> list[str]:
    """Load what can be loaded; the faults, in words."""
    return _each(aliases, lambda alias: load(board, [alias]))


def unload(board: Board, aliases: Iterable[str]) -> list[str]:
    """Unload the modules of the aliases, the last first; the faults, in words."""

    def one(alias: str) -> None:
        for module in reversed(board.modules_of(alias)):
            modules.unload(module.name)

    return _each(aliases, one)


def _each(aliases: Iterable[str], do: Callable[[str], None]) -> list[str]:
    faults = []
    for alias in aliases:
        try:
            do(alias)
        except (OSError, ValueError) as error:
            faults.append(f"driver {alias}: {error}")
    return faults


def status(board: Board, alias: str) -> str:
    """LOADED, UNLOADED, or UNKNOWN for an alias that nobody defines."""
    try:
        wanted = board.modules_of(alias)
    except ValueError:
        return "UNKNOWN"
    there = modules.loaded()
    return "LOADED" if all(modules.canonical(module.name) in there for module in wanted) else "UNLOADED"
