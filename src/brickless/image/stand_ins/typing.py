"""What a device gets as `typing`: names for annotations, which nothing evaluates there, and a small `NamedTuple`.

The standard library's costs each process 0.6 MB, most of it for classes of types that no device ever looks at, and for
the five functions that it makes for every `NamedTuple` (ADR 0071). Code is checked against the real one; this one
accepts what that accepts. `tests/unit/image/test_stand_ins.py` holds both against each other.
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]  # in every CPython, in no stub
from types import GenericAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as _Anything


class _Form:
    """A name for annotations: what is made from it by `[...]`, `|` or a call means as little as it does."""

    __slots__ = ()
    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]  # of anything

    def __getitem__(self, _: object) -> _Form:
        return self

    def __call__(self, *_: object, **__: object) -> _Form:
        return self

    def __or__(self, _: object) -> _Form:
        return self

    __ror__ = __or__


class Any(_Form):
    """Any type."""


class IO(_Form):
    """A stream."""


BinaryIO = TextIO = IO


class Protocol:
    """A base that promises methods."""

    __slots__ = ()
    __class_getitem__ = classmethod(lambda cls, _: cls)


Generic = Protocol
ClassVar = Final = Literal = Annotated = Optional = Union = Never = NoReturn = Self = TypeAlias = TypeVar = _Form()
NewType = ParamSpec = Concatenate = TypeGuard = Required = NotRequired = Unpack = _Form()


def cast(_kind: object, value: _Anything) -> _Anything:
    """The value as it is."""
    return value


def final(what: _Anything) -> _Anything:
    """The class or function as it is."""
    return what


overload = override = runtime_checkable = no_type_check = final


class _Record(type):
    """Makes the fields of a `NamedTuple` from the annotations of its class."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, _Anything]) -> _Record:
        if bases and bases[0].__dict__.get("_is_root"):
            fields = tuple(space.get("__annotations__", ()))
            defaults = {field: space[field] for field in fields if field in space}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"a field of {name} without a default follows one with a default")
            getters = {field: _tuplegetter(number, "") for number, field in enumerate(fields)}
            own = {"__slots__": (), "_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            space = {**space, **own, **getters}
        return super().__new__(cls, name, bases, space)


class NamedTuple(tuple, metaclass=_Record):  # type: ignore[type-arg]  # evaluated on the device
    """A tuple whose elements have names; its methods are shared by all classes made from it."""

    __slots__ = ()
    _is_root = True
    _fields: tuple[str, ...] = ()
    _field_defaults: dict[str, _Anything] = {}  # noqa: RUF012 - replaced by each class, never changed

    def __new__(cls, *given: _Anything, **named: _Anything) -> _Anything:
        """By position, by name, or by default, as a function call. Raises `TypeError` for too few or too many."""
        fields = cls._fields
        if len(given) == len(fields) and not named:
            return tuple.__new__(cls, given)
        if len(given) > len(fields):
            raise TypeError(f"{cls.__name__} has {len(fields)} fields, {len(given)} were given")
        values = {**cls._field_defaults, **dict(zip(fields, given, strict=False))}
        for name, value in named.items():
            if name not in fields or name in fields[: len(given)]:
                raise TypeError(f"{cls.__name__} got an unexpected or repeated argument {name!r}")
            values[name] = value
        missing = [name for name in fields if name not in values]
        if missing:
            raise TypeError(f"{cls.__name__} misses {', '.join(missing)}")
        return tuple.__new__(cls, [values[name] for name in fields])

    @classmethod
    def _make(cls, values: _Anything) -> _Anything:
        found = tuple.__new__(cls, values)
        if len(found) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(found)}")
        return found

    def _replace(self, **named: _Anything) -> _Anything:
        unknown = set(named) - set(self._fields)
        if unknown:
            raise ValueError(f"Got unexpected field names: {sorted(unknown)!r}")
        return tuple.__new__(type(self), [named.get(name, old) for name, old in zip(self._fields, self, strict=True)])

    def _asdict(self) -> dict[str, _Anything]:
        return dict(zip(self._fields, self, strict=True))

    def __getnewargs__(self) -> tuple[_Anything, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({inside})"
