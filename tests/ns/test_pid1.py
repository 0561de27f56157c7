"""PID 1 for real, in a PID namespace: it greets, keeps its children alive, reaps orphans, and resets on request.

In a PID namespace reboot(2) kills the init: SIGHUP to say reboot, SIGINT to say power off (pid_namespaces(7)).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root")

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
mount.make_private("/")
mount.mount("proc", "/proc", "proc")
power.settle = lambda: []  # remounting the host's file systems read-only would not stay in this namespace
from brickless.device.pid1.init import Init
from brickless.device.pid1.daemon import Daemon
from brickless.device.pid1.guard import Guard
def no_watchdog(timeout_s): raise OSError("the hardware is the host's")
console = kmsg.Console("/proc/self/fd/1")
guard = Guard(console, no_watchdog)
guard.configure("disabled", 0, 0.0)
Init(console, [Daemon("supervisor", {name!r}, essential=True)], {trial!r}, guard).main()
"""
TELL = "def tell(word): os.write(int(os.environ['BRICKLESS_INIT_FD']), word.encode() + b'\\n')\n"


def run(tmp_path: Path, body: str, *, trial: bool = False) -> str:
    src = str(Path(__file__).parents[2] / "src")
    (tmp_path / "child_under_test.py").write_text(
        f"import os, sys\nSTATE = {str(tmp_path / 'state')!r}\n{TELL}\n{body}"
    )
    script = HARNESS.format(src=src, children=str(tmp_path), name="child_under_test", trial=trial)
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True
    )
    return done.stdout.decode()


def test_a_wish_to_reboot_is_obeyed(tmp_path: Path) -> None:
    out = run(tmp_path, "def main():\n    tell('trial 0'); tell('reboot'); os.read(0, 1)\n    return 0\n")
    assert "brickless: reboot" in out
    assert f"init ended by {-signal.SIGHUP}" in out


def test_a_wish_to_power_off_is_obeyed(tmp_path: Path) -> None:
    out = run(tmp_path, "def main():\n    tell('poweroff')\n    return 0\n")
    assert f"init ended by {-signal.SIGINT}" in out


def test_a_dead_child_is_started_again_and_an_orphan_is_reaped(tmp_path: Path) -> None:
    body = """
def main():
    if not os.path.exists(STATE):
        open(STATE, "w").close()
        if os.fork() == 0 and os.fork() == 0:
            os._exit(0)  # an orphan
        os.kill(os.getpid(), 9)
    tell("reboot")
    return 0
"""
    out = run(tmp_path, body)
    assert "brickless: supervisor died (signal 9): started again in 0.5 s" in out
    assert "init ended by -1" in out


def test_a_supervisor_that_cannot_live_on_trial_ends_in_a_reset(tmp_path: Path) -> None:
    out = run(tmp_path, "def main():\n    raise ValueError('broken revision')\n", trial=True)
    assert out.count("supervisor failed: ValueError: broken revision") == 3
    assert "died 3 times (exit status 70): reboot" in out
    assert "init ended by -1" in out


def test_an_unknown_word_is_reported_and_ignored(tmp_path: Path) -> None:
    out = run(tmp_path, "def main():\n    tell('dance'); tell('alive'); tell('reboot')\n    return 0\n")
    assert "not understood: dance" in out
    assert os.linesep + "brickless: reboot" in out


def test_daemons_are_started_together_and_by_themselves_after_a_death(tmp_path: Path) -> None:
    body = """
def main():
    with open(STATE + os.environ.get("BRICKLESS_INIT_FD", "agent"), "a") as stream:
        stream.write(f"{os.getppid()} ")
    if "BRICKLESS_INIT_FD" not in os.environ:
        os.read(os.open(STATE + ".fifo", os.O_RDONLY), 1)
        return 3
    if os.path.exists(STATE + ".second"):
        tell("reboot")
        return 0
    open(STATE + ".second", "w").close()
    return 4
"""
    os.mkfifo(tmp_path / "state.fifo")
    src = str(Path(__file__).parents[2] / "src")
    script = HARNESS.format(src=src, children=str(tmp_path), name="child_under_test", trial=False)
    one = 'Daemon("{}", "child_under_test", essential={})'
    two = f"[{one.format('supervisor', True)}, {one.format('agent', False)}]"
    script = re.sub(r"\[Daemon\(.*?\)\]", two, script)
    (tmp_path / "child_under_test.py").write_text(
        f"import os, sys\nSTATE = {str(tmp_path / 'state')!r}\n{TELL}\n{body}"
    )
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True
    )
    out = done.stdout.decode()
    assert "supervisor died (exit status 4): started again in 0.5 s" in out
    assert "brickless: reboot" in out
    supervisors = (next(tmp_path.glob("state[0-9]*"))).read_text().split()
    assert len(supervisors) == 2
    assert supervisors[1] == "1", "the second one is PID 1's own child"
    assert len((tmp_path / "stateagent").read_text().split()) == 1
