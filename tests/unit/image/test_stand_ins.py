"""What stands in for modules of the standard library on a device behaves as they do, where our code can tell."""

from __future__ import annotations

import collections
import copy
import enum
import importlib.util
import pickle
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from brickless.image.initramfs import STAND_INS

RECORD = """
from __future__ import annotations
from {module} import NamedTuple

class Point(NamedTuple):
    x: int
    y: int = 2
    z: str = "z"

    @property
    def total(self) -> int:
        return self.x + self.y

class Empty(NamedTuple):
    pass

class Further(Point):
    __slots__ = ()
    def total2(self) -> int:
        return self.total * 2
"""
CONSTANTS = """
from {module} import Enum, IntEnum, IntFlag, StrEnum

class Word(StrEnum):
    ONE = "one"
    TWO = "two"
    ALSO_ONE = "one"

    @property
    def shout(self) -> str:
        return self.value.upper()

class Number(IntEnum):
    LOW = 1
    HIGH = 5

class Plain(Enum):
    A = (1, 2)
    B = "b"

class Bits(IntFlag):
    R = 4
    W = 2
"""


def load(name: str) -> ModuleType:
    """The stand-in for `name`, beside the real one."""
    path = STAND_INS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def both(name: str, source: str) -> Iterator[dict[str, Any]]:
    load(name)
    for module in (name, f"stand_in_{name}"):
        space: dict[str, Any] = {"__name__": f"made_with_{module}"}
        sys.modules[space["__name__"]] = ModuleType(space["__name__"])
        exec(compile(source.format(module=module), module, "exec"), space)
        vars(sys.modules[space["__name__"]]).update(space)
        yield space


def outcome(expression: str, space: dict[str, Any]) -> str:
    """What an expression gives, or which kind of error it raises."""
    try:
        return repr(eval(expression, {"copy": copy, "pickle": pickle, **space}))
    except Exception as error:
        return f"raises {type(error).__name__}"


@pytest.mark.parametrize(
    "expression",
    [
        "Point(1)",
        "Point(1, 3, 'q')",
        "Point(x=5, z='w')",
        "Point(1, y=9)",
        "Point()",
        "Point(1, 2, 'z', 4)",
        "Point(1, x=1)",
        "Point(1, w=1)",
        "Point(1)._replace(y=7)",
        "Point(1)._replace(w=7)",
        "Point(1)._asdict()",
        "Point._fields, Point._field_defaults, Point.__match_args__, Empty._fields, Empty()",
        "Point._make([1, 2, 'c'])",
        "Point._make([1])",
        "Point(3).total, Point(3) == (3, 2, 'z'), hash(Point(3)) == hash((3, 2, 'z')), Point(1) < Point(2)",
        "Further(4).total2(), isinstance(Further(4), Point), Further(4)._fields, Further(4)",
        "Point(1)[0], len(Point(1)), [*Point(1)], Point(1).x, Point(1).z",
        "setattr(Point(1), 'x', 3)",
        "setattr(Point(1), 'w', 3)",
        "copy.copy(Point(1)), copy.deepcopy(Point(1)), isinstance(Point(1), tuple)",
        "pickle.loads(pickle.dumps(Point(1)))",
        "hasattr(Point(1), '__dict__')",
    ],
)
def test_named_tuples(expression: str) -> None:
    real, small = both("typing", RECORD)
    assert outcome(expression, small) == outcome(expression, real)


def test_a_field_without_a_default_after_one_with_a_default_is_refused() -> None:
    source = "from {module} import NamedTuple\nclass Bad(NamedTuple):\n    x: int = 1\n    y: int\n"
    load("typing")
    for module in ("typing", "stand_in_typing"):
        with pytest.raises(TypeError, match="default"):
            exec(source.format(module=module), {"__name__": "bad"})


