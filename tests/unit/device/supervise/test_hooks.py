"""System hooks run in order, apart from the supervisor, for a bounded time; failures are said."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from brickless.device.supervise import hooks

LIMIT_MS = 60_000


class Words:
    """A pipe into which the process of the hooks and the hooks themselves write; read until all writers are gone."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_inheritable(self.writer, True)

    def say(self, text: str) -> None:
        os.write(self.writer, text.encode() + b"\n")

    def all(self) -> list[str]:
        os.close(self.writer)
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        data = b""
        while poll.poll(LIMIT_MS) and (chunk := os.read(self.reader, 4096)):
            data += chunk
        os.close(self.reader)
        return data.decode().splitlines()


@pytest.fixture
def words() -> Words:
    return Words()


def hook(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def test_executables_are_found_in_order_links_too(tmp_path: Path) -> None:
    folder = tmp_path / "system.d"
    second = hook(folder, "20-b", "")
    first = hook(folder, "10-a", "")
    hook(folder, "30-not-executable", "", mode=0o644)
    hook(folder, ".hidden", "")
    (folder / "15-link").symlink_to(first)
    (folder / "40-dangling").symlink_to("nowhere")
    (folder / "50-folder").mkdir(mode=0o755)
    assert hooks.found(str(folder)) == [str(first), str(folder / "15-link"), str(second)]
    assert hooks.found(str(tmp_path / "nothing")) == []


def test_each_is_told_what_happened_and_the_next_runs_after_it(tmp_path: Path, words: Words) -> None:
    folder = tmp_path / "system.d"
    hook(folder, "1", f'echo "1 $PV_OP $PV_REV $HOME" >/proc/self/fd/{words.writer}')
    hook(folder, "2", f'echo "2 $PV_OP" >/proc/self/fd/{words.writer}')
    hooks.run(hooks.found(str(folder)), {"PV_OP": "system-start", "PV_REV": "7"}, words.say)
    assert words.all() == ["1 system-start 7 /", "2 system-start"]


def test_a_failure_is_said_and_the_next_still_runs(tmp_path: Path, words: Words) -> None:
    folder = tmp_path / "system.d"
    bad = hook(folder, "1", "exit 3")
    hook(folder, "2", f"echo ran >/proc/self/fd/{words.writer}")
    dead = hook(folder, "3", "kill -9 $$")
    hooks.run(hooks.found(str(folder)), {}, words.say)
    assert words.all() == [f"hook {bad}: exit status 3", "ran", f"hook {dead}: signal 9"]


def test_a_hook_that_hangs_is_killed_with_what_it_started(tmp_path: Path, words: Words) -> None:
    folder = tmp_path / "system.d"
    stuck = hook(folder, "1", "sleep 1000 & wait")
    hooks.run([str(stuck)], {}, words.say, timeout_s=0.2)
    assert words.all() == [f"hook {stuck}: killed after 0.2 s"]


def test_a_program_that_is_none_is_said(tmp_path: Path, words: Words) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "x").chmod(0o755)
    hooks.run([str(tmp_path / "x")], {}, words.say)
    assert words.all() == [f"hook {tmp_path / 'x'}: Exec format error"]
