"""The device's own interpreter: CPython, its compiled modules, OpenSSL, zlib and bzip2 as one static program.

From Debian's sources, with musl, `-Os`, no ctypes and no dynamic loader: small, nothing to relocate at start, and its
pages are shared by all our processes (ADR 0070). Needs musl-tools, gcc, make, perl and dpkg-dev; takes minutes, once
for each version of sources and recipe.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import BricklessError
from brickless.image import cache, sources
from brickless.linux import process

PACKAGES = ("python3.11", "openssl", "zlib", "bzip2")
# One more when a change below this line changes what is built, and no list here tells.
RECIPE = 2
TOOLS = {"musl-gcc": "musl-tools", "gcc": "gcc", "make": "make", "perl": "perl", "dpkg-source": "dpkg-dev"}
HERE = Path(__file__).parent / "native"
# Functions that a device with three containers and a hub runs, from its start to its idling: they lie together, so that
# processes map few pages of the others (ADR 0075 says how the list is made).
HOT = HERE / "hot.txt"
FUNCTIONS = "functions"
STEP_TIMEOUT_S = 3600.0
# musl has no kernel headers of its own; those of Linux do not depend on the C library.
KERNEL_HEADERS = {
    "asm": "/usr/include/x86_64-linux-gnu/asm",
    "asm-generic": "/usr/include/asm-generic",
    "linux": "/usr/include/linux",
    "mtd": "/usr/include/mtd",
}
FLAGS = "-Os -fno-pie -ffunction-sections -fdata-sections"
# What TLS 1.2 and 1.3 of a hub need, and SHA-2; engines, old ciphers and everything that loads code stay out.
OPENSSL_WITHOUT = (
    "afalgeng aria async autoerrinit bf blake2 camellia cast cmp cms comp ct des dsa dso dtls ec2m engine gost idea "
    "ktls legacy md4 mdc2 module nextprotoneg ocsp pic psk rc2 rc4 rc5 rfc3779 rmd160 seed shared siphash sm2 sm3 "
    "sm4 srp srtp ssl3 ssl-trace tests tls1 tls1_1 ts ui-console weak-ssl-ciphers whirlpool"
)
_MPDECIMAL = (
    "basearith constants context convolute crt difradix2 fnt fourstep io mpalloc mpdecimal numbertheory sixstep "
    "transpose"
)
# What this interpreter does not have: it cannot load code, and reaches the kernel by `_brickless`.
ABSENT = frozenset({"ctypes"})
# Extension modules that our stack and the standard library's part of it import; `Modules/Setup` says how each is built.
MODULES = {
    "_bisect": "_bisectmodule.c",
    "_brickless": "_brickless.c",
    "_bz2": "_bz2module.c -I{bzip2} {bzip2}/libbz2.a",
    "_contextvars": "_contextvarsmodule.c",
    "_decimal": " ".join(
        [
            "_decimal/_decimal.c",
            *(f"_decimal/libmpdec/{name}.c" for name in _MPDECIMAL.split()),
            # No `=` here: the script that reads this takes such a line for a variable of make.
            "-I$(srcdir)/Modules/_decimal/libmpdec -DCONFIG_64 -DASM",
        ]
    ),
    "_hashlib": "_hashopenssl.c -I{openssl}/include {openssl}/libcrypto.a",
    "_heapq": "_heapqmodule.c",
    "_json": "_json.c",
    "_md5": "md5module.c",
    "_opcode": "_opcode.c",
    "_posixsubprocess": "_posixsubprocess.c",
    "_random": "_randommodule.c",
    "_sha1": "sha1module.c",
    "_sha256": "sha256module.c",
    "_sha512": "sha512module.c",
    "_socket": "socketmodule.c",
    "_ssl": "_ssl.c -I{openssl}/include {openssl}/libssl.a {openssl}/libcrypto.a",
    "_struct": "_struct.c",
    "_typing": "_typingmodule.c",
    "array": "arraymodule.c",
    "binascii": "binascii.c",
    "fcntl": "fcntlmodule.c",
    "grp": "grpmodule.c",
    "math": "mathmodule.c",
    "mmap": "mmapmodule.c",
    "resource": "resource.c",
    "select": "selectmodule.c",
    "termios": "termios.c",
    "zlib": "zlibmodule.c -I{zlib} {zlib}/libz.a",
}
# Objects with this many references are for ever: counting them is left out, so that processes which share them by fork
# go on sharing them (ADR 0072). A program would need 7 GB of references to get there by counting.
IMMORTAL = 900_000_000
# Pools that are partly used count as full from now on: what comes next goes into pages of its own.
SEAL = """
void _PyObject_Seal(void);

void
_PyObject_Seal(void)
{
    for (int size = 0; size < NB_SMALL_SIZE_CLASSES; size++) {
        poolp head = usedpools[size + size]->prevpool, pool = head->nextpool;

        while (pool != head) {
            poolp next = pool->nextpool;

            pool->freeblock = NULL;
            pool->nextoffset = pool->maxnextoffset + 1;
            pool->nextpool = pool->prevpool = NULL;
            pool = next;
        }
        head->nextpool = head->prevpool = head;
    }
}

