"""The one atomic write: every file, link and tree that must survive a power cut is made or replaced here.

The rules on disk, for a target `D/name`:

    D/.name.tmp-<16 hex>   1. created O_EXCL beside the target (same file system, unique: two writers never meet)
                           2. written, then fsync(file): the data is on the disk before any name leads to it
    D/name                 3. rename(tmp, name): readers see the old file or the new one, nothing between
    D                      4. fsync(D): the new name itself survives a power cut

    A crash before 3 leaves the old file and a `.*.tmp-*` leftover, which `sweep` removes at the next start.
    A crash after 3 leaves the old or the new file. There is no third outcome (design.md, decision D3).

    A tree disappears the same way: rename to `.name.tmp-<hex>` first, then delete; a half-deleted tree has no name.

Every call that changes the disk goes through a `Files` object, so that a test can stop the world after any of them.
Only this module renames. Standard library only; nothing here knows what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

TEMPORARY = ".tmp-"
_NAME_MAX_BYTES = 255


class Files:
    """The system calls that change a disk, one method each: the seam at which tests inject faults and crashes."""

    __slots__ = ()

    def open(self, path: str, flags: int, mode: int = 0o644, *, dir_fd: int | None = None) -> int:
        """open(2), always close-on-exec."""
        return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """write(2): may be short."""
        return os.write(fd, data)

    def chmod(self, fd: int, mode: int) -> None:
        """fchmod(2): the mode is what the caller asked for, whatever the umask says."""
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        """fsync(2)."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """close(2)."""
        os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """rename(2)."""
        os.rename(source, target)

    def link(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        """linkat(2) without following a symlink at the source; `dir_fd` is the folder of a relative target."""
        os.link(source, target, dst_dir_fd=dir_fd, follow_symlinks=False)

    def rename_at(self, source: str, target: str, dir_fd: int) -> None:
        """renameat(2) within one open folder."""
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def symlink(self, target: str, link: str) -> None:
        """symlink(2)."""
        os.symlink(target, link)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        """unlink(2)."""
        os.unlink(path, dir_fd=dir_fd)

    def mkdir(self, path: str, mode: int = 0o755, *, dir_fd: int | None = None) -> None:
        """mkdir(2)."""
        os.mkdir(path, mode, dir_fd=dir_fd)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        """rmdir(2)."""
        os.rmdir(path, dir_fd=dir_fd)


FILES = Files()


def temporary_name(name: str) -> str:
    """A unique name for a temporary beside `name`; stays within NAME_MAX whatever the length of `name`."""
    token = os.urandom(8).hex()
    kept = os.fsencode(name)[: _NAME_MAX_BYTES - len(TEMPORARY) - len(token) - 1]
    return f".{os.fsdecode(kept)}{TEMPORARY}{token}"


def temporary_path(path: str) -> str:
    """A unique temporary path in the folder of `path`."""
    folder, name = os.path.split(path)
    return os.path.join(folder, temporary_name(name))


def is_temporary(name: str) -> bool:
    """Whether a file name is a leftover of this module: never part of a repository, a trail or a pool."""
    return TEMPORARY in name and name.startswith(".")


def write_all(fd: int, data: bytes, files: Files = FILES) -> None:
    """Write every byte; write(2) may take fewer than it was given."""
    view = memoryview(data)
    while view:
        view = view[files.write(fd, view) :]


def write_file(path: str, data: bytes, *, mode: int = 0o644, durable: bool = True, files: Files = FILES) -> None:
    """Replace `path` with `data` as a whole. Raises OSError and leaves the old file when anything fails.

    Without `durable` nothing is synced: for what may be lost in a power cut (caches); readers still see old or new.
    """
    write_stream(path, (data,), mode=mode, durable=durable, files=files)


def write_stream(
    path: str,
    chunks: Iterable[bytes],
    *,
    mode: int = 0o644,
    max_bytes: int | None = None,
    durable: bool = True,
    files: Files = FILES,
) -> int:
    """Replace `path` with the concatenation of `chunks`; returns the bytes written.

    Raises OSError(EFBIG) when the chunks are more than `max_bytes`; whatever is raised, the old file stays.
    """
    temporary = temporary_path(path)
    total = 0
    fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        try:
            for chunk in chunks:
                total += len(chunk)
                if max_bytes is not None and total > max_bytes:
                    raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", path)
                write_all(fd, chunk, files)
            files.chmod(fd, mode)
            if durable:
                files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(temporary, path)
    except BaseException:
        discard(temporary, files)
        raise
    if durable:
        sync_dir(os.path.dirname(path), files)
    return total


def publish(tmp_path: str, final_path: str, *, files: Files = FILES) -> None:
    """Make a finished temporary file visible under its name: fsync the file, rename, fsync the folder."""
    fd = files.open(tmp_path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        files.fsync(fd)
    finally:
        files.close(fd)
    files.rename(tmp_path, final_path)
    sync_dir(os.path.dirname(final_path), files)


def rename(source: str, target: str, *, files: Files = FILES) -> None:
    """Rename a file or a tree whose content is already on the disk, and fsync the folders on both sides."""
    files.rename(source, target)
    sync_dir(os.path.dirname(target), files)
    if os.path.dirname(source) != os.path.dirname(target):
        sync_dir(os.path.dirname(source), files)


def replace_symlink(target: str, link: str, *, files: Files = FILES) -> None:
    """Make `link` point to `target`, replacing an old link in one step; readers never find it missing."""
    temporary = temporary_path(link)
    files.symlink(target, temporary)
    try:
        files.rename(temporary, link)
    except BaseException:
        discard(temporary, files)
        raise
    sync_dir(os.path.dirname(link), files)


def discard(path: str, files: Files = FILES) -> None:
    """Remove a file that may be gone already."""
    try:
        files.unlink(path)
    except FileNotFoundError:
        return


def sync_dir(path: str, files: Files = FILES) -> None:
    """fsync a folder: the names in it survive a power cut."""
    fd = files.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.fsync(fd)
    except OSError as error:
        # A file system without folder sync (some FUSE and 9p) says EINVAL; its names are as durable as they get.
        if error.errno != errno.EINVAL:
            raise
    finally:
        files.close(fd)


def make_dirs(path: str, *, mode: int = 0o755, files: Files = FILES) -> None:
    """Make a folder and its parents, each made durable in its parent. An existing folder is fine."""
    missing: list[str] = []
    current = path
    while current and not os.path.isdir(current):
        missing.append(current)
        current = os.path.dirname(current)
    for folder in reversed(missing):
        try:
            files.mkdir(folder, mode)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise
        sync_dir(os.path.dirname(folder), files)


def remove_tree(path: str, *, files: Files = FILES) -> None:
    """Remove a file or a tree so that it disappears in one step; a missing one is fine. Never follows a symlink."""
    temporary = temporary_path(path)
    try:
        files.rename(path, temporary)
    except FileNotFoundError:
        return
    sync_dir(os.path.dirname(path), files)
    _delete(temporary, None, files)


def sweep(folder: str, *, files: Files = FILES) -> list[str]:
    """Remove the leftovers of interrupted writes directly in `folder`; returns their names. A missing folder is fine.

    Call it only where no writer can be active (at start-up, or under the owner's lock).
    """
    try:
        names = sorted(name for name in os.listdir(folder) if is_temporary(name))
    except FileNotFoundError:
        return []
    for name in names:
        _delete(os.path.join(folder, name), None, files)
    return names


def _delete(path: str, dir_fd: int | None, files: Files) -> None:
    """Delete depth first through open folders, so that a swapped symlink cannot lead the deletion elsewhere."""
    info = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        files.unlink(path, dir_fd=dir_fd)
        return
    if info.st_mode & 0o700 != 0o700:
        os.chmod(path, 0o700, dir_fd=dir_fd)
    fd = files.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        for name in os.listdir(fd):
            _delete(name, fd, files)
    finally:
        files.close(fd)
    files.rmdir(path, dir_fd=dir_fd)
