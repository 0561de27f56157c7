"""The C library by ctypes: one thin function a system call, each raising `OSError` that says what was tried.

Nothing here decides anything; `linux.mount`, `linux.modules` and the others give these calls a meaning. PID 1 loads
this module, so it may import next to nothing. Constants are those of the kernel's headers (include/uapi/linux).
"""

from __future__ import annotations

import ctypes
import errno
import os

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

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

MODULE_INIT_COMPRESSED_FILE = 4

# System calls that the C library does not wrap, by machine (arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h).
_NUMBERS = {
    "x86_64": {"finit_module": 313, "pivot_root": 155},
    "aarch64": {"finit_module": 273, "pivot_root": 41},
    "armv7l": {"finit_module": 379, "pivot_root": 218},
    "riscv64": {"finit_module": 273, "pivot_root": 41},
}

_libc = ctypes.CDLL(None, use_errno=True)


def _fail(tried: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)} ({tried})")


def _check(result: int, tried: str) -> int:
    if result < 0:
        raise _fail(tried)
    return result


def _number(name: str) -> int:
    machine = os.uname().machine
    numbers = _NUMBERS.get(machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"the number of the system call {name} on {machine} is not known here")
    return numbers[name]


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Empty `fstype` and `options` are given as NULL."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(result, f"mount {source} on {target}, type {fstype or '-'}, flags {flags:#x}, options {options or '-'}")


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}, flags {flags:#x}")


def unshare(flags: int) -> None:
    """unshare(2): leave the namespaces named by the CLONE_ flags."""
    _check(_libc.unshare(flags), f"unshare, flags {flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """setns(2): enter the namespace that `fd` refers to."""
    _check(_libc.setns(fd, kind), f"setns to fd {fd}, kind {kind:#x}")


def reboot(command: int) -> None:
    """reboot(2) by one of the RB_ commands. Returns only for RB_DISABLE_CAD. In a PID namespace it ends the init."""
    _check(_libc.reboot(ctypes.c_int(command & 0xFFFFFFFF)), f"reboot, command {command:#x}")


def finit_module(fd: int, parameters: str = "", flags: int = 0) -> None:
    """finit_module(2): load the kernel module open at `fd`; EEXIST when it is loaded already."""
    result = _libc.syscall(
        ctypes.c_long(_number("finit_module")), ctypes.c_int(fd), parameters.encode(), ctypes.c_int(flags)
    )
    _check(result, f"finit_module of fd {fd}, parameters {parameters or '-'}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    result = _libc.syscall(ctypes.c_long(_number("pivot_root")), os.fsencode(new_root), os.fsencode(put_old))
    _check(result, f"pivot_root to {new_root}, the old root at {put_old}")


def syncfs(fd: int) -> None:
    """syncfs(2): write out the file system that `fd` lies on; raises when a write of it failed."""
    _check(_libc.syncfs(fd), f"syncfs of fd {fd}")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one integer argument."""
    zero = ctypes.c_ulong(0)
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero)
    _check(result, f"prctl {option}, {argument}")


def set_process_name(name: str) -> None:
    """Give the process the name (at most 15 bytes) that /proc/PID/comm shows."""
    zero = ctypes.c_ulong(0)
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_libc.prctl(ctypes.c_int(PR_SET_NAME), buffer, zero, zero, zero), f"prctl PR_SET_NAME {name}")


def trim_heap() -> None:
    """Give freed memory of the C heap back to the kernel, where the C library can (glibc's malloc_trim)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
