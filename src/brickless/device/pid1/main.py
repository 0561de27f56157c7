"""The first process: says that it is up before it does anything else, and turns its own failure into a reset.

`/usr/bin/pantavisor` in the initramfs calls `main`. Everything else is imported after the first line is out, so that
a broken module shows on the console too.
"""

from __future__ import annotations

import os
import sys

FIRST_LINE = b"brickless: pid1 up\n"
# The kernel's own panic=N of the stock boot scripts (device.md 3.2); ours when the command line has none.
PANIC_DELAY_S = 5
STDOUT = 1


def main() -> int:
    """Be PID 1. Returns only for a process that is not PID 1; raises nothing."""
    greeted = _say(FIRST_LINE)
    if os.getpid() != 1:
        return _by_hand()
    try:
        from brickless.device.pid1 import init

        return init.run(greeted=greeted)
    except BaseException as error:
        _die(error)
    return 1


def _by_hand() -> int:
    """In the shell of a board that is being brought up: tell PID 1 to start the runtime (device.md 9.4)."""
    try:
        with open("/proc/1/comm", encoding="ascii", errors="replace") as stream:
            ours = stream.read().strip() == "pantavisor"
    except OSError:
        ours = False
    if not ours:
        _say(b"brickless: this program is the init of a device: start it as PID 1\n")
        return 2
    os.kill(1, 1)  # SIGHUP, without the module that names it
    return 0


def _say(line: bytes) -> bool:
    """To the console that the kernel opened for its init; False when the archive has no /dev/console to open."""
    try:
        return os.write(STDOUT, line) == len(line)
    except OSError:
        return False


def panic_delay_s(cmdline: str) -> int:
    """Seconds between a failure of PID 1 and the reset: the kernel's `panic=N`, bounded to a minute."""
    for word in cmdline.split():
        if word.startswith("panic=") and word[6:].isdecimal():
            return min(int(word[6:]), 60)
    return PANIC_DELAY_S


def _die(error: BaseException) -> None:
    """Print the reason and reset after the panic delay. The kernel panics by itself if even that fails: init exits."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    text = f"brickless: pid1 failed: {type(error).__name__}: {error} at {' < '.join(reversed(frames[-4:]))}\n"
    _say(text.encode("utf-8", "backslashreplace"))
    try:
        with open("/proc/cmdline", encoding="ascii", errors="replace") as stream:
            delay_s = panic_delay_s(stream.read())
    except OSError:
        delay_s = PANIC_DELAY_S
    _say(f"brickless: resetting in {delay_s} s\n".encode())
    import select

    from brickless.linux import libc

    select.select([], [], [], delay_s)
    os.sync()
    libc.reboot(libc.RB_AUTOBOOT)


if __name__ == "__main__":
    sys.exit(main())