@pytest.mark.parametrize(
    "expression",
    [
        "list(Word), len(Word), list(Number), list(Plain)",
        "Word.ONE, str(Word.ONE), f'{Word.ONE}', Word.ONE.name, Word.ONE.value, Word.ONE.shout, Word.ONE == 'one'",
        "Word('two') is Word.TWO, Word['TWO'] is Word.TWO, Word.ALSO_ONE is Word.ONE, Word(Word.ONE) is Word.ONE",
        "Word('three')",
        "Word['THREE']",
        "Number(2)",
        "Number(Word.ONE)",
        "str(Number.HIGH), f'{Number.HIGH:03}', Number.HIGH + 1, Number.LOW < Number.HIGH, max(Number)",
        "{Word.ONE: 1}['one'], hash(Word.ONE) == hash('one'), {Number.LOW: 2}[1]",
        "dict(Number.__members__), 'LOW' in Number.__members__, Number.LOW in Number",
        "list(Word.__members__)",
        "str(Plain.A), f'{Plain.A}', Plain.A.value, Plain((1, 2)) is Plain.A, Plain.A == (1, 2), Plain.A != Plain.B",
        "Plain([])",
        "setattr(Word, 'ONE', 3)",
        "delattr(Word, 'ONE')",
        "int(Bits.R | Bits.W), int(Bits.R & 6), int(Bits.R ^ 6), Bits(4) is Bits.R, bool(Bits.R & Bits.W)",
        "copy.deepcopy(Word.ONE) is Word.ONE, pickle.loads(pickle.dumps(Plain.A)) is Plain.A",
        "isinstance(Word.ONE, str), isinstance(Number.LOW, int), isinstance(Plain.A, Plain), bool(Word)",
        "'-'.join([Word.ONE, Word.TWO]), 'a%sb' % Word.ONE, Word.ONE.startswith('o'), Word.ONE + 'x'",
    ],
)
def test_named_constants(expression: str) -> None:
    real, small = both("enum", CONSTANTS)
    assert outcome(expression, small) == outcome(expression, real)


@pytest.mark.parametrize(("name", "real"), [("typing", typing), ("enum", enum), ("collections", collections)])
def test_all_that_our_stack_imports_is_there(name: str, real: ModuleType) -> None:
    """Whatever the device stack takes from the module exists in both."""
    import ast

    small = load(name)
    package = Path(importlib.import_module("brickless").__file__ or "").parent
    for part in ("core", "store", "linux", "device"):
        for path in sorted((package / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == name:
                    for alias in node.names:
                        assert hasattr(real, alias.name)
                        assert hasattr(small, alias.name), f"{path} imports {name}.{alias.name}"


@pytest.mark.parametrize(
    "expression",
    [
        "Point(1, 2), Point(1, y=2), Point(x=1, y=2), Point(1)",
        "Point()",
        "Point(1, 2, 3)",
        "Point(1, x=2)",
        "Point(1, z=2)",
        "Point._make([1, 2]), Point._fields, Point._field_defaults, Point.__match_args__",
        "Point._make([1])",
        "Point(1)._replace(y=5), Point(1)._asdict()",
        "Point(1)._replace(z=5)",
        "copy.copy(Point(1)), Point(1) == (1, 7), hash(Point(1)) == hash((1, 7)), Point(1)[1], Point(1).x",
        "setattr(Point(1), 'x', 3)",
        "Plain(1, 2, 3), Plain.__module__, Plain._fields",
        "Further(1).sum(), Further(1)",
        "list(deque([1, 2, 3], 2)), OrderedDict(a=1), defaultdict(int)['a'], abc.Mapping.__name__",
    ],
)
def test_collections(expression: str) -> None:
    source = """
from {module} import OrderedDict, abc, defaultdict, deque, namedtuple
Point = namedtuple("Point", "x y", defaults=[7])
Plain = namedtuple("Plain", ["a", "b", "c"], module="elsewhere")
class Further(namedtuple("Base", "x, y", defaults=(2,))):
    def sum(self):
        return self.x + self.y
"""
    real, small = both("collections", source)
    assert outcome(expression, small) == outcome(expression, real)
