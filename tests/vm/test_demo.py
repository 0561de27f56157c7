"""`make demo` as a test: the program as people start it, from an empty state to its exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from brickless.linux import process

CACHE = Path(__file__).parents[2] / ".cache"
DEMO_TIMEOUT_S = 420.0


@pytest.mark.needs("qemu", "registry")
@pytest.mark.timeout(DEMO_TIMEOUT_S + 60)
def test_the_demo_passes_and_leaves_nothing_running(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("brickless")
    state = tmp_path / "state"
    done = process.run(
        [str(program), "demo", "--cache", str(CACHE), "--state", str(state)],
        purpose="the demo",
        timeout_s=DEMO_TIMEOUT_S,
        check=False,
    )
    talk = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, talk[-6000:]
    summary = done.stdout.decode()
    for claim in ("web:1 runs", "web:2 runs", "web:3 failed", "tried and committed", "came back by itself"):
        assert claim in summary, talk[-6000:]
    assert not users_of(state), "processes of the demo outlive it"


def users_of(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder).encode() in line:
                found.append(line.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found
