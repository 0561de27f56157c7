"""The rules of the house as tests: what ships to a device is stdlib only, files are readable in one sitting."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SRC = ROOT / "src" / "brickless"
DEVICE_STACK = ("core", "store", "linux", "device")
# `dataclasses` alone costs 62 ms and 2 MB at start (see docs/adr/0006-device-python.md); the others are as heavy.
TOO_HEAVY_FOR_A_DEVICE = {
    "dataclasses",
    "argparse",
    "asyncio",
    "logging",
    "pathlib",
    "inspect",
    "unittest",
    "pickle",
}
PID1_MODULES = {
    "__future__",
    "brickless",
    "errno",
    "gc",
    "os",
    "select",
    "signal",
    "sys",
    "time",
    "collections",
    "typing",
}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
EXCEPTIONS = Path(__file__).parent / "size_exceptions.txt"


def modules(*parts: str) -> Iterator[Path]:
    for part in parts:
        yield from sorted((SRC / part).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("path", list(modules(*DEVICE_STACK)), ids=lambda p: str(p.relative_to(SRC)))
def test_the_device_stack_is_standard_library_only(path: Path) -> None:
    for line, name in imports(path):
        root = name.partition(".")[0]
        if root == "_brickless" and path == SRC / "linux" / "libc.py":
            continue  # built into the interpreter that devices get (ADR 0070); ctypes does the same elsewhere
        assert root in sys.stdlib_module_names or root == "brickless", f"{path}:{line} imports {name}"
        assert root not in TOO_HEAVY_FOR_A_DEVICE, f"{path}:{line}: {name} is too heavy for a device"
        if root == "brickless":
            assert name.split(".")[1] in DEVICE_STACK, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", list(modules("device/pid1")), ids=lambda p: str(p.relative_to(SRC)))
def test_pid_1_imports_next_to_nothing(path: Path) -> None:
    for line, name in imports(path):
        assert name.partition(".")[0] in PID1_MODULES, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", list(modules(".")), ids=lambda p: str(p.relative_to(SRC)))
def test_only_linux_opens_the_doors_to_the_kernel_and_to_processes(path: Path) -> None:
    if path.is_relative_to(SRC / "linux"):
        return
    for line, name in imports(path):
        assert name.partition(".")[0] not in {"ctypes", "subprocess", "pty"}, f"{path}:{line} imports {name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"system", "popen", "posix_spawn"}, f"{path}:{node.lineno} uses os.{node.attr}"


def too_large() -> Iterator[str]:
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text()
        name = str(path.relative_to(SRC))
        if text.count("\n") > MAX_FILE_LINES:
            yield name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                    yield f"{name}:{node.name}"


def test_files_and_functions_are_read_in_one_sitting() -> None:
    listed = {line for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")}
    found = set(too_large())
    assert not found - listed, "too large, split it"
    assert not listed - found, "no longer too large: take it off the list, which may only shrink"


def test_file_modes_are_octal_and_results_are_not_thrown_away() -> None:
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            assert not re.search(r"\b(chmod|mkdir|makedirs)\([^)]*\b[1-9]\d{2}\b\)", line), (
                f"{path}:{number}: decimal mode"
            )
            assert not re.match(r"\s*(_ = )?(map|filter)\(", line), f"{path}:{number}: a lazy result thrown away"


def test_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = text.split("```")[1]
    drawn = {m.group(1) for m in re.finditer(r"^\s*([a-z0-9_./]+)/\s", tree, re.MULTILINE)}
    top = {
        p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in {"build", "dist"}
    }
    parts = {p.name for p in SRC.iterdir() if p.is_dir() and p.name != "__pycache__"}
    below = {
        p.name for part in ("device", "hub") for p in (SRC / part).iterdir() if p.is_dir() and p.name != "__pycache__"
    }
    tiers = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and p.name != "__pycache__"}
    top.discard("src")
    below |= {"commands"}
    expected = top | parts | below | tiers | {"src/brickless", "vectors"}
    missing = expected - drawn
    stale = drawn - expected
    assert not missing, f"ARCHITECTURE.md does not draw {sorted(missing)}"
    assert not stale, f"ARCHITECTURE.md draws folders that are gone: {sorted(stale)}"
