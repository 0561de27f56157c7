"""The initramfs of a device (`bsp/pantavisor`): Python as bytecode, our device stack, LXC, and what those need.

The interpreter is Debian's, or our own, one static program (`image.native`): smaller, and minutes to build.
Reproducible: the same packages and the same sources give the same bytes. No root. Kernel modules come as an archive of
their own (`image.modules`), so that a new runtime and a new kernel are two small changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import brickless
from brickless.core.errors import BricklessError
from brickless.image import bytecode, closure, debian, libraries, native
from brickless.image.arch import AMD64, Arch
from brickless.image.compress import Compression, write
from brickless.image.cpio import Archive

PYTHON = "3.11"
LXC_PACKAGES = ("lxc", "liblxc-common")
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", *LXC_PACKAGES)
# lxc-start is each container's monitor; lxc-attach is for people. Each carries liblxc in itself, as Debian links them.
LXC_PROGRAMS = ("lxc-start", "lxc-attach")
MADE_OF = "etc/brickless/made-of"
# Modules of the standard library that a device has in a smaller form (ADR 0071).
STAND_INS = Path(__file__).parent / "stand_ins"
STDLIB = f"usr/lib/python{PYTHON}"
# Merged /usr, as on every current distribution: one place for each file.
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FOLDERS = (
    "configs",
    "dev",
    "etc/pantavisor/certs",
    "exports",
    "mnt",
    "proc",
    "root",
    "run/lxc",
    "storage",
    "sys",
    "usr/sbin",
    "var/lib/lxc",
    "volumes",
)
ETC = {
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/hostname": "brickless\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    # Containers bind it (see the app template of pvr); whoever brings the network up writes it.
    "etc/resolv.conf": "",
}
LAUNCHER = f"""#!/usr/bin/python{PYTHON} {bytecode.FLAGS}
from brickless.device.pid1.main import main
main()
"""
CRASH = f"""#!/usr/bin/python{PYTHON} {bytecode.FLAGS}
import sys
from brickless.device.crash import main
sys.exit(main(sys.argv[1:]))
"""


# Programs for people and scripts, on the device and in containers that carry the device stack.
TOOLS = ("pvcontrol", "pvcurl", "pventer", "pvtx")
TOOL = f"""#!/usr/bin/python{PYTHON} {bytecode.FLAGS}
import sys
from brickless.device.control.tools.%s import main
sys.exit(main())
"""


class Addition(NamedTuple):
    """A file that a caller adds: content and permission bits."""

    content: bytes | Path
    mode: int = 0o644


class Parts(NamedTuple):
    """What an archive is packed from: the trees with LXC and with Python, whose names name exact versions."""

    lxc: Path
    python: Path
    interpreter: native.Interpreter | None = None

    @property
    def made_of(self) -> str:
        """The versions, one a line: what the archive says of itself."""
        lines = [] if self.interpreter is None else list(self.interpreter.made_of)
        return "".join(f"{line}\n" for line in [*lines, self.lxc.name, self.python.name])


def parts(cache: Path, arch: Arch = AMD64, *, own: bool = False) -> Parts:
    """Everything fetched, built and unpacked below `cache`; `own` asks for our static interpreter, of amd64 alone."""
    if not own:
        tree = _packages(PACKAGES, cache, arch)
        return Parts(tree, tree)
    if arch != AMD64:
        raise BricklessError(f"there is no interpreter of our own for {arch.debian}", hint="Build it for amd64.")
    built = native.build(cache)
    return Parts(_packages(LXC_PACKAGES, cache, arch), built.root, built)


def _packages(names: Sequence[str], cache: Path, arch: Arch) -> Path:
    return unpacked(debian.fetch(names, cache / "debian", arch=arch.debian), cache / "trees")


def unpacked(debs: list[Path], trees: Path) -> Path:
    """A tree with exactly these packages, made once: its name is made from theirs."""
    name = hashlib.sha256("\n".join(sorted(deb.name for deb in debs)).encode()).hexdigest()[:16]
    tree = trees / name
    marker = trees / f"{name}.complete"
    if not marker.exists():
        debian.extract(debs, tree)
        marker.touch()
    return tree


def build(
    out: Path,
    *,
    cache: Path,
    config: Mapping[str, str] | None = None,
    files: Mapping[str, Addition] | None = None,
    compression: Compression = Compression.ZSTD,
    package: Path | None = None,
    arch: Arch = AMD64,
    own: bool = False,
) -> None:
    """Write the archive to `out`.

    `config` becomes `/etc/pantavisor.config`, `files` are added last (path inside the archive -> content). `package` is
    the folder of `brickless` whose device stack is packed (this one when None), `own` is that of `parts`. Raises
    `BricklessError` when something that is needed is not in the packages, `process.ProcessError` when a tool fails.
    """
    packed = parts(cache, arch, own=own)
    # Bytecode is the same on every processor: the interpreter of this one compiles for all.
    ours = packed.python if arch == AMD64 else parts(cache).python
    archive = Archive()
    _skeleton(archive, config or {}, arch)
    archive.file(MADE_OF, packed.made_of.encode())
    with tempfile.TemporaryDirectory(prefix="brickless-initramfs-") as scratch:
        programs = _python(archive, packed, ours, package or Path(brickless.__file__).parent, Path(scratch))
        programs += _lxc(archive, packed.lxc, Path(scratch), arch)
        _libraries(archive, packed, programs, arch)
        if arch == AMD64:  # compiled modules of another processor do not load here: its machines load them
            _check(archive, ours, Path(scratch))
        for path, addition in sorted((files or {}).items()):
            archive.file(path, addition.content, addition.mode)
        out.parent.mkdir(parents=True, exist_ok=True)
        write(archive.chunks(), out, compression)


def _skeleton(archive: Archive, config: Mapping[str, str], arch: Arch) -> None:
    for path, target in LINKS.items():
        archive.symlink(path, target)
    for path in FOLDERS:
        archive.directory(path)
    archive.directory(f"{arch.libraries}/lxc/rootfs")
    archive.directory("tmp", 0o1777)
    # The kernel opens it for PID 1 before anything is mounted.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    # On a processor without a random number instruction, getrandom(2) is not ready when PID 1 starts; the interpreter
    # then reads this instead, and refuses to start without it.
    archive.device("dev/urandom", 1, 9, 0o666)
    for path, text in ETC.items():
        archive.file(path, text.encode())
    for key, value in config.items():
        if "\n" in key + value or "=" in key:
            raise BricklessError(f"the configuration {key!r}={value!r} does not fit on one line")
    archive.file("etc/pantavisor.config", "".join(f"{key}={config[key]}\n" for key in sorted(config)).encode())
    archive.file("usr/bin/pantavisor", LAUNCHER.encode(), 0o755)
    for tool in TOOLS:
        archive.file(f"usr/bin/{tool}", (TOOL % tool).encode(), 0o755)
    archive.file("usr/lib/pv/pvcrash", CRASH.encode(), 0o755)


def _python(archive: Archive, packed: Parts, ours: Path, package: Path, scratch: Path) -> list[Path]:
    root = packed.python
    absent = () if packed.interpreter is None else native.ABSENT
    found = closure.find(
        root / STDLIB, closure.device_modules(package), absent=absent, replaced=closure.stand_ins(STAND_INS)
    )
    compiled = bytecode.compile_all(bytecode.interpreter(ours, PYTHON), found.sources, f"/{STDLIB}", scratch)
    for source, result in zip(found.sources, compiled, strict=True):
        archive.file(f"{STDLIB}/{source.target}", result)
    # The interpreter finds its library by this folder, even an empty one.
    archive.directory(f"{STDLIB}/lib-dynload")
    for library in found.extensions:
        archive.file(f"{STDLIB}/lib-dynload/{library.name}", library)
    interpreter = root / f"usr/bin/python{PYTHON}"
    archive.file(f"usr/bin/python{PYTHON}", interpreter, 0o755)
    archive.symlink("usr/bin/python3", f"python{PYTHON}")
    return [interpreter, *found.extensions]


def _lxc(archive: Archive, root: Path, scratch: Path, arch: Arch) -> list[Path]:
    programs = [libraries.lean(root, root / "usr/bin" / name, scratch / name, arch) for name in LXC_PROGRAMS]
    for program in programs:
        archive.file(f"usr/bin/{program.name}", program, 0o755)
    return programs


def _libraries(archive: Archive, packed: Parts, programs: Iterable[Path], arch: Arch) -> None:
    instead = {} if packed.interpreter is None else packed.interpreter.libraries
    for name, path in sorted(libraries.needed(packed.lxc, programs, arch, instead).items()):
        if name == arch.loader:
            archive.file(f"usr{name}", path, 0o755)
        elif name != os.path.basename(arch.loader):  # libc names it too; it is there under its own path
            archive.file(f"{arch.libraries}/{name}", path, 0o755)


def _check(archive: Archive, root: Path, scratch: Path) -> None:
    """Load every module of the device stack with nothing but the modules that were packed."""
    home = scratch / "check"
    for path in archive.paths():
        entry = archive[path]
        if path.startswith(f"{STDLIB}/") and stat.S_ISREG(entry.mode):
            target = home / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.source is not None:
                shutil.copyfile(entry.source, target)
    names = [path.removeprefix(f"{STDLIB}/") for path in archive.paths() if path.endswith(".pyc")]
    ours = [name.removesuffix(".pyc").removesuffix("/__init__") for name in names if name.startswith("brickless/")]
    # The entry of a package runs when it is imported.
    modules = [name.replace("/", ".") for name in ours if not name.endswith("__main__")]
    bytecode.check_imports(bytecode.interpreter(root, PYTHON, home=home), modules)


@contextmanager
def tools(cache: Path, *, package: Path | None = None) -> Iterator[Archive]:
    """What a container needs for the command-line tools: interpreter, device stack, launchers; inside the block."""
    packed = parts(cache)
    archive = Archive()
    for path, target in LINKS.items():
        archive.symlink(path, target)
    for tool in TOOLS:
        archive.file(f"usr/bin/{tool}", (TOOL % tool).encode(), 0o755)
    with tempfile.TemporaryDirectory(prefix="brickless-tools-") as scratch:
        programs = _python(archive, packed, packed.python, package or Path(brickless.__file__).parent, Path(scratch))
        _libraries(archive, packed, programs, AMD64)
        yield archive
