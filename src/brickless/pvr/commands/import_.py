"""`pvr import`: take a state and its objects from an archive."""

from __future__ import annotations

import os
import sys

from brickless.core.fragment import Fragment
from brickless.pvr import bundle, cli, demand, dryrun
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.progress import Meter


@cli.command("import", example="pvr import web.pvrexport.tgz && pvr checkout")
@argument("file", metavar="FILE|-")
@option("--dry-run", "-n", is_flag=True, help="Only show what would become of the committed state.")
def command(env: Env, file: str, dry_run: bool) -> None:
    """Replace the committed state by that of an export, and put its objects into the pool.

    Every object is checked against its name. To take parts, use `pvr get FILE#part`; to merge, `pvr merge FILE`.
    """
    repo = env.repository()
    if dry_run:
        if file == "-":
            raise CommandError(2, "A dry run reads the archive from a file.", hint="pvr import --dry-run FILE")
        entries = bundle.read_state(os.path.join(env.directory, file))
        demand.check(env, entries, Fragment(), source=file)
        dryrun.tell(env, repo.pristine(), entries)
        return
    with repo.lock(), Meter(env, "Importing") as meter:
        if file == "-":
            entries, count = bundle.read_all(sys.stdin.buffer, "standard input", repo.objects, meter.add_bytes)
        else:
            with open(os.path.join(env.directory, file), "rb") as stream:
                entries, count = bundle.read_all(stream, file, repo.objects, meter.add_bytes)
        demand.check(env, entries, Fragment(), source=file)
        changed = repo.replace_state(entries, action="import", message=file)
    env.result(
        {"objects": count, "changed": changed, "from": file},
        ["", f"Imported {file}", "", "Run pvr checkout, then pvr add and pvr commit if you change files."],
    )
