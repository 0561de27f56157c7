"""The shared libraries that programs need, found by walking their ELF headers inside an unpacked tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import elf
from brickless.image.arch import AMD64, Arch

MAX_FILE_BYTES = 64 << 20


def needed(
    root: Path, programs: Iterable[Path], arch: Arch = AMD64, instead: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Soname -> file, for everything the programs need, themselves left out; the loader under its absolute path.

    `instead` has libraries, by soname, that are taken and not looked for below `root`.
    Raises `BricklessError` that names who needs a library that is not below `root`.
    """
    found: dict[str, Path] = {}
    waiting = list(programs)
    seen: set[Path] = set()
    while waiting:
        program = waiting.pop()
        if program in seen:
            continue
        seen.add(program)
        wanted = _dynamic(program)
        if wanted.interpreter:
            found[wanted.interpreter] = _inside(root, wanted.interpreter.lstrip("/"), program)
        for name in wanted.needed:
            if name not in found:
                found[name] = (instead or {}).get(name) or _library(root, name, program, arch)
                waiting.append(found[name])
    return found


def lean(root: Path, program: Path, out: Path, arch: Arch = AMD64) -> Path:
    """`program`, written to `out` without the libraries that it names and takes nothing from. Returns `out`.

    Debian's LXC programs carry liblxc in themselves and name the shared one too: each process would map it in vain.
    """
    data = _read(program)
    taken = elf.symbols(data, str(program)).taken
    unused = frozenset(
        name
        for name in elf.dynamic(data, str(program)).needed
        if not taken & elf.symbols(_read(_library(root, name, program, arch)), name).offered
    )
    out.write_bytes(elf.without(data, unused, str(program)))
    out.chmod(0o755)
    return out


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BricklessError(f"{path} is larger than any program we pack ({MAX_FILE_BYTES} bytes)")
    return path.read_bytes()


def _dynamic(path: Path) -> elf.Dynamic:
    data = _read(path)
    return elf.dynamic(data, str(path)) if elf.is_elf(data) else elf.Dynamic("", ())


def _library(root: Path, name: str, needed_by: Path, arch: Arch) -> Path:
    if "/" in name:
        raise BricklessError(f"{needed_by} needs the library {name!r} by a path, which we do not pack")
    for folder in arch.library_folders:
        path = root / folder / name
        if path.is_symlink() or path.exists():
            return _inside(root, f"{folder}/{name}", needed_by)
    raise BricklessError(f"{needed_by} needs the library {name}, which is in none of {', '.join(arch.library_folders)}")


def _inside(root: Path, relative: str, needed_by: Path) -> Path:
    """The file behind symbolic links, which must stay below `root` (absolute ones start there)."""
    path = root / relative
    for _ in range(8):
        if not path.is_symlink():
            break
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise BricklessError(f"{needed_by} needs {relative}, which is no file below {root}")
    return path
