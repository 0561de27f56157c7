"""The `brickless` command: what spans the products. Each subcommand is loaded when it is called."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from brickless.core.errors import BricklessError, UserError

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
        click.Option(
            ["--devices"],
            type=click.IntRange(1, 10),
            default=2,
            show_default=True,
            help="How many; each takes 256 MB of memory. The story is told on the first.",
        ),
        click.Option(["--verbose", "-v"], is_flag=True, help="Show the devices' consoles whole."),
    ]
    return command


@brickless.command()
def up(cache: Path, state: Path, devices: int, verbose: bool) -> None:
    """Run a hub and two emulated devices, deploy a real app to one, and stay up until Ctrl-C.

    \b
    Example: brickless up --devices 5
    """
    _tell(cache, state, devices, verbose, stay=True)


@brickless.command()
def demo(cache: Path, state: Path, devices: int, verbose: bool) -> None:
    """Do what `up` does, from start to end, and exit with a status.

    \b
    Example: brickless demo --verbose
    """
    _tell(cache, state, devices, verbose, stay=False)


for _command in (up, demo):
    _lab_options(_command)


@brickless.command()
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), default=CACHE, show_default=True)
@click.option("--found", type=click.Path(path_type=Path), default=Path("build/chaos"), help="Where findings are kept.")
@click.option(
    "--machine",
    "machines",
    multiple=True,
    default=["emulator"],
    show_default=True,
    type=click.Choice(["emulator", "pc", "virt-arm64", "virt-arm64-fat"]),
    help="Whose life is recorded; repeatable. -fat: the bootloader's environment lies on FAT.",
)
@click.option("--lives", type=click.IntRange(min=1), default=1, show_default=True, help="How many recordings are made.")
@click.option("--sample", type=click.IntRange(min=8), help="How many states of each are judged; all without it.")
@click.option("--boot", type=click.IntRange(min=0), default=0, help="How many states are really booted, in all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which states are drawn.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Judged or booted at once.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the recordings and what was judged in this folder.")
@click.option("--resume", is_flag=True, help="Go on where the last one with this --keep, or --recording, broke off.")
@click.option("--recording", type=click.Path(path_type=Path), help="Judge this recording, make no new one.")
@click.option("--state", help="With --recording: only this state.")
@click.option("--verbose", "-v", is_flag=True, help="Show the device's console whole.")
def chaos(  # noqa: PLR0913, PLR0917 - the options of a command
    cache: Path,
    found: Path,
    machines: tuple[str, ...],
    lives: int,
    sample: int | None,
    boot: int,
    seed: int,
    workers: int,
    keep: Path | None,
    resume: bool,
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
      brickless chaos --machine pc --lives 2 --keep build/recordings --resume
      brickless chaos --recording build/chaos/emulator-0 --state 120+123,125~126:3 --boot 1
    """
    from brickless.main.chaos import run as campaign
    from brickless.main.chaos.record import Recording
    from brickless.main.talk import Talk
    from brickless.main.up import Interrupted, interruptible

    talk = Talk(verbose=verbose)
    cache, found = cache.absolute(), found.absolute()
    plan = campaign.Plan(machines, lives, sample, boot, seed, workers, resume)
    try:
        with interruptible():
            if recording is None:
                counts = campaign.run(cache, found, talk, plan, keep=keep)
            elif state is None:
                counts = campaign.judge_kept(Recording(recording), cache, found, talk, plan)
            else:
                counts = campaign.show(Recording(recording), cache, state, talk, boot=bool(boot))
    except Interrupted as interrupted:
        talk.say(f"ended by {interrupted}; what was judged and booted is kept beside the recording")
        sys.exit(130)
    except (BricklessError, OSError) as error:
        talk.say(f"FAILED: {error}")
        sys.exit(2)
    talk.result(campaign.last_line(counts))
    sys.exit(1 if counts.findings else 0)


_BOARDS = click.Choice(["pc", "virt-arm64"])
_CACHE = click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), default=CACHE, show_default=True,
    help="Where packages and what was made of them are kept.",
)  # fmt: skip


