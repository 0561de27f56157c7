"""`pvr revert`: make an earlier state the committed one again."""

from __future__ import annotations

from brickless.core.fragment import Fragment, get
from brickless.pvr import cli, dryrun
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("revert", example="pvr revert HEAD~2 web && pvr checkout && pvr post -m 'web: back'")
@argument("revision", metavar="REV", default="")
@argument("parts", metavar="[PART]...", nargs=-1)
@option("--checkout", is_flag=True, help="Write the files of that state, too (local changes are overwritten).")
@option("--dry-run", "-n", is_flag=True, help="Only show what would become of the committed state.")
def command(env: Env, revision: str, parts: tuple[str, ...], checkout: bool, dry_run: bool) -> None:
    """Make the state REV, or only some parts of it, the committed one: a new change, which `undo` takes back.

    REV is HEAD~N, the hash of a state in `pvr log`, or any repository. Objects must be in the pool.
    """
    from brickless.pvr.revision import state_of
    from brickless.store.entries import objects_of

    if not revision:
        raise CommandError(2, "Which state?", hint="`pvr log` shows them; HEAD~1 is the one before this.")
    repo = env.repository()
    with repo.lock():
        before = repo.pristine()
        entries = get(before, state_of(env, revision), Fragment(parts))
        if dry_run:
            dryrun.tell(env, before, entries)
            return
        lost = [path for path, sha in sorted(objects_of(entries).items()) if not repo.objects.has(sha)]
        if lost:
            raise CommandError(
                3,
                f"{len(lost)} object(s) of that state are not in the pool, the first is that of {lost[0]}.",
                hint="Bring them with `pvr get` from where the state came from.",
            )
        changed = repo.replace_state(entries, action="revert", message=" ".join((revision, *parts)))
        if checkout:
            repo.checkout()
    env.result(
        {"changed": changed, "revision": revision, "parts": list(parts), "checkout": checkout},
        ["" if changed else "Nothing differs; the committed state is as it was."] if not changed else [],
    )
