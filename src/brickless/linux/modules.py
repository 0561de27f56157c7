"""Kernel modules without kmod: `modules.dep` gives the order, finit_module(2) loads (modules.dep(5)).

PID 1 loads this module: it imports next to nothing.
"""

from __future__ import annotations

import errno
import os

from brickless.linux import libc

COMPRESSED = (".xz", ".gz", ".zst")


def canonical(name: str) -> str:
    """The kernel's own spelling of a module's name: `virtio-blk`, `virtio_blk` and a path to it are one module."""
    base = os.path.basename(name)
    return base.partition(".ko")[0].replace("-", "_")


def parse_dep(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """`modules.dep`: name -> (path, paths it needs). Paths are relative to the file's directory.

    Raises `ValueError` that names the line when one has no colon.
    """
    known: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        path, colon, needs = line.partition(":")
        if not colon:
            raise ValueError(f"modules.dep line {number} has no colon: {line!r}")
        known[canonical(path)] = (path, tuple(needs.split()))
    return known


def load_order(known: dict[str, tuple[str, tuple[str, ...]]], wanted: str) -> list[str]:
    """Paths to load for the module `wanted`, what it needs first.

    Raises `OSError` ENOENT when `modules.dep` does not know the module.
    """
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        if name not in known:
            raise OSError(errno.ENOENT, f"modules.dep does not name the kernel module {name}")
        path, needs = known[name]
        for need in needs:
            visit(canonical(need))
        order.append(path)

    visit(canonical(wanted))
    return order


class Modules:
    """The modules of the running kernel under `root` (/lib/modules/RELEASE)."""

    __slots__ = ("_builtin", "_known", "root")

    def __init__(self, root: str = "") -> None:
        """Read `modules.dep` and `modules.builtin`. Raises `OSError` when the first is missing."""
        self.root = root or f"/lib/modules/{os.uname().release}"
        with open(os.path.join(self.root, "modules.dep"), encoding="utf-8") as stream:
            self._known = parse_dep(stream.read())
        self._builtin: set[str] = set()
        builtin = os.path.join(self.root, "modules.builtin")
        if os.path.exists(builtin):
            with open(builtin, encoding="utf-8") as stream:
                self._builtin = {canonical(line.strip()) for line in stream}

    def has(self, name: str) -> bool:
        """Whether there is a module of that name to load."""
        return canonical(name) in self._known and canonical(name) not in self._builtin

    def load(self, name: str, parameters: str = "") -> bool:
        """Load a module and what it needs; False when it is there already or built into the kernel.

        Raises `OSError` that names the module and what failed.
        """
        if canonical(name) in self._builtin:
            return False
        loaded = False
        order = load_order(self._known, name)
        for path in order:
            loaded = _insert(os.path.join(self.root, path), parameters if path == order[-1] else "")
        return loaded


def _insert(path: str, parameters: str) -> bool:
    flags = libc.MODULE_INIT_COMPRESSED_FILE if path.endswith(COMPRESSED) else 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.finit_module(fd, parameters, flags)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        raise OSError(error.errno, f"loading the kernel module {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)
    return True


def parse_list(text: str) -> list[tuple[str, str]]:
    """A list of modules: one `NAME [PARAMETERS]` a line, `#` starts a comment."""
    wanted: list[tuple[str, str]] = []
    for line in text.splitlines():
        name, _, parameters = line.partition("#")[0].strip().partition(" ")
        if name:
            wanted.append((name, parameters.strip()))
    return wanted


def ensure(names: tuple[str, ...], root: str = "") -> None:
    """Load those of the modules that there are: what is built into the kernel needs none, and is not always listed.

    Raises `OSError` when a module that is there cannot be loaded.
    """
    try:
        known = Modules(root)
    except FileNotFoundError:
        return
    for name in names:
        if known.has(name):
            known.load(name)


def loaded(path: str = "/proc/modules") -> set[str]:
    """The names of the modules that are loaded; none on a kernel without modules."""
    try:
        with open(path, encoding="ascii") as stream:
            return {line.split(" ", 1)[0] for line in stream}
    except FileNotFoundError:
        return set()


def unload(name: str) -> bool:
    """Unload a module; False when it is not loaded. Raises `OSError` when somebody uses it."""
    if canonical(name) not in loaded():
        return False
    libc.delete_module(canonical(name))
    return True