@brickless.command()
@click.option("--board", type=_BOARDS, required=True, help="The board that it is for.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The image to write.")
@_CACHE
@click.option("--size-mb", type=click.IntRange(64, 65536), default=512, show_default=True, help="Of the storage.")
@click.option("--attempts", type=click.IntRange(1, 9), default=3, show_default=True, help="Boots that a try has.")
@click.option("--config", "pairs", multiple=True, metavar="KEY=VALUE", help="Configuration of the device; repeatable.")
@click.option("--command-line", default="", help="More words for the kernel's command line.")
@click.option("--watchdog", type=click.IntRange(0, 1000), default=0, help="Seconds; armed before the kernel (pc).")
@click.option("--certificate", type=click.Path(path_type=Path, exists=True), help="Of a hub that the device trusts.")
@click.option(
    "--trust", type=click.Path(path_type=Path, exists=True), multiple=True,
    help="Authorities' certificates, or a public key, that signatures of revisions are verified by.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def image(  # noqa: PLR0913, PLR0917 - the options of a command
    board: str,
    out: Path,
    cache: Path,
    size_mb: int,
    attempts: int,
    pairs: tuple[str, ...],
    command_line: str,
    watchdog: int,
    certificate: Path | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write a disk image that boots on a board: bootloader, boot scripts, storage with a factory revision.

    No root is needed, and the same packages and options give the same bytes.

    \b
    Example:
      brickless image --board pc --out build/pc.img
      brickless image --board virt-arm64 --out build/arm64.img --config PH_CREDS_HOST=hub.example.org --json
    """
    from brickless.image.boards import Options
    from brickless.main import imagecmd

    try:
        options = Options(imagecmd.settings(pairs), command_line, size_mb, attempts, watchdog)
        made = imagecmd.build(out.absolute(), board, cache.absolute(), options, certificate, trust)
    except (BricklessError, OSError) as error:
        _fail(error)
    if as_json:
        click.echo(made.to_json())
    else:
        click.echo(f"{made.path}  {made.size_bytes >> 20} MiB  sha256 {made.sha256}")


@brickless.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--board", type=_BOARDS, required=True, help="The board that it runs on.")
@_CACHE
@click.option("--verbose", "-v", is_flag=True, help="Show the console whole.")
def twin(source: Path, board: str, cache: Path, verbose: bool) -> None:
    """Boot a device's exact revision in QEMU: SOURCE is a clone of the device (`pvr clone`), or a disk image.

    A disk image is used as it is and written to; a clone gets a disk of its own, which is gone afterwards.

    \b
    Example:
      pvr clone user1/gateway gateway && brickless twin gateway --board pc
      brickless twin build/pc.img --board pc --verbose
    """
    from brickless.image.boards import Options
    from brickless.main import imagecmd
    from brickless.main.talk import Talk
    from brickless.main.up import Interrupted, interruptible

    talk = Talk(verbose=verbose)
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="brickless-twin-") as scratch:
            disk = source
            if source.is_dir():
                disk = Path(scratch) / "disk.img"
                imagecmd.of_repository(disk, board, cache.absolute(), Options(), source)
            imagecmd.run(disk.absolute(), board, cache.absolute(), talk)
    except Interrupted:
        talk.say("switched off")
    except (BricklessError, OSError) as error:
        _fail(error)


def _fail(error: BricklessError | OSError) -> NoReturn:
    click.echo(f"brickless: {error}", err=True)
    sys.exit(2 if isinstance(error, UserError) else 1)


@brickless.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def hub(arguments: tuple[str, ...]) -> None:
    """Run a hub, or make accounts: the options are those of `python -m brickless.hub --help`."""
    from brickless.hub.__main__ import main as run_hub

    sys.exit(run_hub(list(arguments)))


@brickless.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def fleet(arguments: tuple[str, ...]) -> None:
    """Labels, releases and rollouts of a hub's devices: `brickless fleet --help`."""
    from brickless.main.fleet import fleet as commands

    commands.main(list(arguments), prog_name="brickless fleet")


@brickless.command()
@click.option("--storage", type=click.Path(path_type=Path, file_okay=False), required=True, help="All that it keeps.")
@click.option(
    "--packages",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder of `pvr export` files: the first revision is made of them.",
)
@click.option("--initial-revision", default="0", show_default=True, help="The name of that first revision.")
@click.option("--cmdline", "-c", default="", help="Words of a kernel command line, e.g. PV_LOG_LEVEL=4.")
@click.option("--env", "-e", multiple=True, metavar="KEY=VALUE", help="Configuration, as on a kernel command line.")
@click.option("--delay", "-d", default=5.0, show_default=True, metavar="SECONDS", help="Between a reboot and the boot.")
@click.option("--own-network", is_flag=True, help="Keep bridges and containers out of this machine's network.")
def appengine(
    storage: Path,
    packages: Path | None,
    initial_revision: str,
    cmdline: str,
    env: tuple[str, ...],
    delay: float,
    own_network: bool,
) -> None:
    """Run the runtime in namespaces of this machine, as root, without an emulator. Ctrl-C ends it.

    Example: brickless appengine --storage /var/tmp/device --packages ./exports
    """
    from brickless.main import appengine as engine

    values = dict(word.partition("=")[::2] for word in env)
    settings = engine.Settings(
        storage.absolute(), packages, initial_revision, cmdline, values, delay_s=delay, own_network=own_network
    )
    try:
        engine.prepare(settings)
        sys.exit(engine.Engine(settings).run())
    except (BricklessError, OSError) as error:
        click.echo(f"FAILED: {error}", err=True)
        sys.exit(1)


def _tell(cache: Path, state: Path, devices: int, verbose: bool, *, stay: bool) -> None:
    from brickless.main.talk import Talk
    from brickless.main.up import Interrupted, interruptible, run

    talk = Talk(verbose=verbose)
    with interruptible():
        try:
            run(state.absolute(), cache.absolute(), talk, devices=devices, stay=stay)
        except Interrupted as interrupted:
            talk.say(f"ended by {interrupted}; nothing is left running")
            sys.exit(0 if stay else 130)
        except (BricklessError, OSError) as error:
            talk.say(f"FAILED: {error}")
            sys.exit(1)


def main() -> None:
    """The program."""
    brickless()
