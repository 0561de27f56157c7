"""Reads many files of an ext4 image with one debugfs: no root, no mount."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brickless.linux import blockdev, ext4, process
from brickless.twin.errors import TwinError

TOOL_TIMEOUT_S = 300.0
# e2fsck(8): 1 is "errors were corrected": the journal was replayed, orphans were freed, as mounting does it.
PREENED = frozenset({0, 1})
_PROMPT = "debugfs: "
_FAST_LINK = re.compile(r'Fast link dest: "(.*)"')
KNOWN_BYTES = 256 << 20
_SIZE = re.compile(r"^User: .*\bSize: (\d+)$", re.MULTILINE)
_EXTENT = re.compile(r"\((\d+)(?:-(\d+))?(\[u\])?\):(\d+)")
# What a mount does too: the journal, files that were removed while open, counters that are only hints on disk.
_MOUNT_TOO = re.compile(
    r"recovering journal|[Cc]learing orphaned inode|[Tt]runcating orphaned inode|Free (blocks|inodes) count wrong"
    r"|[Ss]etting free (blocks|inodes) count|: \d+/\d+ files "
)


class Node(NamedTuple):
    """A name in a folder."""

    inode: int
    mode: int
    size: int

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.mode & 0o170000 == 0o040000


def recover(image: Path) -> str:
    """Replay the journal and check all of the file system, in place; returns what is wrong with it, "" for nothing.

    `e2fsck -p` mends more than a mount does; what it mends beyond that is a fault.
    """
    argv = [process.require("e2fsck", "e2fsprogs"), "-f", "-p", str(image)]
    done = process.run(argv, purpose="checking a crashed disk", timeout_s=TOOL_TIMEOUT_S, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    beyond = [line for line in lines if line.strip() and not _MOUNT_TOO.search(line)]
    if done.returncode in PREENED and not beyond:
        return ""
    return f"e2fsck ended with {done.returncode}: {'; '.join(beyond or lines)[-2000:]}"


def contents(image: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """The contents of the regular files among `paths`; what is not there is not in the answer."""
    wanted = list(dict.fromkeys(paths))
    with tempfile.TemporaryDirectory(prefix="brickless-crash-", dir=image.parent) as folder:
        commands = [f'dump "{_name(path)}" {folder}/{number}' for number, path in enumerate(wanted)]
        _ask(image, commands)
        files = {path: Path(folder, str(number)) for number, path in enumerate(wanted)}
        return {path: file.read_bytes() for path, file in files.items() if file.exists()}


def digests(image: Path, paths: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of the regular files among `paths`; what is not there is not in the answer.

    Their blocks are read where they lie. A content that was hashed before is recognised by comparing all of it, which
    takes a fraction of the time: the states of a recording have mostly the same objects.
    """
    wanted = list(dict.fromkeys(paths))
    answers = _ask(image, [f'stat "{_name(path)}"' for path in wanted])
    found: dict[str, str] = {}
    others: list[str] = []
    with image.open("rb") as stream:
        block_bytes = _block_bytes(stream)
        for path, lines in zip(wanted, answers, strict=True):
            text = "\n".join(lines)
            size = _SIZE.search(text)
            if size is None or "Type: regular" not in text:
                continue
            if int(size[1]) and "EXTENTS:" not in text:
                others.append(path)
                continue
            extents = text.partition("EXTENTS:")[2]
            content = _assembled(stream.fileno(), extents, int(size[1]), block_bytes)
            found[path] = _KNOWN.digest(content)
    found |= {path: hashlib.sha256(content).hexdigest() for path, content in contents(image, others).items()}
    return found


def _block_bytes(stream: BinaryIO) -> int:
    stream.seek(blockdev.SUPERBLOCK_OFFSET)
    size = ext4.parse(stream.read(1024))
    if size is None:
        raise TwinError(f"{stream.name}: no ext4 file system")
    return size.block_bytes


def _assembled(fd: int, extents: str, size: int, block_bytes: int) -> bytearray:
    """A file's content from its extents as debugfs prints them: `(first-last):block-block`; what has none is zeros."""
    content = bytearray(size)
    view = memoryview(content)
    for first, last, unwritten, place in _EXTENT.findall(extents):
        begin, end = int(first) * block_bytes, (int(last or first) + 1) * block_bytes
        if not unwritten and begin < size:
            os.preadv(fd, [view[begin : min(end, size)]], int(place) * block_bytes)
    return content


class _Known:
    """Contents that were hashed, with their SHA-256; bounded, what was not seen for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._lock = threading.Lock()
        self._found: dict[tuple[int, bytes, bytes], tuple[bytearray, str]] = {}

    def digest(self, content: bytearray) -> str:
        """The SHA-256 of `content`."""
        key = (len(content), bytes(content[:64]), bytes(content[-64:]))
        with self._lock:
            known = self._found.pop(key, None)
        if known is None or known[0] != content:
            known = (content, hashlib.sha256(content).hexdigest())
        with self._lock:
            self._found[key] = known
            while sum(size for size, *_ in self._found) > self._max:
                del self._found[next(iter(self._found))]
        return known[1]


_KNOWN = _Known(KNOWN_BYTES)


def folders(image: Path, paths: Iterable[str]) -> dict[str, Mapping[str, Node]]:
    """What lies in each of the folders; an empty mapping for one that is not there."""
    wanted = list(dict.fromkeys(paths))
    answers = _ask(image, [f'ls -p "{_name(path)}"' for path in wanted])
    return {path: _listing(lines) for path, lines in zip(wanted, answers, strict=True)}


def links(image: Path, paths: Iterable[str]) -> dict[str, str]:
    """Where symbolic links lead; those that are too long to stand in their inode lead nowhere ("")."""
    wanted = list(dict.fromkeys(paths))
    answers = _ask(image, [f'stat "{_name(path)}"' for path in wanted])
    return {
        path: next((match[1] for line in lines if (match := _FAST_LINK.search(line))), "")
        for path, lines in zip(wanted, answers, strict=True)
    }


def _listing(lines: Iterable[str]) -> dict[str, Node]:
    found = {}
    for line in lines:
        # /inode/mode/uid/gid/name/size/
        fields = line.split("/")
        if len(fields) > 6 and fields[5] not in {"", ".", ".."} and fields[1] != "0":
            found[fields[5]] = Node(int(fields[1]), int(fields[2], 8), int(fields[6] or 0))
    return found


def _ask(image: Path, commands: Sequence[str]) -> list[list[str]]:
    """Run debugfs once; the lines that it printed for each command."""
    if not commands:
        return []
    argv = [process.require("debugfs", "e2fsprogs"), "-f", "-", str(image)]
    script = "".join(f"{command}\n" for command in commands).encode()
    done = process.run(argv, purpose="reading a crashed disk", timeout_s=TOOL_TIMEOUT_S, input=script)
    said = done.stderr.decode("utf-8", "replace")
    if "Filesystem not open" in said or "Bad magic number" in said:
        raise TwinError(f"{image}: no ext4 file system: {said.strip()}")
    answers: list[list[str]] = []
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith(_PROMPT):
            answers.append([])
        elif answers:
            answers[-1].append(line)
    if len(answers) != len(commands):
        raise TwinError(f"{image}: debugfs answered {len(answers)} of {len(commands)} questions: {said.strip()[-500:]}")
    return answers


def _name(path: str) -> str:
    if any(character in path for character in '"\n\r\0'):
        raise TwinError(f"{path!r} cannot be named to debugfs")
    return path
