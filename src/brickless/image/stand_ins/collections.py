"""What a device gets as `collections`: the containers that are compiled, the abstract ones, and records by a call.

The standard library's brings chains, counters and user types that nothing on a device makes: 0.1 MB in memory.
"""

from __future__ import annotations

import _collections_abc as abc
import sys
from _collections import OrderedDict, _tuplegetter, defaultdict, deque  # type: ignore[import-not-found]  # in every CPython, in no stub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

sys.modules["collections.abc"] = abc


def namedtuple(name: str, fields: str | Iterable[str], *, defaults: Iterable[Any] = (), module: str = "") -> Any:
    """A class of tuples whose elements have names. Raises `TypeError` when it is called with too few or too many."""
    names = tuple(fields.replace(",", " ").split()) if isinstance(fields, str) else tuple(fields)
    given = tuple(defaults)
    default: dict[str, Any] = dict(zip(names[len(names) - len(given) :], given, strict=True))

    def new(cls: type, *values: Any, **named: Any) -> Any:
        found: dict[str, Any] = {**default, **dict(zip(names, values, strict=False)), **named}
        if len(values) > len(names) or found.keys() != set(names) or set(names[: len(values)]) & named.keys():
            raise TypeError(f"{name} takes {', '.join(names)}")
        return tuple.__new__(cls, [found[one] for one in names])

    def make(cls: type, values: Iterable[Any]) -> Any:
        found: tuple[Any, ...] = tuple.__new__(cls, values)
        if len(found) != len(names):
            raise TypeError(f"{name} takes {len(names)} values, not {len(found)}")
        return found

    def replace(self: Any, **named: Any) -> Any:
        if named.keys() - set(names):
            raise ValueError(f"{name} has no {', '.join(sorted(named.keys() - set(names)))}")
        return make(type(self), (named.get(one, value) for one, value in zip(names, self, strict=True)))

    def show(self: Any) -> str:
        pairs = ", ".join(f"{one}={value!r}" for one, value in zip(names, self, strict=True))
        return f"{type(self).__name__}({pairs})"

    space: dict[str, Any] = {
        "__slots__": (),
        "__module__": module or sys._getframe(1).f_globals.get("__name__", "__main__"),
        "__match_args__": names,
        "_fields": names,
        "_field_defaults": default,
        "__new__": new,
        "__repr__": show,
        "_make": classmethod(make),
        "_replace": replace,
        "_asdict": lambda self: dict(zip(names, self, strict=True)),
        "__getnewargs__": lambda self: tuple.__add__(self, ()),
        **{one: _tuplegetter(number, "") for number, one in enumerate(names)},
    }
    return type(name, (tuple,), space)


__all__ = ["OrderedDict", "abc", "defaultdict", "deque", "namedtuple"]
