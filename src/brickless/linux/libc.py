"""System calls by hand: one thin function each, raising `OSError` that says what was tried.

Nothing here decides anything; `linux.mount`, `linux.modules` and the others give these calls a meaning. PID 1 loads
this module, so it may import next to nothing. Constants are those of the kernel's headers (include/uapi/linux).

Two ways lead to syscall(2). The interpreter that we build for devices has it built in, as the module `_brickless`
(ADR 0070): ctypes and libffi would cost a small device memory and PID 1 time. Every other interpreter goes by ctypes.
"""

from __future__ import annotations

import errno
import os
import sys

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC
RB_HALT_SYSTEM = 0xCDEF0123
RB_DISABLE_CAD = 0

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_THP_DISABLE = 41

MODULE_INIT_COMPRESSED_FILE = 4

# Numbers of the system calls, by machine (arch/*/entry/syscalls/*.tbl, include/uapi/asm-generic/unistd.h).
_GENERIC = {
    "delete_module": 106,
    "finit_module": 273,
    "mount": 40,
    "pivot_root": 41,
    "prctl": 167,
    "reboot": 142,
    "setns": 268,
    "swapoff": 225,
    "swapon": 224,
    "syncfs": 267,
    "umount2": 39,
    "unshare": 97,
}
_X86_64 = {
    "delete_module": 176,
    "finit_module": 313,
    "mount": 165,
    "pivot_root": 155,
    "prctl": 157,
    "reboot": 169,
    "setns": 308,
    "swapoff": 168,
    "swapon": 167,
    "syncfs": 306,
    "umount2": 166,
    "unshare": 272,
}
_ARM = {
    "delete_module": 129,
    "finit_module": 379,
    "mount": 21,
    "pivot_root": 218,
    "prctl": 172,
    "reboot": 88,
    "setns": 375,
    "swapoff": 115,
    "swapon": 87,
    "syncfs": 373,
    "umount2": 52,
    "unshare": 337,
}
_NUMBERS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC, "armv7l": _ARM}
# Younger ones have one number on every machine.
_EVERYWHERE = {"move_mount": 429, "open_tree": 428, "openat2": 437}
# reboot(2): both magic numbers.
_REBOOT_MAGIC = (0xFEE1DEAD, 672274793)

Argument = int | bytes | None

try:
    from _brickless import keep as _keep  # type: ignore[import-not-found]  # in our own interpreter alone
    from _brickless import syscall as _syscall

    _malloc_trim = None
except ModuleNotFoundError:
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.syscall.restype = ctypes.c_long
    _malloc_trim = getattr(_libc, "malloc_trim", None)
    _keep = None

    def _syscall(number: int, *arguments: Argument) -> int:
        """syscall(2): integers as they are, bytes as a pointer to them (terminated), None as NULL."""
        given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
        result = int(_libc.syscall(ctypes.c_long(number), *given))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result


def _number(name: str) -> int:
    if name in _EVERYWHERE:
        return _EVERYWHERE[name]
    machine = os.uname().machine
    numbers = _NUMBERS.get(machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"the number of the system call {name} on {machine} is not known here")
    return numbers[name]


def _call(tried: str, name: str, *arguments: Argument) -> int:
    try:
        return int(_syscall(_number(name), *arguments))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({tried})") from None


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Empty `fstype` and `options` are given as NULL."""
    _call(
        f"mount {source} on {target}, type {fstype or '-'}, flags {flags:#x}, options {options or '-'}",
        "mount",
        source.encode(),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        options.encode() if options else None,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _call(f"umount {target}, flags {flags:#x}", "umount2", os.fsencode(target), flags)


def unshare(flags: int) -> None:
    """unshare(2): leave the namespaces named by the CLONE_ flags."""
    _call(f"unshare, flags {flags:#x}", "unshare", flags)


def setns(fd: int, kind: int = 0) -> None:
    """setns(2): enter the namespace that `fd` refers to."""
    _call(f"setns to fd {fd}, kind {kind:#x}", "setns", fd, kind)


def reboot(command: int) -> None:
    """reboot(2) by one of the RB_ commands. Returns only for RB_DISABLE_CAD. In a PID namespace it ends the init."""
    _call(f"reboot, command {command:#x}", "reboot", *_REBOOT_MAGIC, command, None)


def finit_module(fd: int, parameters: str = "", flags: int = 0) -> None:
    """finit_module(2): load the kernel module open at `fd`; EEXIST when it is loaded already."""
    tried = f"finit_module of fd {fd}, parameters {parameters or '-'}"
    _call(tried, "finit_module", fd, parameters.encode(), flags)


def delete_module(name: str) -> None:
    """delete_module(2): unload a kernel module that nobody uses."""
    _call(f"delete_module {name}", "delete_module", name.encode(), os.O_NONBLOCK)


def open_tree(path: str) -> int:
    """open_tree(2): a detached copy of the mounts at `path`, as a descriptor."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
    return _call(f"open_tree of {path}", "open_tree", AT_FDCWD, os.fsencode(path), flags)


def move_mount(fd: int, target: str) -> None:
    """move_mount(2): attach the mount of the descriptor at `target`, which may be a link to a descriptor."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS
    _call(f"move_mount to {target}", "move_mount", fd, b"", AT_FDCWD, os.fsencode(target), flags)


def openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2) with `struct open_how`: an open whose way is bounded by the RESOLVE_ flags."""
    how = flags.to_bytes(8, sys.byteorder) + bytes(8) + resolve.to_bytes(8, sys.byteorder)
    return _call(f"openat2 of {path}", "openat2", dir_fd, os.fsencode(path), how, len(how))


def swapon(path: str) -> None:
    """swapon(2)."""
    _call(f"swapon {path}", "swapon", os.fsencode(path), 0)


def swapoff(path: str) -> None:
    """swapoff(2)."""
    _call(f"swapoff {path}", "swapoff", os.fsencode(path))


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    tried = f"pivot_root to {new_root}, the old root at {put_old}"
    _call(tried, "pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def syncfs(fd: int) -> None:
    """syncfs(2): write out the file system that `fd` lies on; raises when a write of it failed."""
    _call(f"syncfs of fd {fd}", "syncfs", fd)


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one integer argument."""
    _call(f"prctl {option}, {argument}", "prctl", option, argument, 0, 0, 0)


def set_process_name(name: str) -> None:
    """Give the process the name (at most 15 bytes) that /proc/PID/comm shows."""
    _call(f"prctl PR_SET_NAME {name}", "prctl", PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def trim_heap() -> None:
    """Give freed memory of the C heap back to the kernel, where the C library keeps it (glibc's malloc_trim)."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def keep_for_ever(objects: list[object]) -> None:
    """Stop counting references to these objects and all that they lead to, where the interpreter can (ADR 0072).

    Processes that are forked afterwards then share their memory for good: nothing writes to it any more.
    """
    if _keep is not None:
        _keep(objects)