"""
# File -> (what stands there, what stands there instead); each must be found as often as it says.
PATCHES = {
    "Include/object.h": (
        ("static inline void Py_INCREF\\(PyObject \\*op\\)\n", 1, f"#define IMMORTAL {IMMORTAL}\n\\g<0>"),
        ("    op->ob_refcnt\\+\\+;", 1, "    if (op->ob_refcnt < IMMORTAL)\n        op->ob_refcnt++;"),
        ("if \\(--op->ob_refcnt == 0\\)", 1, "if (op->ob_refcnt < IMMORTAL && --op->ob_refcnt == 0)"),
    ),
    "Include/internal/pycore_object.h": (
        ("if \\(--op->ob_refcnt != 0\\)", 1, "if (op->ob_refcnt >= IMMORTAL || --op->ob_refcnt != 0)"),
        ("    op->ob_refcnt--;", 1, "    if (op->ob_refcnt < IMMORTAL)\n        op->ob_refcnt--;"),
    ),
    "Python/ceval.c": (("if \\(--op->ob_refcnt == 0\\)", 2, "if (op->ob_refcnt < IMMORTAL && --op->ob_refcnt == 0)"),),
    "Objects/obmalloc.c": (("/\\* pymalloc allocator\n", 1, f"{SEAL}\\g<0>"),),
    # Code that counts its own calls and rewrites itself is code that each process has a copy of.
    "Include/internal/pycore_code.h": (("(#define QUICKENING_INITIAL_WARMUP_VALUE) .*", 1, "\\g<1> 0"),),
    # 100 kB in each process, for programs with more methods in use than we have.
    "Include/internal/pycore_typeobject.h": (("(#define MCACHE_SIZE_EXP) 12", 1, "\\g<1> 8"),),
    # The names of 1,700 reasons, twice; what OpenSSL says of an error in words stays.
    "Modules/_ssl.c": (("while \\(errcode->mnemonic != NULL\\)", 1, "while (0)"),),
}
CONFIGURE = (
    "--disable-shared --without-ensurepip --disable-test-modules --without-doc-strings --without-readline "
    # No zlib but our own, no dlopen: there is nothing to load.
    "--prefix=/usr ac_cv_header_zlib_h=no ac_cv_lib_z_gzread=no ac_cv_func_dlopen=no"
)


# A library that LXC's programs ask whether SELinux is on (it never is: a device has no policy), and what comes with it,
# a machine for regular expressions: 0.8 MB for "no" (ADR 0074).
SELINUX = "libselinux.so.1"
SELINUX_VERSION = "LIBSELINUX_1.0 { global: *; };\n"


class Interpreter(NamedTuple):
    """A built one: below `root` lie `usr/bin/python3.11` and the sources of its standard library."""

    root: Path
    made_of: tuple[str, ...]

    @property
    def libraries(self) -> dict[str, Path]:
        """Soname -> file: what is packed in place of Debian's."""
        return {SELINUX: self.root / "usr/lib" / SELINUX}


def build(folder: Path) -> Interpreter:
    """The interpreter, built at the first call below the cache `folder` (two processes that want it build it once).

    Raises `process.ToolMissingError` that names the package of a missing tool, `process.ProcessError` with the words
    of a compiler that fails.
    """
    for tool, package in TOOLS.items():
        process.require(tool, package)
    found = [sources.fetch(name, folder / "debian") for name in PACKAGES]
    made_of = tuple(sources.names_and_versions(found))
    recipe = [RECIPE, FLAGS, OPENSSL_WITHOUT, MODULES, PATCHES, CONFIGURE]
    recipe += [SELINUX_VERSION, *((HERE / name).read_text() for name in ("_brickless.c", "selinux.c", HOT.name))]
    name = f"native-{cache.key(made_of, recipe)}"
    root = folder / "trees" / name
    cache.folder(root, lambda out: _build(found, out))
    return Interpreter(root, made_of)


def _build(found: list[sources.Source], out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="brickless-native-") as scratch:
        work = Path(scratch)
        compiler = _compiler(work)
        trees = {source.name: work / source.name for source in found}
        for source in found:
            sources.unpack(source, trees[source.name])
        _openssl(trees["openssl"], compiler)
        _small_libraries(trees["zlib"], trees["bzip2"], compiler)
        python = trees["python3.11"]
        _python(python, trees, compiler)
        (out / "usr/bin").mkdir(parents=True)
        _step(["strip", "-o", str(out / "usr/bin/python3.11"), str(python / "python")], python, "strip the interpreter")
        # Which function lies where: `bench.hot` reads it.
        (out / FUNCTIONS).write_bytes(_step(["nm", "-n", "-S", "--defined-only", "python"], python, "list functions"))
        unwanted = shutil.ignore_patterns("test", "tests", "idlelib", "tkinter", "__pycache__", "ensurepip", "lib2to3")
        shutil.copytree(python / "Lib", out / "usr/lib/python3.11", ignore=unwanted)
        (out / "usr/lib/python3.11/lib-dynload").mkdir()
        _selinux(work, out / "usr/lib" / SELINUX)


