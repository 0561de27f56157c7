"""A disk that loses power after any system call: what was not synced is lost in the worst way that POSIX allows."""

from __future__ import annotations

import os

from brickless.store.atomic import Files


class PowerCutError(BaseException):
    """The machine is off. A BaseException: no handler of the code under test may go on after it."""


class PowerCutFiles(Files):
    """Real calls until the `stop_after`-th has been made; then every further call raises PowerCutError.

    `settle` puts the disk into the worst state that a power cut may leave: files which were written and not synced
    are empty. (Names that were not synced may be there or not; the caller tests both by stopping at each call.)
    """

    __slots__ = ("calls", "dirty", "stop_after")

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.calls = 0
        self.dirty: dict[int, int] = {}

    def _count(self) -> None:
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise PowerCutError
        self.calls += 1

    def open(self, path: str, flags: int, mode: int = 0o644, *, dir_fd: int | None = None) -> int:
        """See Files.open; counted."""
        self._count()
        return super().open(path, flags, mode, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """See Files.write; counted."""
        self._count()
        inode = os.fstat(fd).st_ino
        if inode not in self.dirty:
            self.dirty[inode] = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        # Short writes are legal: every second one takes half.
        half = memoryview(data)[: max(1, len(data) // 2)] if self.calls % 2 else data
        return super().write(fd, half)

    def chmod(self, fd: int, mode: int) -> None:
        """See Files.chmod; counted."""
        self._count()
        super().chmod(fd, mode)

    def fsync(self, fd: int) -> None:
        """See Files.fsync; counted."""
        self._count()
        super().fsync(fd)
        lost = self.dirty.pop(os.fstat(fd).st_ino, None)
        if lost is not None:
            os.close(lost)

    def close(self, fd: int) -> None:
        """See Files.close; counted."""
        # The kernel closes what a dead process had open, so that a stopped test leaks nothing.
        super().close(fd)
        self._count()

    def rename(self, source: str, target: str) -> None:
        """See Files.rename; counted."""
        self._count()
        super().rename(source, target)

    def rename_at(self, source: str, target: str, dir_fd: int) -> None:
        """See Files.rename_at; counted."""
        self._count()
        super().rename_at(source, target, dir_fd)

    def link(self, source: str, target: str, *, dir_fd: int | None = None) -> None:
        """See Files.link; counted."""
        self._count()
        super().link(source, target, dir_fd=dir_fd)

    def symlink(self, target: str, link: str) -> None:
        """See Files.symlink; counted."""
        self._count()
        super().symlink(target, link)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        """See Files.unlink; counted."""
        self._count()
        super().unlink(path, dir_fd=dir_fd)

    def mkdir(self, path: str, mode: int = 0o755, *, dir_fd: int | None = None) -> None:
        """See Files.mkdir; counted."""
        self._count()
        super().mkdir(path, mode, dir_fd=dir_fd)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        """See Files.rmdir; counted."""
        self._count()
        super().rmdir(path, dir_fd=dir_fd)

    def settle(self) -> None:
        """The disk after the power came back: unsynced data is gone."""
        for fd in self.dirty.values():
            os.ftruncate(fd, 0)
            os.close(fd)
        self.dirty.clear()
