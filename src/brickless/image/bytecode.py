"""Python source to bytecode, by the very interpreter that will run it on the device, the same bytes every time."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import slim
from brickless.image.closure import Source
from brickless.linux import process

_IMPORTER = """
import importlib, json, sys
for name in json.load(sys.stdin):
    importlib.import_module(name)
"""
COMPILE_TIMEOUT_S = 300.0
# Without docstrings and assertions (-OO), no site packages, no environment, no bytecode written.
FLAGS = "-ISB"


def interpreter(root: Path, version: str, *, home: Path | None = None) -> list[str]:
    """The command that runs the unpacked interpreter below `root`, with its own libraries where it is not static.

    `home` is the root in which it looks for its modules, `root` itself when None.
    Raises `BricklessError` when this machine cannot run it (another processor).
    """
    if platform.machine() != "x86_64":
        raise BricklessError(f"this machine ({platform.machine()}) cannot run the device's interpreter (x86_64)")
    loader = root / "lib64/ld-linux-x86-64.so.2"
    folders = [root / "lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu"]
    python = root / f"usr/bin/python{version}"
    shown = (home or root) / f"usr/bin/python{version}"
    if loader.exists():
        return [str(loader), "--library-path", ":".join(map(str, folders)), "--argv0", str(shown), str(python)]
    if home is not None:  # a static one looks beside itself
        shown.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(python, shown)
    return [str(shown)]


def compile_all(command: Sequence[str], sources: Sequence[Source], shown: str, dest: Path) -> list[Path]:
    """Compile each source into a file below `dest`; `shown` is the folder that tracebacks name. In the same order.

    Raises `process.ProcessError` with the interpreter's words when a source does not compile.
    """
    dest.mkdir(parents=True, exist_ok=True)
    results = [dest / f"{number:04}.pyc" for number in range(len(sources))]
    jobs = [
        (str(one.path), f"{shown}/{one.target.removesuffix('c')}", str(result))
        for one, result in zip(sources, results, strict=True)
    ]
    # A fresh interpreter with fixed hashing, in sorted order: what marshal writes depends on nothing else.
    process.run(
        [*command, FLAGS, "-X", "no_debug_ranges", slim.__file__],
        purpose="compiling the device's Python modules",
        timeout_s=COMPILE_TIMEOUT_S,
        input=json.dumps(jobs).encode(),
        env={"PYTHONHASHSEED": "0"},
    )
    return results


def check_imports(command: Sequence[str], names: Sequence[str]) -> None:
    """Import the modules with the interpreter `command`, which sees nothing but what ships.

    Raises `process.ProcessError` with the interpreter's words when one is missing or does not load.
    """
    process.run(
        [*command, FLAGS, "-c", _IMPORTER],
        purpose="checking that what ships to a device is whole",
        timeout_s=COMPILE_TIMEOUT_S,
        input=json.dumps(list(names)).encode(),
    )
