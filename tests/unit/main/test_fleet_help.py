"""Every command of `brickless fleet` explains itself with an example that is a command of its own."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from brickless.main.fleet import fleet


def commands(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of a command and of all below it."""
    yield names
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands(one, *names, name)


@pytest.mark.parametrize("names", list(commands(fleet)), ids=" ".join)
def test_help_has_an_example_of_this_command(names: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(fleet, [*names, "--help"])
    assert shown.exit_code == 0, shown.output
    example = " ".join(shown.output.split("Example:")[1].split())
    assert example.startswith(" ".join(("brickless fleet", *names)))
