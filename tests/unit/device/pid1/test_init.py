"""What PID 1 decides without a kernel, and that it loads next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from brickless.device.pid1 import init, main

ALLOWED_ROOTS = {
    "brickless", "ctypes", "_ctypes", "_struct", "struct", "errno", "fcntl", "os", "select", "signal", "_signal", "sys",
    "time", "collections", "typing", "enum", "types", "functools", "operator", "keyword", "reprlib", "itertools", "re",
    "contextlib", "warnings", "copyreg", "abc", "_weakrefset", "posixpath", "stat", "genericpath", "codecs", "io",
    "encodings", "_collections_abc", "site", "zipimport", "builtins", "marshal", "posix", "_abc", "_io", "_thread",
    "_warnings", "_weakref", "_codecs", "_frozen_importlib", "_frozen_importlib_external", "_imp", "_stat",
    "_collections", "_functools", "_operator", "_sre", "_typing", "atexit", "__main__", "__future__", "gc",
}  # fmt: skip
PROBE = """
import sys
sys.path.insert(0, {src!r})
import brickless.device.pid1.main, brickless.device.pid1.init
with open("/proc/self/status") as stream:
    peak = next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))
print(repr({{"modules": sorted(sys.modules), "peak_kib": peak}}))
"""


@pytest.mark.parametrize(
    ("cmdline", "trial"),
    [
        ("console=ttyS0 pv_rev=7 pv_try=7", True),
        ("pv_rev=6 pv_try=7", False),
        ("pv_rev=7 pv_try=", False),
        ("pv_rev=7", False),
        ("", False),
    ],
)
def test_a_revision_is_on_trial_when_the_bootloader_says_so(cmdline: str, trial: bool) -> None:
    assert init.on_trial(cmdline) is trial


@pytest.mark.parametrize(
    ("cmdline", "delay_s"), [("quiet panic=2", 2), ("", 5), ("panic=x", 5), ("panic=99999", 60), ("panic=-1", 5)]
)
def test_the_delay_before_a_reset_is_that_of_the_kernel(cmdline: str, delay_s: int) -> None:
    assert main.panic_delay_s(cmdline) == delay_s


def test_it_refuses_to_be_another_process() -> None:
    result = subprocess.run([sys.executable, "-m", "brickless.device.pid1.main"], capture_output=True, check=False)
    assert result.returncode == 2
    assert result.stdout.startswith(b"brickless: pid1 up\n")
    assert b"start it as PID 1" in result.stdout


def test_pid_1_loads_next_to_nothing() -> None:
    src = str(init.__file__).rsplit("/brickless/", 1)[0]
    argv = [sys.executable, "-ISB", "-c", PROBE.format(src=src)]
    answer = ast.literal_eval(subprocess.run(argv, capture_output=True, check=True).stdout.decode())
    loaded = set(answer["modules"])
    strange = {name for name in loaded if name.partition(".")[0] not in ALLOWED_ROOTS}
    assert not strange, f"PID 1 loads {sorted(strange)}"
    ours = {name for name in loaded if name.startswith("brickless.device.")}
    assert ours <= {
        "brickless.device.pid1",
        *(f"brickless.device.pid1.{name}" for name in ("main", "init", "daemon", "guard", "shell")),
    }
    assert answer["peak_kib"] < 14_000


class Words:
    """What the guard is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def alive(self) -> None:
        self.heard.append("alive")

    def started(self) -> None:
        self.heard.append("started")

    def configure(self, mode: str, timeout_s: int, _now_s: float) -> None:
        self.heard.append((mode, timeout_s))


class Lines:
    """Collects the console."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_the_supervisors_words_reach_the_watchdog_and_others_are_named() -> None:
    guard, console = Words(), Lines()
    one = init.Init(console, [], False, guard)  # type: ignore[arg-type] # both are fakes
    for line in ("watchdog always 15", "alive", "started", "watchdog never 15", "watchdog always -1", "watchdog 15"):
        one._obey(line.split())
    assert guard.heard == [("always", 15), "alive", "started"]
    assert console.lines == [
        f"brickless: pid1: not understood: {line}"
        for line in ("watchdog never 15", "watchdog always -1", "watchdog 15")
    ]


@pytest.mark.parametrize(
    ("words", "cmdline", "config", "alone"),
    [
        (["pv_standalone"], "", "", True),
        ([], "quiet PV_SYSTEM_INIT_MODE=standalone", "", True),
        ([], "", "PV_WDT_MODE=disabled\nPV_SYSTEM_INIT_MODE=standalone\n", True),
        ([], "PV_SYSTEM_INIT_MODE=embedded", "PV_SYSTEM_INIT_MODE=standalone\n", False),
        (["pv_embedded"], "pv_rev=0", "", False),
        ([], "", "", False),
    ],
)
def test_a_board_stands_alone_when_it_is_told_to(words: list[str], cmdline: str, config: str, alone: bool) -> None:
    assert init.is_standalone(words, cmdline, config) is alone
