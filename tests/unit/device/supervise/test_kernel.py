"""Kernel settings: each reaches its file, what the kernel lacks or refuses is said."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from brickless.device.supervise import kernel


@pytest.fixture
def proc_sys(tmp_path: Path) -> Path:
    for name in ("kernel/core_pattern", "vm/swappiness", "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"):
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old\n")
    return tmp_path / "sys"


def test_settings_are_written(proc_sys: Path) -> None:
    said: list[str] = []
    wanted = {"vm_swappiness": "10", "net.ipv4.ip_forward": "1", "net_ipv4_conf_all_rp_filter": "2"}
    kernel.apply(wanted, said.append, str(proc_sys))
    assert said == []
    assert (proc_sys / "vm/swappiness").read_text() == "10"
    assert (proc_sys / "net/ipv4/ip_forward").read_text() == "1"
    assert (proc_sys / "net/ipv4/conf/all/rp_filter").read_text() == "2"


def test_what_this_kernel_lacks_or_refuses_is_said(proc_sys: Path) -> None:
    said: list[str] = []
    (proc_sys / "vm/swappiness").unlink()
    (proc_sys / "kernel/nothing").mkdir()
    kernel.apply({"vm_swappiness": "10", "kernel_nothing": "1"}, said.append, str(proc_sys))
    assert said == [
        "configuration: this kernel has no setting vm_swappiness",
        "configuration: this kernel has no setting kernel_nothing",
    ]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # files open, and refuse what is written
    try:
        kernel.apply({"kernel_core_pattern": "core"}, said.append, str(proc_sys))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said[2:] == ["configuration: the kernel refuses kernel_core_pattern=core: File too large"]


def test_no_name_leads_out_of_the_settings(proc_sys: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    for name in ("../victim", str(victim), f"vm_{victim}", f"_{victim}", "vm/../../victim", ".._victim", "", "/"):
        said: list[str] = []
        kernel.apply({name: "x"}, said.append, str(proc_sys))
        assert said == [f"configuration: this kernel has no setting {name}"]
        assert victim.read_text() == "whole"


def test_crashes_go_to_our_program_unless_configured(
    proc_sys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pvcrash"
    monkeypatch.setattr(kernel, "CRASH_PROGRAM", str(program))
    pattern = proc_sys / "kernel/core_pattern"
    kernel.apply({}, print, str(proc_sys))
    assert pattern.read_text() == "old\n"  # an image without the program keeps the kernel's own
    program.touch(mode=0o755)
    kernel.apply({}, print, str(proc_sys))
    assert pattern.read_text() == kernel.CRASH_PATTERN
    kernel.apply({"kernel.core_pattern": "core"}, print, str(proc_sys))
    assert pattern.read_text() == "core"
