"""The pages show commands of `pvr` that exist, with flags that exist; the table of features names tests that exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from brickless.pvr.cli import Group, normalise
from brickless.pvr.root import root

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    page
    for page in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*"), ROOT / "README.md"]
    if page.is_file() and "pvr " in page.read_text(errors="replace")
)


def command_lines(page: Path) -> Iterator[str]:
    """What a page tells people to type: lines of code blocks and scripts, and short pieces of code in the text."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if page.suffix == ".md" else [text]
    joined = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(pvr [^`\n]+)`", text) if page.suffix == ".md" else []
    for line in [*joined, *inline]:
        found = re.match(r"\s*(?:[-$>]\s+|- run: |run: )?(?:[A-Z_]+=\S+ )*(pvr [^|;&#<>()]*(?:#\S[^|;&<>()]*)?)", line)
        if found and not re.match(r"pvr [A-Z]", found[1]):
            yield found[1].rstrip(" .,:")


def check(words: list[str]) -> None:
    """Parse the line as `pvr` would, without running anything. Raises UsageError, KeyError."""
    group: click.Command = root
    context = click.Context(root, info_name="pvr")
    while isinstance(group, Group):
        words = normalise(words, group.get_params(context), stop_at_positional=True)
        options = {opt for param in group.params for opt in param.opts}
        takes = {opt: not p.is_flag for p in group.params if isinstance(p, click.Option) for opt in p.opts}
        while words and words[0].startswith("-"):
            assert words[0] in options | {"--help", "-h"}, words[0]
            words = words[2 if takes.get(words[0]) else 1 :]
        if not words:
            return
        assert words[0] in group.names, f"there is no command {words[0]!r}"
        found = group.get_command(context, words[0])
        assert found is not None
        group, words = found, words[1:]
    known = {opt.lstrip("-") for param in group.params for opt in [*param.opts, *param.secondary_opts]}
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            name = word.lstrip("-").partition("=")[0]
            assert name in known | {"help", "h"}, f"{group.name} has no flag {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists_with_its_flags(page: Path) -> None:
    for line in command_lines(page):
        try:
            words = shlex.split(line, comments=False)[1:]
        except ValueError:
            continue  # a quotation that goes on in the next line
        check([word for word in words if word not in {"...", "[...]"}])


def test_the_test_itself_finds_what_is_wrong() -> None:
    for line in ("pvr push", "pvr init --objects-dir x", "pvr sig --parts x ls", "pvr device frobnicate", "pvr -Z ls"):
        with pytest.raises(AssertionError):
            check(shlex.split(line)[1:])
    check(shlex.split("pvr -q sig --key k add --part web")[1:])


def test_the_table_of_features_names_tests_that_exist() -> None:
    text = (ROOT / "docs/reference/pvr.md").read_text()
    named = set(re.findall(r"`((?:unit|contract|flow|ns|vm)/[\w/]+\.py)(?:::(\w+))?`", text))
    assert len({(name, test) for name, test in named if test}) > 100
    for name, test in sorted(named):
        source = ROOT / "tests" / name
        assert source.is_file(), name
        functions = {node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert not test or test in functions, f"{name} has no test {test}"
