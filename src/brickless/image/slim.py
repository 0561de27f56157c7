"""Compiles modules for a device, without what only developers look at (ADR 0073). Run by the device's interpreter.

Kept for ever in each process's memory is all that a code object holds. Left out of ours and the standard library's are
columns of error messages (the caller's `-X no_debug_ranges`), docstrings, assertions, and the long names of functions;
of ours alone, annotations that nothing evaluates. Lines stay: a crash record names them.

Standard library only, and no import of ours: the interpreter that runs it may be any CPython with the same bytecode.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import marshal
import sys
from types import CodeType

# The one base whose subclasses read their annotations: the fields are their keys, in order.
RECORD = "NamedTuple"
LAZY = ("__future__", "annotations")


class _Bare(ast.NodeTransformer):
    """Takes annotations out of a module that has `from __future__ import annotations`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        given = node.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if argument is not None:
                argument.annotation = None
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(isinstance(base, ast.Name) and base.id == RECORD for base in node.bases):
            for one in node.body:
                if isinstance(one, ast.AnnAssign):
                    one.annotation = ast.copy_location(ast.Name("_", ast.Load()), one.annotation)
                else:
                    self.visit(one)
            return node
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            # In a function it makes the name a local one, which its other uses do as well.
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def compiled(text: bytes, shown: str) -> CodeType:
    """The module's code; `shown` is the file that tracebacks name. Raises `SyntaxError`."""
    tree = ast.parse(text, shown)
    if any(isinstance(one, ast.ImportFrom) and (one.module, one.names[0].name) == LAZY for one in tree.body):
        tree = ast.fix_missing_locations(_Bare().visit(tree))
    return _short(compile(tree, shown, "exec", dont_inherit=True, optimize=2))


def _short(code: CodeType) -> CodeType:
    """Each function's long name is its short one, which is there already."""
    inner = tuple(_short(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_consts=inner, co_qualname=code.co_name)


def main() -> None:
    """Compile what standard input lists as JSON: source, shown name, destination."""
    for source, shown, dest in json.load(sys.stdin):
        with open(source, "rb") as stream:
            text = stream.read()
        code = compiled(text, shown)
        with open(dest, "wb") as stream:
            # "Unchecked by hash" (PEP 552): no time stamp, and nothing to check at import on the device.
            stream.write(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(text))
            marshal.dump(code, stream)


if __name__ == "__main__":
    main()
