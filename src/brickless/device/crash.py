"""What the kernel calls when a program crashes (core(5)): one line in the log says which, and in which container.

`/lib/pv/pvcrash [--skip] PID SIGNAL PATH`, the memory image on standard input. With `--skip`, the default, the image is
not kept: it would hold the secrets of the process and wear the flash. Without, the first `CORE_MAX_BYTES` of the last
crash are kept beside the log. Runs in a process of its own that the kernel starts, so it may fail without harm.
"""

from __future__ import annotations

import os
import sys
import time

from brickless.device.supervise import logs
from brickless.linux import cgroup, kmsg
from brickless.store import atomic

STORAGE = "/storage"
CORE_MAX_BYTES = 8 << 20
CHUNK_BYTES = 1 << 16
FOLDER = "logs/current/pantavisor"


def describe(pid: int, signal: str, path: str, proc: str = "/proc") -> str:
    """One line: the program, its signal, and the container that it belongs to."""
    program = "".join(one if one.isprintable() else "?" for one in path.replace("!", "/"))[:256]
    try:
        container = cgroup.container_of(pid, proc)
    except OSError:
        container = None  # gone already
    where = f"container {container}" if container else "the host"
    return f"crash: {program} (pid {pid}) of {where}: signal {signal}"


def keep_core(source: int, folder: str) -> int:
    """Keep the beginning of the memory image, in place of the last one; returns its size in bytes."""
    parts = []
    left = CORE_MAX_BYTES
    while left > 0 and (data := os.read(source, min(CHUNK_BYTES, left))):
        parts.append(data)
        left -= len(data)
    content = b"".join(parts)
    atomic.write_file(os.path.join(folder, "core"), content, mode=0o600)
    return len(content)


def main(arguments: list[str], storage: str = STORAGE) -> int:
    """Record one crash; 2 when it was called in another way than by the kernel."""
    skip = arguments[:1] == ["--skip"]
    words = arguments[1:] if skip else arguments
    if len(words) < 2 or not words[0].isdecimal() or not words[1].isdecimal():
        sys.stderr.write("usage: pvcrash [--skip] PID SIGNAL PATH (the kernel calls it, see core_pattern)\n")
        return 2
    line = describe(int(words[0]), words[1], " ".join(words[2:]))
    kmsg.Console().line(f"brickless: {line}")
    folder = os.path.join(storage, FOLDER)
    if os.path.isdir(folder):
        log = logs.BoundedLog(os.path.join(folder, "crash.log"))
        log.write(logs.line(time.monotonic(), line))
        log.close()
        if not skip:
            keep_core(0, folder)
    return 0
