"""Manual pages made from the commands themselves (man(7)): what `--help` says, so that both cannot differ."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from brickless.store import atomic

SECTION = "1"


def write_all(root: click.Group, directory: str, *, version: str) -> list[str]:
    """Write one page for the program and one for each command into `directory`; returns their names, sorted."""
    atomic.make_dirs(directory)
    names = []
    for words, command in walk(root, ("pvr",)):
        name = f"{'-'.join(words)}.{SECTION}"
        atomic.write_file(os.path.join(directory, name), page(command, words, version=version).encode())
        names.append(name)
    return sorted(names)


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=words[-1])
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from walk(child, (*words, name))


def page(command: click.Command, words: tuple[str, ...], *, version: str) -> str:
    """Return the page of one command as roff."""
    context = click.Context(command, info_name=" ".join(words))
    title = "-".join(words)
    help_text = (command.help or "").strip()
    first, _, rest = help_text.partition("\n\n")
    lines = [
        f'.TH "{_escape(title.upper())}" "{SECTION}" "" "pvr {_escape(version)}" "Brickless"',
        ".SH NAME",
        f"{_escape(title)} \\- {_flow(first)}",
        ".SH SYNOPSIS",
        f".B {_escape(' '.join(words))}",
        _escape(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        _flow(first),
    ]
    for paragraph in filter(None, rest.split("\n\n")):
        lines += [".PP", _flow(paragraph)]
    lines += _options(command, context)
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            lines += [".TP", f".BR {_escape('-'.join((*words, name)))} ({SECTION})", _summary(command, context, name)]
    if command.epilog:
        example = command.epilog.replace("\b", "").strip().removeprefix("Example:").strip()
        lines += [".SH EXAMPLE", ".nf", _escape(example), ".fi"]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    if not records:
        return []
    lines = [".SH OPTIONS"]
    for names, text in records:
        lines += [".TP", f".B {_escape(names)}", _flow(text)]
    return lines


def _summary(group: click.Group, context: click.Context, name: str) -> str:
    child = group.get_command(context, name)
    return _escape(child.get_short_help_str(200)) if child is not None else ""


def _flow(text: str) -> str:
    """A paragraph on one line, safe at its beginning."""
    return _escape(" ".join(text.replace("\b", "").split()))


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    # A line that begins with a control character would be a request.
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))
