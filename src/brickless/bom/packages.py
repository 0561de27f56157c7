"""Which packages are installed in a root file system image, by the lists that package managers leave in it.

Debian's (also the lists of images without a package manager, `status.d`), Alpine's, and Python distributions. An image
without any of them has no packages as far as anybody can tell. Images are foreign: what is read of one is bounded, and
nothing of it is written anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from brickless.core.errors import HostileInputError
from brickless.linux import process

DEBIAN = "var/lib/dpkg/status"
DEBIAN_FOLDER = "var/lib/dpkg/status.d/"
ALPINE = "lib/apk/db/installed"
_PYTHON = re.compile(r".*/([A-Za-z0-9][A-Za-z0-9._-]*)-([A-Za-z0-9][A-Za-z0-9.+!_]*)\.dist-info")
# A line of `unsquashfs -lln`: mode, owner, size, day, time, path.
_LISTED = re.compile(r"(?P<kind>[-dlcbps])\S{9} +\d+/\d+ +[\d, ]+ \d{4}-\d\d-\d\d \d\d:\d\d /?(?P<path>.*)")
_MAX_BYTES = 64 << 20
_MAX_LISTS = 2000
_TIMEOUT_S = 120.0


def installed(squashfs: Path) -> dict[str, str]:
    """The version of each package by its name; Python's have the prefix `python:`.

    Raises ToolMissingError without unsquashfs, ProcessError for a damaged image, HostileInputError for lists that are
    too large.
    """
    found_lines = [m for m in map(_LISTED.fullmatch, _output(squashfs, "-lln", "-d", "").splitlines()) if m]
    there = [m["path"] for m in found_lines if m["kind"] == "-"]
    debian = [name for name in there if name.startswith(DEBIAN_FOLDER) and not name.endswith(".md5sums")]
    lists = [name for name in (DEBIAN,) if name in there] + debian[:_MAX_LISTS]
    folders = [m["path"] for m in found_lines if m["kind"] == "d"]
    found = dict(parse_debian(_output(squashfs, "-q", "-cat", names=lists))) if lists else {}
    if ALPINE in there:
        found |= parse_alpine(_output(squashfs, "-q", "-cat", names=[ALPINE]))
    found |= {f"python:{m[1].lower().replace('_', '-')}": m[2] for m in map(_PYTHON.fullmatch, folders) if m}
    return found


def parse_debian(text: str) -> Iterator[tuple[str, str]]:
    """The packages of dpkg's status: those that are installed, not those whose configuration is left."""
    name, state = "", ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        match key:
            case "Package":
                name, state = value.strip(), ""
            case "Status":
                state = value.strip()
            case "Version" if name and (not state or state.endswith(" installed")):
                yield name, value.strip()


def parse_alpine(text: str) -> dict[str, str]:
    """The packages of apk's list."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("P:"):
            name = line[2:]
        elif line.startswith("V:") and name:
            found[name] = line[2:]
    return found


def _output(squashfs: Path, *flags: str, names: list[str] | None = None) -> str:
    """What unsquashfs prints, bounded."""
    tool = process.require("unsquashfs", "squashfs-tools")
    argv = [tool, "-n", *flags, str(squashfs), *(names or [])]
    with process.spawn(argv, purpose=f"read {squashfs}", stdout=process.PIPE, stderr=process.NULL) as running:
        if running.stdout is None:
            raise process.ProcessError("the output of unsquashfs is not readable")
        data = running.stdout.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise HostileInputError(f"{squashfs} has package lists of more than {_MAX_BYTES} bytes")
        if running.wait(_TIMEOUT_S) != 0:
            raise running.failure()
    return data.decode(errors="replace")
