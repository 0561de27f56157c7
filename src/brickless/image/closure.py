"""Which Python modules a device needs: found by reading imports, never by running anything.

Our own device stack is taken whole. Of the standard library comes what it imports, and what those modules import when
they are loaded; imports inside functions of the standard library are of rarely used features and stay out, except
those in `ALWAYS`.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import BricklessError

# What the interpreter itself loads by name, and codecs that are looked up by name.
ALWAYS = (
    "abc",
    "codecs",
    "encodings",
    "encodings.aliases",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8",
    "io",
    "linecache",
    "os",
    "runpy",
    "site",
    "warnings",
    "zipimport",
)
# Imported at the top of a module, but never loaded: developers' tools, and Python versions of what is there in C.
NEVER = frozenset({"_py_abc", "_pydecimal", "distutils", "doctest", "pdb", "pydoc", "test", "tkinter", "unittest"})
# Modules in Python that compiled ones import, where no reader of source can see it.
HIDDEN = {"_decimal": ("collections", "collections.abc", "numbers"), "_ssl": ("socket",)}
STACK = ("core", "store", "linux", "device")


class Source(NamedTuple):
    """A module in Python: its dotted name, its file, and whether it is a package."""

    name: str
    path: Path
    package: bool

    @property
    def target(self) -> str:
        """Where its bytecode lies below the folder of the standard library."""
        base = self.name.replace(".", "/")
        return f"{base}/__init__.pyc" if self.package else f"{base}.pyc"


class Closure(NamedTuple):
    """What to pack: modules in Python, and compiled extension modules (files of `lib-dynload`)."""

    sources: tuple[Source, ...]
    extensions: tuple[Path, ...]


def device_modules(package: Path) -> list[Source]:
    """All modules of the device stack below the folder of the package `brickless`."""
    found = [Source("brickless", package / "__init__.py", True)]
    for part in STACK:
        for path in sorted((package / part).rglob("*.py")):
            relative = path.relative_to(package.parent).with_suffix("")
            parts = relative.parts[:-1] if path.name == "__init__.py" else relative.parts
            found.append(Source(".".join(parts), path, path.name == "__init__.py"))
    return found


def stand_ins(folder: Path) -> dict[str, Source]:
    """The modules in `folder`, by the name of the module of the standard library that each stands in for."""
    found = {}
    for path in sorted(folder.rglob("[a-z]*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        found[name] = Source(name, path, False)
    return found


def find(
    stdlib: Path, own: Iterable[Source], *, absent: Container[str] = (), replaced: Mapping[str, Source] | None = None
) -> Closure:
    """The closure over `own` modules and the standard library in the folder `stdlib`.

    `absent` are packages that this interpreter does not have and our stack does without; `replaced` are modules of the
    standard library that something smaller stands in for.
    Raises `BricklessError` when one of our modules imports what neither is there nor built into an interpreter.
    """
    sources = {one.name: one for one in own}
    extensions: dict[str, Path] = {}
    wanted = list(ALWAYS)
    for one in list(sources.values()):
        wanted += _imports(one, functions=True)
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        top = name.partition(".")[0]
        if name in seen or top in NEVER or top in absent or top == "brickless":
            _check_own(name, sources)
            continue
        seen.add(name)
        wanted += HIDDEN.get(name, ())
        source = (replaced or {}).get(name) or _source(stdlib, name)
        if source is not None:
            sources[name] = source
            wanted += _imports(source, functions=False)
        elif (library := _extension(stdlib, name)) is not None:
            extensions[name] = library
    return Closure(tuple(sources[name] for name in sorted(sources)), tuple(extensions[n] for n in sorted(extensions)))


def _check_own(name: str, sources: dict[str, Source]) -> None:
    # `from brickless.linux.libc import mount` is noted with all its names: that of a function is no module.
    part = ".".join(name.split(".")[:2])
    if name.startswith("brickless.") and part not in sources:
        raise BricklessError(f"the device stack imports {name}, which does not ship to devices")


def _source(stdlib: Path, name: str) -> Source | None:
    base = stdlib / name.replace(".", "/")
    if (base / "__init__.py").is_file():
        return Source(name, base / "__init__.py", True)
    path = base.with_name(base.name + ".py")
    return Source(name, path, False) if path.is_file() else None


def _extension(stdlib: Path, name: str) -> Path | None:
    found = sorted((stdlib / "lib-dynload").glob(f"{name}.cpython-*.so"))
    return found[0] if found else None


def _imports(source: Source, *, functions: bool) -> Iterator[str]:
    tree = ast.parse(source.path.read_bytes(), str(source.path))
    package = source.name if source.package else source.name.rpartition(".")[0]
    for node in _statements(tree, functions=functions):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield from _with_parents(base)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        yield ".".join(parts[:depth])


def _statements(tree: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        yield child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        if isinstance(child, ast.If) and _never_runs(child.test):
            continue
        yield from _statements(child, functions=functions)


def _never_runs(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in {"TYPE_CHECKING", "typing.TYPE_CHECKING"} or text.startswith("__name__ ==")
