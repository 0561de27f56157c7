"""`pvr diff`: what changed, as a JSON merge patch."""

from __future__ import annotations

from brickless.core import merge
from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env
from brickless.store.jsontext import escaped_text


@cli.command("diff", example="pvr diff; pvr diff HEAD~1 HEAD; pvr diff me/device#web .")
@argument("revisions", metavar="[REV [REV]]", nargs=-1)
def command(env: Env, revisions: tuple[str, ...]) -> None:
    """Print the merge patch from the committed state to the working tree, or between two states.

    REV is HEAD, HEAD~N (this repository's history), a state's hash, `.` for the working tree, or any repository.
    """
    from brickless.pvr.revision import state_of

    old: dict[str, JsonValue]
    new: dict[str, JsonValue]
    if len(revisions) > 2:
        from brickless.pvr.errors import CommandError

        raise CommandError(2, "A difference is between two states at most.", hint="pvr diff REV REV")
    old = state_of(env, revisions[0] if revisions else "HEAD")
    new = state_of(env, revisions[1] if len(revisions) == 2 else ".")
    patch = merge.diff(old, new)
    env.result(patch, [escaped_text(patch)])
