"""Shared libraries are found below the tree and nowhere else."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from brickless.core.errors import BricklessError
from brickless.image import elf, libraries

PYTHON = Path(sys.executable).resolve()


def tree(tmp_path: Path) -> Path:
    """A root with the interpreter's loader and libraries (any ELF file will do for each)."""
    root = tmp_path / "root"
    found = elf.dynamic(PYTHON.read_bytes(), "python")
    for name in found.needed:
        target = root / "lib/x86_64-linux-gnu" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"not ELF: needs nothing")
    loader = root / found.interpreter.lstrip("/")
    loader.parent.mkdir(parents=True, exist_ok=True)
    loader.write_bytes(b"not ELF")
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(PYTHON, root / "usr/bin/python3")
    return root


def test_all_that_is_needed_is_found(tmp_path: Path) -> None:
    root = tree(tmp_path)
    found = libraries.needed(root, [root / "usr/bin/python3"])
    assert "libc.so.6" in found
    assert all(path.is_relative_to(root) for path in found.values())
    assert any(name.startswith("/lib") for name in found), "the loader, under its absolute path"


def test_a_missing_library_names_who_needs_it(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    with pytest.raises(BricklessError, match=r"python3 needs the library libc\.so\.6"):
        libraries.needed(root, [root / "usr/bin/python3"])


def test_a_link_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    libc = root / "lib/x86_64-linux-gnu/libc.so.6"
    libc.unlink()
    libc.symlink_to("../../../outside")
    (tmp_path / "outside").write_bytes(b"")
    with pytest.raises(BricklessError, match="no file below"):
        libraries.needed(root, [root / "usr/bin/python3"])


def test_a_library_that_gives_nothing_is_asked_for_no_more(tmp_path: Path) -> None:
    """The interpreter names zlib; here another library has that name, from which it takes nothing."""
    root = tmp_path / "root"
    folder = root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    system = Path("/usr/lib/x86_64-linux-gnu")
    before = elf.dynamic(PYTHON.read_bytes(), "python").needed
    for name in before:
        shutil.copy((system / name).resolve(), folder / name)
    shutil.copy((system / "liblzma.so.5").resolve(), folder / "libz.so.1")
    out = libraries.lean(root, PYTHON, tmp_path / "lean")
    after = elf.dynamic(out.read_bytes(), "lean").needed
    assert "libz.so.1" in before
    assert after == tuple(name for name in before if name != "libz.so.1")
    assert out.stat().st_size == PYTHON.stat().st_size


def test_a_script_needs_no_library(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert libraries.needed(tmp_path, [tmp_path / "script"]) == {}
