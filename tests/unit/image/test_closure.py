"""Which modules ship: what ours import, and what those need when they are loaded."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

import brickless
from brickless.core.errors import BricklessError
from brickless.image import bytecode, closure

STDLIB = Path(sysconfig.get_path("stdlib"))


def package(tmp_path: Path, text: str) -> Path:
    root = tmp_path / "brickless"
    for part in closure.STACK:
        (root / part).mkdir(parents=True)
        (root / part / "__init__.py").write_text("")
    (root / "__init__.py").write_text("")
    (root / "device" / "main.py").write_text(text)
    return root


def names(root: Path) -> set[str]:
    return {one.name for one in closure.find(STDLIB, closure.device_modules(root)).sources}


def test_imports_inside_our_functions_count(tmp_path: Path) -> None:
    found = names(package(tmp_path, "def f():\n    import json.decoder\n"))
    assert {"json", "json.decoder", "json.scanner", "re", "brickless.device.main"} <= found


def test_what_is_only_for_type_checkers_stays_out(tmp_path: Path) -> None:
    assert "csv" not in names(
        package(tmp_path, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import csv\n")
    )


def test_the_device_stack_must_not_import_a_workstations_part(tmp_path: Path) -> None:
    with pytest.raises(BricklessError, match=r"brickless\.oci"):
        names(package(tmp_path, "import brickless.oci\n"))


def test_our_real_stack_is_whole_and_light() -> None:
    found = names(Path(brickless.__file__).parent)
    assert "brickless.device.pid1.init" in found
    assert not found & {"asyncio", "argparse", "inspect", "pickle", "unittest", "pathlib", "multiprocessing"}


def test_bytecode_is_the_same_every_time_and_runs_without_its_source(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text('"""A docstring."""\nassert False\nNAMES = {"a", "b", "c"}\nprint(__doc__)\n')
    source = closure.Source("one", tmp_path / "one.py", False)
    results = []
    for folder in ("first", "second"):
        (path,) = bytecode.compile_all([sys.executable], [source], "/usr/lib/python3", tmp_path / folder)
        results.append(path.read_bytes())
    assert results[0] == results[1]
    assert b"A docstring" not in results[0]
    assert b"/usr/lib/python3/one.py" in results[0]


def test_a_module_that_does_not_compile_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n")
    source = closure.Source("bad", tmp_path / "bad.py", False)
    with pytest.raises(OSError, match="invalid syntax"):
        bytecode.compile_all([sys.executable], [source], "/usr/lib", tmp_path / "out")
