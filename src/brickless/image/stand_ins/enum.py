"""What a device gets as `enum`: classes of named constants, without the standard library's machinery around them.

Each process saves a quarter of a megabyte (ADR 0071). There are `Enum`, `IntEnum`, `StrEnum`, and of flags what the
modules `re`, `socket` and `ssl` ask for. `tests/unit/image/test_stand_ins.py` holds it against the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

STRICT = CONFORM = EJECT = KEEP = "boundary"


def _is_member(name: str, value: object) -> bool:
    return not name.startswith("_") and not hasattr(value, "__get__")


class EnumType(type):
    """Makes members of the constants in a class, and is called to find them by value."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], **_: object) -> EnumType:
        """A `boundary` is taken for what the standard library's `KEEP` is: flags may have any bits."""
        constants = {key: value for key, value in space.items() if _is_member(key, value)}
        made = super().__new__(cls, name, bases, {k: v for k, v in space.items() if k not in constants})
        made._member_map_ = {}
        made._value2member_map_ = {}
        for key, value in constants.items():
            made._add(key, value)
        return made

    _member_map_: dict[str, Any]
    _value2member_map_: dict[Any, Any]

    def _add(cls, name: str, value: object) -> None:
        member = cls._value2member_map_.get(value)
        if member is None:
            member = cls._member(name, value)
            cls._value2member_map_[value] = member
        cls._member_map_[name] = member
        type.__setattr__(cls, name, member)

    def _member(cls, name: str | None, value: object) -> Any:
        made: Any = cls
        # A class with data of its own (a number, a text, `ssl.Purpose`) makes it from the value.
        member = made.__new__(made) if made.__new__ is object.__new__ else made.__new__(made, value)
        member._name_, member._value_ = name, value
        return member

    def __call__(cls: Any, value: Any) -> Any:
        """The member that stands for `value`. Raises `ValueError` when there is none."""
        if type(value) is cls:
            return value
        try:
            return cls._value2member_map_[value]
        except (KeyError, TypeError):
            return cls._missing_(value)

    def _missing_(cls, value: object) -> Any:
        if issubclass(cls, Flag) and isinstance(value, int):
            return cls._member(None, value)
        raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")

    def __getitem__(cls, name: str) -> Any:
        return cls._member_map_[name]

    def __iter__(cls) -> Iterator[Any]:
        return (member for name, member in cls._member_map_.items() if member._name_ == name)

    def __len__(cls) -> int:
        return sum(1 for _ in cls)

    def __contains__(cls, value: object) -> bool:
        return isinstance(value, cls)

    def __bool__(cls) -> bool:
        return True

    @property
    def __members__(cls) -> MappingProxyType[str, Any]:
        return MappingProxyType(cls._member_map_)

    def __setattr__(cls, name: str, value: object) -> None:
        if name in cls.__dict__.get("_member_map_", ()):
            raise AttributeError(f"cannot reassign member {name!r}")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if name in cls.__dict__.get("_member_map_", ()):
            raise AttributeError(f"cannot delete member {name!r}")
        super().__delattr__(name)

    def _convert_(cls, name: str, module: str, chosen: Callable[[str], bool], source: Any = None) -> Any:
        """Make members of a module's constants, and put them in their place there."""
        place = vars(sys.modules[module])
        found = vars(source) if source is not None else place
        constants = {key: found[key] for key in sorted(found) if chosen(key)}
        by_value = sorted(constants.items(), key=lambda pair: (pair[1], pair[0]))
        made = cls.__class__(name, (cls,), {"__module__": module, **dict(by_value)})
        place.update(made.__members__)
        place[name] = made
        return made


EnumMeta = EnumType


class Enum(metaclass=EnumType):
    """A named constant."""

    _name_: Any
    _value_: Any

    @property
    def name(self) -> Any:
        """Its name in the class."""
        return self._name_

    @property
    def value(self) -> Any:
        """What it stands for."""
        return self._value_

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name_}: {self._value_!r}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self._name_}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __hash__(self) -> int:
        return hash(self._name_)

    def __reduce_ex__(self, _: object) -> Any:
        return type(self), (self._value_,)

    def __deepcopy__(self, _: object) -> Any:
        return self

    def __copy__(self) -> Any:
        return self


class IntEnum(int, Enum):
    """A named number."""

    __str__ = int.__repr__
    __format__ = int.__format__  # type: ignore[assignment]  # positional here, named there
    __repr__ = Enum.__repr__


class StrEnum(str, Enum):  # noqa: UP042 - this is that class
    """A named text."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]  # positional here, named there
    __repr__ = Enum.__repr__


class Flag(Enum):
    """Marks classes whose members are combined."""


class IntFlag(int, Flag):
    """Named bits of a number."""

    __str__ = int.__repr__
    __format__ = int.__format__  # type: ignore[assignment]  # positional here, named there

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name_}: {self._value_!r}>" if self._name_ else repr(self._value_)

    def __or__(self, other: int) -> Any:
        return type(self)(int(self) | int(other)) if isinstance(other, int) else NotImplemented

    def __and__(self, other: int) -> Any:
        return type(self)(int(self) & int(other)) if isinstance(other, int) else NotImplemented

    def __xor__(self, other: int) -> Any:
        return type(self)(int(self) ^ int(other)) if isinstance(other, int) else NotImplemented

    def __invert__(self) -> Any:
        return type(self)(~int(self))

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__


ReprEnum = Enum


def unique(made: Any) -> Any:
    """The class as it is: what is checked was checked before it shipped."""
    return made


def _simple_enum(kind: EnumType, *, boundary: object = None) -> Callable[[type], Any]:
    def convert(plain: type) -> Any:
        space = {key: value for key, value in vars(plain).items() if key not in ("__dict__", "__weakref__")}
        return EnumType(plain.__name__, (kind,), space, boundary=boundary)

    return convert


def global_enum(made: Any) -> Any:
    """Put the members into the module of their class, where it looks for them."""
    vars(sys.modules[made.__module__]).update(made.__members__)
    return made
