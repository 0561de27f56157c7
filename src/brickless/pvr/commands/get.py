"""`pvr get`: replace the committed state, or parts of it."""

from __future__ import annotations

from brickless.pvr import cli, dryrun, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.fetch import fetch, preview, reference_or_default

BAD_REFERENCE = {
    "reference-scheme": 1,
    "reference-missing": 1,
    "reference-no-device": 1,
    "reference-too-long": 1,
    "fragment-empty-item": 1,
}


@cli.command("get", example="pvr get me/other-device#web,_config/web", codes=BAD_REFERENCE)
@argument("repo", metavar="[REPO[#FRAGMENT]]", default="", shell_complete=nicks.repositories)
@option("--dry-run", "-n", is_flag=True, help="Only show what would become of the committed state.")
def command(env: Env, repo: str, dry_run: bool) -> None:
    """Replace the committed state by that of REPO; with a fragment, only the parts that it names.

    REPO is a URL, user/device, a device's IP address, a folder or an export. `#a,b` takes parts, `#-c` removes one.
    The working tree stays as it is: `pvr checkout` writes the files.
    """
    run(env, repo, merge=False, dry_run=dry_run)


def run(env: Env, text: str, *, merge: bool, dry_run: bool) -> None:
    """What get and merge share."""
    repo = env.repository()
    with repo.lock():
        reference = reference_or_default(env, repo, text)
        if dry_run:
            before, after = preview(env, repo, reference, merge=merge)
            dryrun.tell(env, before, after)
            return
        fetched = fetch(env, repo, reference, merge=merge)
    env.result(
        {"objects": fetched.objects, "changed": fetched.changed, "from": reference.text},
        [
            "",
            f"Imported {fetched.objects} objects to {repo.objects.root}",
            "",
            "",
            "Run pvr checkout to checkout the changed files into the workspace.",
        ],
    )
