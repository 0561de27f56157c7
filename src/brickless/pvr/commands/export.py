"""`pvr export`: write the committed state and its objects into an archive."""

from __future__ import annotations

import os
import sys

from brickless.core.fragment import Fragment
from brickless.pvr import bundle, cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.store import atomic
from brickless.store.entries import is_file


@cli.command("export", example="pvr export --parts web web.pvrexport.tgz")
@argument("file", metavar="FILE|-")
@option("--parts", "-p", default="", help="Only these parts, with commas between.")
def command(env: Env, file: str, parts: str) -> None:
    """Write the committed state and its objects into FILE: gzip when it ends in .gz or .tgz, `-` is standard output.

    The same state gives the same bytes.
    """
    repo = env.repository()
    chosen = Fragment.parse(parts)
    entries = {
        path: value
        for path, value in repo.pristine().items()
        if not is_file(path) or (chosen.selects(path) and not chosen.removes(path))
    }
    if file == "-":
        bundle.write(sys.stdout.buffer, entries, repo.objects, compress=False)
        return
    target = os.path.join(env.directory, file)
    temporary = atomic.temporary_path(os.path.abspath(target))
    try:
        with open(temporary, "xb") as stream:
            count = bundle.write(stream, entries, repo.objects, compress=bundle.is_gzip_name(file))
        atomic.publish(temporary, os.path.abspath(target))
    finally:
        atomic.discard(temporary)
    env.result({"file": os.path.abspath(target), "objects": count})
