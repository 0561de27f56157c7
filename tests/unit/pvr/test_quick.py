"""The launcher and the fast answer of `status`, as installed: real processes of the program itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brickless.pvr import colour, quick
from brickless.store import snapshot_write

PROGRAM = Path(sys.executable).with_name("pvr")
ROOT = Path(__file__).parents[3]


def start(*args: str, program: Path = PROGRAM, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *args], capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture
def repo(pvr: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose status is known: it was looked at long after the last change, as far as it can tell."""
    now = time.time_ns
    monkeypatch.setattr(snapshot_write.time, "time_ns", lambda: now() + 60_000_000_000)
    pvr("init")
    (tree / "web").mkdir()
    (tree / "web/run.json").write_text("{}")
    (tree / "new").write_text("1")
    pvr("add", "web")
    pvr("commit")
    assert pvr("status").out == "? new\n"
    assert (tree / ".pvr/snapshot").exists()
    return tree


def test_the_installed_program_is_the_launcher() -> None:
    assert PROGRAM.read_bytes() == (ROOT / "src/launcher/pvr").read_bytes()


def test_a_known_status_is_coloured_too(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_fd: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(colour, "wanted", lambda _fd: True)
    assert quick.quick(("status",)) == 0
    assert quick.quick(("status", "--json")) == 0
    assert written[0] == b"\x1b[2m? new\x1b[0m\n"
    assert json.loads(written[1])["untracked"] == ["new"]


@pytest.mark.parametrize("word", ["status", "s"])
def test_a_known_status_is_told_without_the_full_program(repo: Path, word: str) -> None:
    assert start(word).stdout == "? new\n"
    assert json.loads(start(word, "--json").stdout)["untracked"] == ["new"]
    code = (
        "import sys; from brickless.pvr.quick import quick\n"
        "code = quick(tuple(sys.argv[1:]))\n"
        "heavy = {'click', 'typing', 'json', 're', 'site', 'collections', 'rich'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    found = subprocess.run(
        [sys.executable, "-SPc", f"import sys; sys.path.append({str(ROOT / 'src')!r})\n{code}", word],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "? new\n0 []\n"


def test_a_change_is_seen_at_once(repo: Path) -> None:
    (repo / "web/run.json").write_text('{"a":1}')
    assert start("status").stdout == "C web/run.json\n? new\n"
    (repo / "new").unlink()
    assert start("status").stdout == "C web/run.json\n"


def test_flags_and_variables_go_to_the_full_program(repo: Path) -> None:
    assert quick.quick(("status",)) == 0
    for argv in (("status", "-h"), ("commit",), (), ("-q", "status")):
        assert quick.quick(argv) is None
    refused = start("status", env={**os.environ, "PVR_DEBUG": "maybe"})
    assert refused.returncode == 1
    assert "maybe" in refused.stdout + refused.stderr


def test_outside_a_repository_the_full_program_says_so(tree: Path) -> None:
    ran = start("status")
    assert ran.returncode == 2
    assert "is not a pvr repository" in ran.stderr


def test_through_a_link_and_from_a_folder_without_python(repo: Path, tmp_path: Path) -> None:
    link = tmp_path / "bin/pvr"
    link.parent.mkdir()
    link.symlink_to(PROGRAM)
    assert start("status", program=link).stdout == "? new\n"
    copied = tmp_path / "elsewhere/pvr"
    copied.parent.mkdir()
    copied.write_bytes(PROGRAM.read_bytes())
    copied.chmod(0o755)
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    assert start("status", program=copied, env=environment).stdout == "? new\n"
    assert start("--version", program=copied, env=environment).stdout.startswith("pvr version")


def test_a_wheel_has_its_packages_beside_the_launcher(repo: Path, tmp_path: Path) -> None:
    """As in an environment that has no editable install: brickless itself lies in the site packages."""
    place = tmp_path / f"env/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    place.mkdir(parents=True)
    (place / "brickless").symlink_to(ROOT / "src/brickless")
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/python3").symlink_to(Path(sys.executable).resolve())
    program = tmp_path / "env/bin/pvr"
    program.write_bytes(PROGRAM.read_bytes())
    program.chmod(0o755)
    assert start("status", program=program).stdout == "? new\n"


def test_a_reader_that_left_is_no_error(repo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run([PROGRAM, "status"], stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")
