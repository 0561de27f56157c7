"""System hooks: programs of the BSP that are told what the runtime does (device.md 3.10).

Executables in `<PV_SYSTEM_LIBDIR>/pv/hooks/system.d`, in alphabetical order, with what happened in their environment.
They run apart, one after the other, each for a bounded time: a hook that hangs holds up nothing but later hooks of the
same event. Who wants a place in an update's order of writes is a bootloader's back end, not a hook.
"""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Callable, Mapping, Sequence

from brickless.linux import spawn

FOLDER = "pv/hooks/system.d"
TIMEOUT_S = 60.0
MOST_HOOKS = 64


def found(folder: str) -> list[str]:
    """The hooks in a folder, links included, at most `MOST_HOOKS`; none when there is no such folder."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return [path for path in paths if _is_program(path)][:MOST_HOOKS]


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False  # a link to nothing
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def run(
    paths: Sequence[str], variables: Mapping[str, str], say: Callable[[str], None], timeout_s: float = TIMEOUT_S
) -> None:
    """Run the hooks in a process of their own, whose end PID 1 collects; `say` hears, there, of those that fail."""
    if not paths:
        return
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    code = 1
    try:
        os.setsid()
        if not os.fork():  # its parent ends at once: it belongs to PID 1 from then on
            for path in paths:
                _run_one(path, variables, say, timeout_s)
        code = 0
    finally:
        os._exit(code)


def _run_one(path: str, environment: Mapping[str, str], say: Callable[[str], None], timeout_s: float) -> None:
    try:
        pid = spawn.program(path, environment)
    except OSError as error:
        say(f"hook {path}: {error.strerror}")
        return
    watched = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    in_time = bool(poll.poll(int(timeout_s * 1000)))
    os.close(watched)
    if not in_time:
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        say(f"hook {path}: killed after {timeout_s:g} s")
    elif status:
        say(f"hook {path}: {'exit status' if status > 0 else 'signal'} {abs(status)}")
