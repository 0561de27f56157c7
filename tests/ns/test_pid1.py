"""PID 1 for real, in a PID namespace: it greets, keeps its children alive, reaps orphans, and resets on request.

In a PID namespace reboot(2) kills the init: SIGHUP to say reboot, SIGINT to say power off (pid_namespaces(7)).
"""

from __future__ import annotations

import os
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
Init(kmsg.Console("/proc/self/fd/1"), [Daemon("supervisor", {name!r}, essential=True)], {trial!r}).main()
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
