"""`pvr dm-convert`: protect a volume with dm-verity."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("dm-convert", example="pvr dm-convert web root.squashfs && pvr commit -m 'web: verity'", failure=4)
@argument("container", metavar="CONTAINER[/VOLUME]", default="")
@argument("volume", metavar="[VOLUME]", default="")
def command(env: Env, container: str, volume: str) -> None:
    """Make the hash tree of a volume, and have the device check every block of it while it reads.

    The root hash is trusted because the signed state holds it: sign the container again afterwards.
    """
    from brickless.pvr import verity

    name, slash, inner = container.partition("/")
    if not name or bool(slash and inner) == bool(volume):
        raise CommandError(2, "Which volume?", hint="pvr dm-convert web root.squashfs")
    repo = env.repository()
    with repo.lock():
        env.say(f"container={name} volume={inner or volume}")
        written = verity.convert(repo.dir, name, inner or volume)
        repo.add(written[:2])
    env.result({"updated": written}, [f"- Updated {path}" for path in written])
