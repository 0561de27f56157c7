"""The `brickless` command: what spans the products. Each subcommand is loaded when it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from brickless.core.errors import BricklessError

CACHE = Path(".cache")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="brickless")
def brickless() -> None:
    """Turn whole Linux devices into containers, and move them from revision to revision in one step."""


def _lab_options(command: click.Command) -> click.Command:
    """What `up` and `demo` share."""
    path = click.Path(path_type=Path, file_okay=False)
    command.params += [
        click.Option(
            ["--cache"], type=path, default=CACHE, show_default=True, help="Where what was made once is kept."
        ),
        click.Option(["--state"], type=path, default=CACHE / "lab", show_default=True, help="Disks and logs; emptied."),
        click.Option(["--verbose", "-v"], is_flag=True, help="Show the devices' consoles whole."),
    ]
    return command


@brickless.command()
def up(cache: Path, state: Path, verbose: bool) -> None:
    """Run a hub and two emulated devices, deploy a real app to them, and stay up until Ctrl-C."""
    _tell(cache, state, verbose, stay=True)


@brickless.command()
def demo(cache: Path, state: Path, verbose: bool) -> None:
    """Do what `up` does, from start to end, and exit with a status."""
    _tell(cache, state, verbose, stay=False)


for _command in (up, demo):
    _lab_options(_command)


@brickless.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def hub(arguments: tuple[str, ...]) -> None:
    """Run a hub, or make accounts: the options are those of `python -m brickless.hub --help`."""
    from brickless.hub.__main__ import main as run_hub

    sys.exit(run_hub(list(arguments)))


def _tell(cache: Path, state: Path, verbose: bool, *, stay: bool) -> None:
    from brickless.main.talk import Talk
    from brickless.main.up import Interrupted, interruptible, run

    talk = Talk(verbose=verbose)
    with interruptible():
        try:
            run(state.absolute(), cache.absolute(), talk, stay=stay)
        except Interrupted as interrupted:
            talk.say(f"ended by {interrupted}; nothing is left running")
            sys.exit(0 if stay else 130)
        except (BricklessError, OSError) as error:
            talk.say(f"FAILED: {error}")
            sys.exit(1)


def main() -> None:
    """The program."""
    brickless()
