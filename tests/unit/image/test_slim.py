"""What is left out of a device's bytecode changes nothing that the code does."""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any

import pytest

from brickless.image import slim

SOURCE = '''
"""A module."""
from __future__ import annotations
from typing import NamedTuple

LIMIT: int = 3
later: str

class Point(NamedTuple):
    """Two."""
    x: int
    y: Missing = 2

    def sum(self, by: Unknown = 1) -> Nowhere:
        """Of both."""
        total: int = (self.x + self.y) * by
        return total

class Plain:
    size: int = 4
    name: str

    def double(self, *more: A, last: B, **named: C) -> D:
        assert False, "left out"
        found: int
        found = self.size * 2
        return found, more, last, named

    class Inner:
        def fail(self):
            raise KeyError("here")
'''


def run(source: str = SOURCE) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "made"}
    exec(slim.compiled(source.encode(), "/shown.py"), space)
    return space


def codes(code: CodeType) -> list[CodeType]:
    return [code, *(inner for one in code.co_consts if isinstance(one, CodeType) for inner in codes(one))]


def test_the_code_does_what_it_did() -> None:
    space = run()
    assert space["LIMIT"] == 3
    assert space["Point"]._fields == ("x", "y")
    assert space["Point"](5).sum(by=2) == 14
    assert space["Plain"]().double(1, last=2, z=3) == (8, (1,), 2, {"z": 3})
    assert space["Plain"].Inner.__qualname__ == "Plain.Inner"


def test_what_only_developers_look_at_is_gone() -> None:
    space = run()
    assert space.get("__doc__") is None
    assert space["Point"].__doc__ != "Two."
    assert space["Plain"].double.__annotations__ == {}
    assert inspect.get_annotations(space["Plain"]) == {}
    everything = codes(slim.compiled(SOURCE.encode(), "/shown.py"))
    assert all(one.co_qualname == one.co_name for one in everything)
    assert not [one for one in everything if "Unknown" in str(one.co_consts)]


def test_lines_are_kept() -> None:
    with pytest.raises(KeyError) as error:
        run()["Plain"].Inner().fail()
    last = error.traceback[-1]
    assert (last.frame.code.raw.co_filename, last.frame.code.raw.co_name) == ("/shown.py", "fail")
    assert SOURCE.splitlines()[last.lineno].strip() == 'raise KeyError("here")'


def test_a_module_that_evaluates_its_annotations_keeps_them() -> None:
    space = run("def f(x: int) -> str: ...\nsize: int = 3\n")
    assert space["f"].__annotations__ == {"x": int, "return": str}
    assert space["__annotations__"] == {"size": int}
