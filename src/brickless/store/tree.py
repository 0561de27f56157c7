"""Writes that never leave their root: paths from states, archives and hubs are hostile until they went through here.

Every component is opened with O_NOFOLLOW relative to its parent's descriptor, so neither `..`, nor an absolute path,
nor a symlink that somebody put there (even between our check and our write) leads outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from brickless.core.errors import HostileInputError
from brickless.store.atomic import FILES, Files, temporary_name, write_all

_PATH_MAX_BYTES = 4095
_NAME_MAX_BYTES = 255
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def components(relative: str) -> list[str]:
    """The checked components of a relative path. Raises HostileInputError for whatever could lead elsewhere."""
    if "\0" in relative:
        raise HostileInputError(f"The path {relative!r} has a NUL byte.")
    if not relative or relative.startswith("/") or len(os.fsencode(relative)) > _PATH_MAX_BYTES:
        raise HostileInputError(f"The path {relative[:200]!r} is empty, absolute or too long.")
    parts = relative.split("/")
    for part in parts:
        if part in {"", ".", ".."} or len(os.fsencode(part)) > _NAME_MAX_BYTES:
            raise HostileInputError(f"The path {relative[:200]!r} has a component that is not a plain name.")
    return parts


def safe_join(root: str, relative: str) -> str:
    """`root/relative` after a check of the text; says nothing about symlinks on the disk (use `open_beneath`)."""
    return os.path.join(root, *components(relative))


def open_parent(root: str, relative: str, *, make: bool = False, files: Files = FILES) -> tuple[int, str]:
    """An open descriptor of the folder that holds `relative`, and the last component. The caller closes it.

    With `make`, missing folders are made (0755). Raises HostileInputError when a component is a symlink,
    NotADirectoryError when it is a file, FileNotFoundError when it is missing and `make` is false.
    """
    parts = components(relative)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = _enter(fd, part, root, relative, make, files)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd, parts[-1]


def _enter(fd: int, part: str, root: str, relative: str, make: bool, files: Files) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=fd)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode):
            raise HostileInputError(f"{root}/{relative} leads through the symlink {part!r}.") from error
        raise NotADirectoryError(errno.ENOTDIR, f"{part!r} is not a folder", f"{root}/{relative}") from error
    try:
        files.mkdir(part, 0o755, dir_fd=fd)
    except FileExistsError:
        # Somebody else made it at the same moment; whether it is a folder is what the open below finds out.
        return os.open(part, _FOLDER, dir_fd=fd)
    files.fsync(fd)
    return os.open(part, _FOLDER, dir_fd=fd)


def open_beneath(root: str, relative: str, flags: int, mode: int = 0o644, *, files: Files = FILES) -> int:
    """open(2) of `root/relative`, which cannot leave `root`; parents are made when O_CREAT is given.

    Raises HostileInputError when any component, the last one too, is a symlink.
    """
    parent, name = open_parent(root, relative, make=bool(flags & os.O_CREAT), files=files)
    try:
        return files.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise HostileInputError(f"{root}/{relative} is a symlink.") from error
        raise OSError(error.errno, error.strerror, f"{root}/{relative}") from error
    finally:
        os.close(parent)


def link_beneath(source: str, root: str, relative: str, *, files: Files = FILES) -> bool:
    """Hard-link `source` to `root/relative`, parents made, an old file replaced in one step. True when it changed.

    Raises OSError(EXDEV) when both lie on different file systems, IsADirectoryError when a folder is in the way.
    """
    parent, name = open_parent(root, relative, make=True, files=files)
    try:
        wanted = os.stat(source, follow_symlinks=False)
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            files.link(source, name, dir_fd=parent)
            return True
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return False
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is where a file must go", f"{root}/{relative}")
        temporary = temporary_name(name)
        files.link(source, temporary, dir_fd=parent)
        files.rename_at(temporary, name, parent)
        return True
    finally:
        os.close(parent)


def write_beneath(
    root: str,
    relative: str,
    data: bytes | Iterable[bytes],
    *,
    mode: int = 0o644,
    durable: bool = True,
    files: Files = FILES,
) -> None:
    """Replace `root/relative` with `data` (one piece or several) in one step, parents made, without leaving `root`.

    Without `durable` the caller syncs (many files at once).
    """
    parent, name = open_parent(root, relative, make=True, files=files)
    try:
        if _is_folder(name, parent):
            raise IsADirectoryError(errno.EISDIR, "a folder is where a file must go", f"{root}/{relative}")
        temporary = temporary_name(name)
        fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=parent)
        try:
            try:
                for chunk in (data,) if isinstance(data, bytes) else data:
                    write_all(fd, chunk, files)
                files.chmod(fd, mode)
                if durable:
                    files.fsync(fd)
            finally:
                files.close(fd)
            files.rename_at(temporary, name, parent)
        except BaseException:
            files.unlink(temporary, dir_fd=parent)
            raise
        if durable:
            files.fsync(parent)
    finally:
        os.close(parent)


def _is_folder(name: str, dir_fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def unlink_beneath(root: str, relative: str, *, files: Files = FILES) -> bool:
    """Remove one file below `root`; false when it was not there. Folders are left alone (IsADirectoryError)."""
    try:
        parent, name = open_parent(root, relative)
    except FileNotFoundError:
        return False
    try:
        files.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    finally:
        os.close(parent)
    return True


def walk(root: str) -> list[str]:
    """Every file below `root`, as sorted relative paths; folders are entered, symlinks listed and not followed."""
    found: list[str] = []
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                relative = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(relative + "/")
                else:
                    found.append(relative)
    found.sort()
    return found
