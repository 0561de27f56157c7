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


@brickless.command()
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), default=CACHE, show_default=True)
@click.option("--found", type=click.Path(path_type=Path), default=Path("build/chaos"), help="Where findings are kept.")
@click.option("--machine", type=click.Choice(["emulator", "pc", "virt-arm64"]), default="emulator", show_default=True)
@click.option("--lives", type=click.IntRange(min=1), default=1, show_default=True, help="How many recordings are made.")
@click.option("--sample", type=click.IntRange(min=8), help="How many states of each are judged; all without it.")
@click.option("--boot", type=click.IntRange(min=0), default=0, help="How many states are really booted, in all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which states are drawn.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the recordings in this folder.")
@click.option("--recording", type=click.Path(path_type=Path), help="Judge this recording, make no new one.")
@click.option("--state", help="With --recording: only this state.")
@click.option("--verbose", "-v", is_flag=True, help="Show the device's console whole.")
def chaos(  # noqa: PLR0913, PLR0917 - the options of a command
    cache: Path,
    found: Path,
    machine: str,
    lives: int,
    sample: int | None,
    boot: int,
    seed: int,
    keep: Path | None,
    recording: Path | None,
    state: str | None,
    verbose: bool,
) -> None:
    """Cut the power of an emulated device at every single write, and judge what is left.

    The last line is JSON: {"states": N, "bad": N, "booted": N, "unbootable": N, "cases": {...}}. The exit status is 1
    when a state is neither old nor new.

    \b
    Example:
      brickless chaos --sample 300 --boot 4
      brickless chaos --machine pc --lives 2 --keep build/recordings
      brickless chaos --recording build/chaos/emulator-0 --state 120+123,125~126:3 --boot 1
    """
    from brickless.main.chaos import run as campaign
    from brickless.main.chaos.record import Recording
    from brickless.main.talk import Talk

    talk = Talk(verbose=verbose)
    cache, found = cache.absolute(), found.absolute()
    plan = campaign.Plan(machine, lives, sample, boot, seed)
    try:
        if recording is None:
            counts = campaign.run(cache, found, talk, plan, keep=keep)
        elif state is None:
            counts = campaign.judge_kept(Recording(recording), cache, found, talk, plan)
        else:
            counts = campaign.show(Recording(recording), cache, state, talk, boot=bool(boot))
    except (BricklessError, OSError) as error:
        talk.say(f"FAILED: {error}")
        sys.exit(2)
    talk.result(campaign.last_line(counts))
    sys.exit(1 if counts.findings else 0)


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
