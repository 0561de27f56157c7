"""`pvr show`: a state for people."""

from __future__ import annotations

from typing import Any

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env
from brickless.store.repo import Repository


@cli.command("show", example="pvr show HEAD~1 HEAD")
@argument("revisions", metavar="[REV [REV]]", nargs=-1)
def command(env: Env, revisions: tuple[str, ...]) -> None:
    """Show the parts of a state (containers, images, sizes), or with two states what changed between them.

    REV is HEAD, HEAD~N, a state's hash, `.` for the working tree, or any repository.
    """
    from brickless.pvr import humandiff
    from brickless.pvr.errors import CommandError
    from brickless.pvr.revision import state_of

    if len(revisions) > 2:
        raise CommandError(2, "Two states can be compared, not more.", hint="pvr show REV REV")
    states = [state_of(env, text) for text in revisions or ("HEAD",)]
    size_of = _sizes(env)
    if len(states) == 1:
        found = humandiff.parts(states[0], size_of)
        env.result([_part(part) for part in found], humandiff.show(found))
        return
    changes = humandiff.compare(states[0], states[1], size_of)
    document: list[JsonValue] = [
        {"name": change.name, "kind": change.kind, "details": list(change.details)} for change in changes
    ]
    env.result(document, humandiff.show_changes(changes) or ["No difference."])


def _sizes(env: Env) -> Any:
    """The size of an object, where this machine has it."""
    from brickless.core.errors import UserError
    from brickless.store.objects import ObjectStore

    try:
        pool = Repository.open(env.directory).objects
    except UserError:
        pool = ObjectStore(env.objects_dir)
    return lambda sha: pool.size_bytes(sha) if pool.has(sha) else None


def _part(part: Any) -> dict[str, JsonValue]:
    document = part._asdict()
    document["entries"] = sorted(part.entries)
    return dict(document)
