"""`pvr export`: write the committed state and its objects into an archive."""

from __future__ import annotations

import os
import sys

from brickless.core.canonical import JsonValue
from brickless.core.fragment import Fragment
from brickless.pvr import bundle, cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.progress import Meter
from brickless.store import atomic
from brickless.store.entries import is_file, objects_of
from brickless.store.repo import Repository


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
        with _meter(env, repo, entries) as meter:
            bundle.write(sys.stdout.buffer, entries, repo.objects, compress=False, heard=meter.add_bytes)
        return
    target = os.path.join(env.directory, file)
    temporary = atomic.temporary_path(os.path.abspath(target))
    try:
        with open(temporary, "xb") as stream, _meter(env, repo, entries) as meter:
            compress = bundle.is_gzip_name(file)
            count = bundle.write(stream, entries, repo.objects, compress=compress, heard=meter.add_bytes)
        atomic.publish(temporary, os.path.abspath(target))
    finally:
        atomic.discard(temporary)
    env.result({"file": os.path.abspath(target), "objects": count})


def _meter(env: Env, repo: Repository, entries: dict[str, JsonValue]) -> Meter:
    there = [sha for sha in set(objects_of(entries).values()) if repo.objects.has(sha)]
    return Meter(env, "Exporting", total_bytes=sum(repo.objects.size_bytes(sha) for sha in there))
