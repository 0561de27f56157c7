"""Fragments of a state: `#web,_config/web,-old` behind a reference says which parts are taken and which are removed.

Matching goes by path component: `app` means `app` and `app/...`, never `app2/...` (contract pvr.md 3.3; the
reference's plain prefix match loses neighbours, which we do not copy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.core.merge import apply


class Fragment(NamedTuple):
    """The parts to take (`include`; none means all) and the parts to remove (`remove`)."""

    include: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Fragment:
        """Read `a,b,-c`, without the leading `#`; the empty text selects everything. Raises `UserError`."""
        include: list[str] = []
        remove: list[str] = []
        for item in text.split(",") if text else ():
            name = item.removeprefix("-").rstrip("/")
            if not name:
                raise UserError(
                    "fragment-empty-item",
                    f"the fragment {text!r} has an empty item",
                    hint="Write parts with commas between, as in #web,_config/web,-old",
                )
            (remove if item.startswith("-") else include).append(name)
        return cls(tuple(include), tuple(remove))

    def selects(self, path: str) -> bool:
        """Tell whether the incoming entry `path` is taken.

        Removals do not count here: they are about the local side.
        """
        return not self.include or covers(self.include, path)

    def removes(self, path: str) -> bool:
        """Tell whether the local entry `path` is removed."""
        return covers(self.remove, path)

    def select(self, entries: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the entries that are taken."""
        return {path: value for path, value in entries.items() if self.selects(path)}

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return ",".join((*self.include, *(f"-{name}" for name in self.remove)))


def covers(parts: Iterable[str], path: str) -> bool:
    """Tell whether `path` is one of `parts` or lies below one."""
    return any(path == part or path.startswith(f"{part}/") for part in parts)


def get(local: Mapping[str, JsonValue], incoming: Mapping[str, JsonValue], fragment: Fragment) -> dict[str, JsonValue]:
    """Replace the selected parts of `local` by those of `incoming`, then drop what the fragment removes.

    Without positive items everything is replaced, `#spec` included; with them `#spec` stays as it is.
    """
    kept = {path: value for path, value in local.items() if not fragment.selects(path)}
    kept.update(fragment.select(incoming))
    return {path: value for path, value in kept.items() if not fragment.removes(path)}


def merge(
    local: Mapping[str, JsonValue], incoming: Mapping[str, JsonValue], fragment: Fragment
) -> dict[str, JsonValue]:
    """Drop what the fragment removes from `local`, then merge the selected parts of `incoming` into it, member by
    member.

    Local members inside an inline JSON survive. An entry that `local` lacks is taken verbatim, or its signature would
    break.
    """
    kept: dict[str, JsonValue] = {path: value for path, value in local.items() if not fragment.removes(path)}
    merged = apply(kept, fragment.select(incoming), keep_nulls=True)
    assert isinstance(merged, dict)  # noqa: S101 - a patch that is an object makes an object
    return merged
