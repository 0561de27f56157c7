"""Kernels that hang on purpose are what they were, but for their first instruction."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from brickless.core.errors import BricklessError
from brickless.image import boards
from brickless.main.badbsps import ARM64_HANG, X86_HANG, Fault, hanging_kernel, init_of


def pc_kernel() -> bytes:
    """A header as PCs' kernels have it (Documentation/arch/x86/boot.rst): three sectors of setup, then the code."""
    data = bytearray(b"k" * 8192)
    data[0x1F1] = 3
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    return bytes(data)


def test_a_kernel_for_pcs_hangs_where_its_32_bit_code_starts(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(pc_kernel())
    made = hanging_kernel(boards.board("pc"), tmp_path / "vmlinuz", tmp_path).read_bytes()
    assert made[2048 : 2048 + len(X86_HANG)] == X86_HANG
    assert (made[:2048], made[2052:]) == (pc_kernel()[:2048], pc_kernel()[2052:])


@pytest.mark.parametrize("packed", [True, False])
def test_a_kernel_for_arm64_branches_to_itself(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "Image").write_bytes(gzip.compress(b"k" * 4096) if packed else b"k" * 4096)
    made = hanging_kernel(boards.board("virt-arm64"), tmp_path / "Image", tmp_path).read_bytes()
    assert made == ARM64_HANG.to_bytes(4, "little") + b"k" * 4092


def test_what_is_no_kernel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(bytes(8192))
    with pytest.raises(BricklessError, match="no kernel for PCs"):
        hanging_kernel(boards.board("pc"), tmp_path / "vmlinuz", tmp_path)


@pytest.mark.parametrize("fault", list(Fault))
def test_inits_are_programs_that_compile(fault: Fault) -> None:
    for addition in init_of(fault).values():
        assert addition.mode == 0o755
        assert isinstance(addition.content, bytes)
        compile(addition.content, str(fault), "exec")
    assert bool(init_of(fault)) == (fault is not Fault.HANG_EARLY)