def _compiler(work: Path) -> Path:
    headers = work / "headers"
    headers.mkdir()
    for name, target in KERNEL_HEADERS.items():
        if not os.path.isdir(target):
            raise BricklessError(f"{target} is missing: install the Debian package linux-libc-dev")
        (headers / name).symlink_to(target)
    compiler = work / "cc"
    # Python's `configure` asks for the name of the platform, and Debian's gcc would give that of glibc.
    compiler.write_text(
        "#!/bin/sh\n"
        '[ "$*" = --print-multiarch ] && exec echo x86_64-linux-musl\n'
        f'exec {process.require("musl-gcc", "musl-tools")} -idirafter {headers} "$@"\n'
    )
    compiler.chmod(0o755)
    return compiler


def _openssl(tree: Path, compiler: Path) -> None:
    without = [f"no-{one}" for one in OPENSSL_WITHOUT.split()]
    argv = ["perl", "./Configure", "linux-x86_64", f"CC={compiler}", *FLAGS.split(), "--openssldir=/etc/ssl", *without]
    _step(argv, tree, "configure OpenSSL")
    _step(["make", f"-j{_jobs()}", "build_libs"], tree, "compile OpenSSL")


def _small_libraries(zlib: Path, bzip2: Path, compiler: Path) -> None:
    env = {"CC": str(compiler), "CFLAGS": FLAGS}
    _step(["sh", "./configure", "--static"], zlib, "configure zlib", env)
    _step(["make", f"-j{_jobs()}", "libz.a"], zlib, "compile zlib", env)
    _step(["make", f"-j{_jobs()}", "libbz2.a", f"CC={compiler}", f"CFLAGS={FLAGS}"], bzip2, "compile bzip2")


def _python(tree: Path, trees: dict[str, Path], compiler: Path) -> None:
    shutil.copyfile(HERE / "_brickless.c", tree / "Modules/_brickless.c")
    _patch(tree)
    lines = ["*static*"]
    for name, how in MODULES.items():
        for library in ("openssl", "zlib", "bzip2"):
            how = how.replace(f"{{{library}}}", str(trees[library]))  # noqa: PLW2901 - one after the other
        lines.append(f"{name} {how}")
    (tree / "Modules/Setup.local").write_text("\n".join(lines) + "\n")
    order = tree / "order"
    order.write_text("".join(f".text.{name}\n*.text.unlikely.{name}\n" for name in HOT.read_text().split()))
    env = {
        "CC": str(compiler),
        # Without the radix tree the allocator has pools of one page: less of them stays half empty.
        "OPT": f"-DNDEBUG -fwrapv -DWITH_PYMALLOC_RADIX_TREE=0 {FLAGS}",
        "LDFLAGS": f"-static -no-pie -Wl,--gc-sections,--rosegment,--section-ordering-file={order} -fuse-ld=gold",
        "PKG_CONFIG": "/bin/false",  # it would find libraries of this machine, which are not of this C library
    }
    _step(["sh", "./configure", *CONFIGURE.split()], tree, "configure Python", env)
    # Just the program: modules are inside, and nothing is installed.
    # Nobody links against it: without the variable no function is kept for those who would.
    _step(["make", f"-j{_jobs()}", "python", "LINKFORSHARED="], tree, "compile Python")


def _selinux(work: Path, out: Path) -> None:
    versions = work / "selinux.map"
    versions.write_text(SELINUX_VERSION)
    argv = ["gcc", "-Os", "-fPIC", "-shared", "-nostdlib", "-s", f"-Wl,-soname,{SELINUX}"]
    _step([*argv, f"-Wl,--version-script={versions}", "-o", str(out), str(HERE / "selinux.c")], work, "compile a stub")


def _patch(tree: Path) -> None:
    for name, changes in PATCHES.items():
        text = (tree / name).read_text()
        for pattern, times, instead in changes:
            text, found = re.subn(pattern, instead, text)
            if found != times:
                raise BricklessError(f"{name} of this Python has {pattern!r} {found} times, not {times}: see ADR 0072")
        (tree / name).write_text(text)


def _step(argv: list[str], tree: Path, purpose: str, env: dict[str, str] | None = None) -> bytes:
    # The build is to give the same bytes on every machine: no time of day in `sys.version`.
    given = {"SOURCE_DATE_EPOCH": "1704067200", **(env or {})}
    return process.run(argv, purpose=purpose, timeout_s=STEP_TIMEOUT_S, cwd=str(tree), env=given).stdout


def _jobs() -> int:
    return len(os.sched_getaffinity(0))
