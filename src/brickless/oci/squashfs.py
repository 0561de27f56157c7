"""A tar stream -> squashfs with `mksquashfs -tar`, every setting pinned: the same stream gives the same bytes.

(Debian 12's `sqfstar` is the same program, but takes no compressor option with a value: it mistakes it for the output.)
No export table, no times but the stream's, no dependence on user, locale, zone, folder, number of processors or memory.
(The compressor library still matters: libzstd's level 12 gave the same blocks in every version that we compared.)
"""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import HostileInputError, UserError
from brickless.linux import process
from brickless.linux.process import ProcessError
from brickless.store import atomic

ROUNDED_UP_S = 1.0
BLOCK_SIZE_BYTES = 131072
# Its queues; the result is the same with any. With it and 60,000 files an image of 2 GB stays below 150 MB in all.
MEMORY_MIB = 32
MAX_SECONDS_WITHOUT_INPUT = 600.0
# What each compressor is told; xz and gzip are for kernels older than 4.14.
COMPRESSORS = {
    "zstd": ("-comp", "zstd", "-Xcompression-level", "12"),
    "gzip": ("-comp", "gzip", "-Xcompression-level", "9"),
    "xz": ("-comp", "xz"),
    "lz4": ("-comp", "lz4", "-Xhc"),
    "lzo": ("-comp", "lzo"),
}
# Options of mksquashfs that people have in their format options, by how many arguments they take. Others are refused:
# some name files of the builder, read commands, or would write elsewhere.
ALLOWED = {
    "-comp": 1, "-b": 1, "-Xcompression-level": 1, "-Xbcj": 1, "-Xdict-size": 1, "-Xwindow-size": 1, "-Xstrategy": 1,
    "-Xhc": 0, "-Xalgorithm": 1, "-noI": 0, "-noId": 0, "-noD": 0, "-noF": 0, "-noX": 0, "-no-fragments": 0,
    "-no-tailends": 0, "-no-duplicates": 0, "-no-sparse": 0, "-no-xattrs": 0, "-xattrs": 0, "-exports": 0,
    "-all-root": 0, "-root-owned": 0, "-force-uid": 1, "-force-gid": 1, "-root-mode": 1, "-all-time": 1, "-nopad": 0,
}  # fmt: skip
# mksquashfs knows these: they are what happens anyway, or they cannot change the result.
MEANINGLESS = {
    "-no-exports": 0, "-noappend": 0, "-reproducible": 0, "-no-progress": 0, "-quiet": 0, "-processors": 1, "-mem": 1,
    "-mkfs-time": 1, "-fstime": 1, "-root-time": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """How to write the file system. `excluded` are paths (as after mksquashfs's `-e`) that are left out."""

    arguments: tuple[str, ...] = COMPRESSORS["zstd"]
    excluded: tuple[str, ...] = ()


DEFAULT = Options()


class Stream(NamedTuple):
    """A tar stream without an entry for the root, the root's permissions, and the latest time in it (Unix seconds)."""

    chunks: Iterable[bytes]
    root_mode: int = 0o755
    latest_s: int = 0


def parse_options(text: str) -> Options:
    """Format options as people write them for mksquashfs (`-comp xz -e lib/modules `) as options of ours.

    They replace the default compressor only if they name one. Raises `UserError` for what has no meaning here.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError("format-options", f"the format options {text!r} cannot be split: {error}") from error
    arguments: list[str] = []
    excluded: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-e":
            # As in mksquashfs: everything behind it is an exclude.
            excluded += [name.strip("/") for name in words if name.strip("/")]
            break
        count = ALLOWED.get(word, MEANINGLESS.get(word))
        if count is None or len(words) < count:
            known = ", ".join(sorted(ALLOWED))
            hint = f"Known are -e and {known}."
            raise UserError("format-options", f"the format option {word!r} is not known or lacks its value", hint=hint)
        values, words = words[:count], words[count:]
        if word in ALLOWED:
            arguments += [word, *values]
    if "-comp" not in arguments:
        arguments = [*COMPRESSORS["zstd"], *arguments]
    return Options(tuple(arguments), tuple(excluded))


def compressor(name: str) -> Options:
    """The pinned settings of one compressor. Raises `UserError` for one that we do not know."""
    if name not in COMPRESSORS:
        known = ", ".join(COMPRESSORS)
        raise UserError("squashfs-compressor", f"the compressor {name!r} is not one of {known}")
    return Options(COMPRESSORS[name])


def build(stream: Stream, dest: str | Path, *, options: Options = DEFAULT) -> str:
    """Write a squashfs of the stream to `dest` (appears whole or not at all); the SHA-256 of the file, as hex.

    Raises `UserError` for times in the future, `ProcessError` when mksquashfs fails, and whatever the stream raises.
    `options.excluded` is for the maker of the stream.
    """
    tool = process.require("mksquashfs", "squashfs-tools")
    dest = os.path.abspath(dest)
    temporary = atomic.temporary_path(dest)
    argv = [*_as_root(), tool, "-", temporary, "-tar", *_pinned(options, stream.root_mode)]
    try:
        done = process.pipe(
            argv,
            purpose=f"write {os.path.basename(dest)}",
            stdin_chunks=stream.chunks,
            timeout_s=MAX_SECONDS_WITHOUT_INPUT,
            env=_times(options, stream.latest_s),
        )
        _complain(done.stderr + done.stdout, argv)
        os.chmod(temporary, 0o644)
        with open(temporary, "rb") as handle:
            sha = hashlib.file_digest(handle, "sha256").hexdigest()
        atomic.publish(temporary, dest)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return sha


def _as_root() -> list[str]:
    """What makes mksquashfs see root: it gives the root folder the ids of its own process, and no option changes that.

    A user namespace of one process does, or fakeroot where the kernel forbids those. Neither gives it any right.
    """
    if (os.geteuid(), os.getegid()) == (0, 0):
        return []
    namespace = ["unshare", "--user", "--map-root-user"]
    if process.run([*namespace, "true"], purpose="try a user namespace", timeout_s=30, check=False).returncode == 0:
        return namespace
    return [process.require("fakeroot", "fakeroot"), "--"]


def _times(options: Options, latest_s: int) -> dict[str, str]:
    """The environment that pins the times which no tar entry carries: the root folder's and the file system's own.

    mksquashfs 4.5 gives the root folder the time of day; only SOURCE_DATE_EPOCH holds it back, to that of the newest
    file. That works for the past alone.
    """
    if "-all-time" in options.arguments:
        return {}
    ahead_s = latest_s - time.time()
    if 0 < ahead_s <= ROUNDED_UP_S:
        # Builders round a file's time to the nearest second: an image that was made just now is let grow old enough.
        time.sleep(ahead_s)
    elif ahead_s > 0:
        hint = "Check the clock, or give a latest time (SOURCE_DATE_EPOCH)."
        raise UserError("time-in-the-future", f"the image has a file from the future (Unix time {latest_s})", hint=hint)
    return {"SOURCE_DATE_EPOCH": str(latest_s)}


def _pinned(options: Options, root_mode: int) -> list[str]:
    """All arguments; what a user's format options say wins over what we pin."""
    given = options.arguments
    words = ["-noappend", "-quiet", "-no-progress", "-exit-on-error", "-reproducible", "-mem", f"{MEMORY_MIB}M"]
    if "-exports" not in given:
        words.append("-no-exports")
    if "-b" not in given:
        words += ["-b", str(BLOCK_SIZE_BYTES)]
    if "-root-mode" not in given:
        words += ["-root-mode", f"{root_mode:o}"]
    if "-all-time" in given:
        words += ["-mkfs-time", given[given.index("-all-time") + 1]]
    return [*words, *given]


def _complain(output: bytes, argv: list[str]) -> None:
    """mksquashfs skips what it does not understand with a message and exit status 0: that is a failure to us."""
    text = output.decode("utf-8", "replace").strip()
    if text:
        raise ProcessError(f"mksquashfs did not take everything: {text}\n  command: {process.command_line(argv)}")


def check_magic(path: str | Path) -> None:
    """Raise `HostileInputError` unless the file starts as a squashfs does."""
    with open(path, "rb") as handle:
        if handle.read(4) != b"hsqs":
            raise HostileInputError(f"{path} is no squashfs file")
