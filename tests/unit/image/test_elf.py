"""The ELF reader, on this machine's own programs and on broken bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.image import elf

PYTHON = Path(sys.executable).resolve().read_bytes()


def test_an_interpreter_needs_libc_and_names_its_loader() -> None:
    found = elf.dynamic(PYTHON, "python")
    assert "libc.so.6" in found.needed
    assert found.interpreter.startswith("/lib")


def test_a_section_by_name() -> None:
    assert elf.section(PYTHON, ".interp", "python").rstrip(b"\0").decode() == elf.dynamic(PYTHON, "python").interpreter
    assert elf.section(PYTHON, ".no-such", "python") == b""


def test_a_library_is_taken_off_the_list() -> None:
    libc = frozenset({"libc.so.6"})
    lean = elf.without(PYTHON, libc, "python")
    assert elf.dynamic(lean, "python").needed == tuple(
        name for name in elf.dynamic(PYTHON, "python").needed if name not in libc
    )
    assert len(lean) == len(PYTHON)
    assert elf.without(PYTHON, frozenset(), "python") == PYTHON


def test_symbols_that_are_taken_and_offered() -> None:
    found = elf.symbols(PYTHON, "python")
    assert "malloc" in found.taken
    assert "Py_Main" in found.offered or "Py_BytesMain" in found.offered | found.taken


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "leave the file"),
        (b"#!/bin/sh\n" * 20, "no 64-bit"),
        (b"\x7fELF\x01\x01" + bytes(200), "no 64-bit"),
        (PYTHON[:100], "leave the file"),
        (PYTHON[:5000], "leave the file"),
    ],
)
def test_broken_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(HostileInputError, match=why):
        elf.dynamic(data, "broken")


@given(st.integers(0, 0x200), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_never_ends_in_another_error(position: int, garbage: bytes) -> None:
    data = PYTHON[:position] + garbage + PYTHON[position + len(garbage) : 1 << 16]
    libc = frozenset({"libc.so.6"})
    for read in (
        lambda: elf.dynamic(data, "damaged"),
        lambda: elf.section(data, ".modinfo", "damaged"),
        lambda: elf.symbols(data, "damaged"),
        lambda: elf.without(data, libc, "damaged"),
    ):
        try:
            read()
        except HostileInputError:
            continue
