"""Trees copied with everything that a container can put into them: owners, modes, times, links, holes, attributes.

Reflinks where the file system has them (FICLONE), else copy_file_range(2), which copies in the kernel. Devices, FIFOs
and sockets are made anew. Symlinks are never followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from brickless.linux import libc

# _IOW(0x94, 9, int)
FICLONE = 0x40049409
CHUNK_BYTES = 8 << 20
NO_REFLINK = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
NO_ATTRIBUTE = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL})


def size_bytes(root: str) -> int:
    """The blocks that a tree takes; a file with several names counts once. A tree that is not there takes none."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files, "."):
            info = os.lstat(os.path.join(folder, name))
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_blocks * 512
    return total


def copy_tree(source: str, target: str) -> None:
    """Copy the folder `source` to `target`, which must not exist. Raises `OSError`; a part is then left behind."""
    os.mkdir(target, 0o700)
    links: dict[tuple[int, int], str] = {}
    _copy_folder(source, target, links)
    _copy_metadata(source, target)


def copy_into(source: str, target: str) -> None:
    """Copy what is in the folder `source` into the folder `target`; what is there under the same name is replaced."""
    links: dict[tuple[int, int], str] = {}
    for name in os.listdir(source):
        if name == "lost+found":
            continue
        inside = os.path.join(target, name)
        if os.path.lexists(inside):
            _remove(inside)
        _copy_entry(os.path.join(source, name), inside, links)


def sync(folder: str) -> None:
    """Have everything of the file system that `folder` lies on written out."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.syncfs(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    from brickless.store import atomic

    atomic.remove_tree(path)


def _copy_folder(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    for name in os.listdir(source):
        _copy_entry(os.path.join(source, name), os.path.join(target, name), links)


def _copy_entry(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    info = os.lstat(source)
    identity = (info.st_dev, info.st_ino)
    if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
        if identity in links:
            os.link(links[identity], target, follow_symlinks=False)
            return
        links[identity] = target
    if stat.S_ISDIR(info.st_mode):
        os.mkdir(target, 0o700)
        _copy_folder(source, target, links)
    elif stat.S_ISREG(info.st_mode):
        _copy_file(source, target, info.st_size)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    _copy_metadata(source, target)


def _copy_file(source: str, target: str, size: int) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _clone(reader, writer):
                _copy_data(reader, writer, size)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _clone(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, FICLONE, reader)
    except OSError as error:
        if error.errno not in NO_REFLINK:
            raise
        return False
    return True


def _copy_data(reader: int, writer: int, size: int) -> None:
    """Copy what is data; holes stay holes."""
    os.ftruncate(writer, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(reader, at, os.SEEK_DATA)
            end = os.lseek(reader, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        while start < end:
            copied = os.copy_file_range(reader, writer, min(end - start, CHUNK_BYTES), start, start)
            if not copied:
                return
            start += copied
        at = end


def _copy_metadata(source: str, target: str) -> None:
    info = os.lstat(source)
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError as error:
            # An attribute that the file system keeps for itself; one that is refused for another reason is a fault.
            if error.errno not in NO_ATTRIBUTE or not name.startswith("system."):
                raise
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
