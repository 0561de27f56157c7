"""The debug shell on PID 1's console: asked for by Enter, a reboot waits for it, and a board stands alone with it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root")
SRC = str(Path(__file__).parents[2] / "src")
DEADLINE_S = 60.0

HARNESS = """
import os, sys
sys.path[:0] = [{src!r}, {children!r}]
from brickless.linux import libc, mount, power, kmsg
libc.unshare(libc.CLONE_NEWPID | libc.CLONE_NEWNS)
pid = os.fork()
if pid:
    status = os.waitpid(pid, 0)[1]
    print("init ended by", os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)
libc.prctl(libc.PR_SET_PDEATHSIG, 9)
mount.make_private("/")
mount.mount("proc", "/proc", "proc")
mount.mount("tmpfs", "/run", "tmpfs")
libc.mount({terminal!r}, "/dev/console", "", libc.MS_BIND)
power.settle = lambda: []  # remounting the host's file systems read-only would not stay in this namespace
from brickless.device.pid1.guard import Guard
from brickless.device.pid1.init import Init
from brickless.device.pid1.daemon import Daemon
def no_watchdog(timeout_s): raise OSError("the hardware is the host's")
libc.set_process_name("pantavisor")
console = kmsg.Console()
guard = Guard(console, no_watchdog)
guard.configure("disabled", 0, 0.0)
init = Init(console, [Daemon("supervisor", "child_under_test", essential=True)], False, guard)
if {standalone!r}:
    init.stand_alone()
init.main()
"""
CHILD = """
import os, signal
def tell(word): os.write(int(os.environ['BRICKLESS_INIT_FD']), word.encode() + b'\\n')
def main():
    os.write(os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY), b"supervisor runs\\n")
    for word in WORDS:
        tell(word)
    signal.pause()
"""


class Board:
    """PID 1 in namespaces, with a terminal whose other end is ours."""

    def __init__(self, folder: Path, words: list[str], *, standalone: bool = False) -> None:
        self.screen, terminal = os.openpty()
        (folder / "child_under_test.py").write_text(f"WORDS = {words!r}\n{CHILD}")
        script = HARNESS.format(src=SRC, children=str(folder), terminal=os.ttyname(terminal), standalone=standalone)
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-ISB", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._terminal = terminal

    def type(self, line: str) -> None:
        os.write(self.screen, line.encode() + b"\n")

    def wait_for(self, pattern: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.text):
            ready = select.select([self.screen], [], [], max(0.0, deadline_s - time.monotonic()))[0]
            assert ready, f"no {pattern!r} on the console: {self.text!r}"
            self.text += os.read(self.screen, 4096).decode(errors="replace")

    def end(self) -> str:
        """What the harness said at the end of PID 1."""
        out, _ = self.process.communicate(timeout=60)
        return out.decode()


@pytest.fixture
def boards() -> Iterator[list[Board]]:
    made: list[Board] = []
    yield made
    for board in made:
        board.process.kill()
        board.process.communicate()
        os.close(board.screen)
        os.close(board._terminal)


def test_enter_opens_a_shell_and_leaving_it_offers_the_next(tmp_path: Path, boards: list[Board]) -> None:
    board = Board(tmp_path, ["shell ask 60"])
    boards.append(board)
    board.wait_for("press Enter for a shell")
    board.type("")
    board.type("echo in-$((40+2)); ls /run/brickless; exit")
    board.wait_for("in-42")
    board.wait_for("(?s)in-42.*shell.*press Enter for a shell")


def test_a_reboot_waits_for_the_shell_to_be_left(tmp_path: Path, boards: list[Board]) -> None:
    board = Board(tmp_path, ["shell open 600"])
    boards.append(board)
    board.type("echo open-$((1+1))")
    board.wait_for("open-2")
    # The shell's parent is PID 1: SIGTERM there is a wish to reboot.
    board.type("kill -TERM 1")
    board.wait_for("the reboot waits 600 s for the debug shell to be left")
    board.type("exit")
    board.wait_for("brickless: reboot")
    assert "init ended by -1" in board.end()


def test_a_reboot_waits_no_longer_than_it_was_told(tmp_path: Path, boards: list[Board]) -> None:
    board = Board(tmp_path, ["shell open 600", "defer 0"])
    boards.append(board)
    board.wait_for("supervisor runs")
    board.type("echo open-$((1+1)); kill -TERM 1")
    board.wait_for("brickless: reboot")
    assert "init ended by -1" in board.end()


def test_a_board_stands_alone_until_the_runtime_is_started_by_hand(tmp_path: Path, boards: list[Board]) -> None:
    board = Board(tmp_path, ["reboot"], standalone=True)
    boards.append(board)
    board.wait_for("standalone: `pantavisor` starts the runtime")
    board.type("echo alone-$((1+1))")
    board.wait_for("alone-2")
    assert "supervisor runs" not in board.text
    start = f'{sys.executable} -ISB -c \'import sys; sys.path.insert(0, "{SRC}")\n'
    board.type(f"{start}from brickless.device.pid1.main import main; main()'; exit")
    board.wait_for("supervisor runs")
    board.wait_for("brickless: reboot")
    assert "init ended by -1" in board.end()
