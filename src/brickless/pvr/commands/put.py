"""`pvr put`: replace the whole state of a repository elsewhere."""

from __future__ import annotations

import os

from brickless.core import canonical
from brickless.core.errors import UserError
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.post import send_objects
from brickless.pvr.env import Env
from brickless.pvr.progress import Meter
from brickless.pvr.reference import Reference, resolve
from brickless.pvr.source import LocalSource
from brickless.store import atomic
from brickless.store.entries import objects_of
from brickless.store.objects import read_chunks
from brickless.store.repo import Repository


@cli.command("put", example="pvr put ../other/.pvr", codes={"reference-needed": 2}, failure=4)
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
@option("--force", "-f", is_flag=True, help="Upload objects again that are there.")
def command(env: Env, repo: str, force: bool) -> None:
    """Copy the objects and then the committed state to REPO: a folder with a repository, or a server that takes it."""
    here = env.repository()
    chosen = repo or here.config.text("DefaultPutUrl")
    if not chosen:
        raise UserError("reference-needed", "Where to? This repository has no place yet.", hint="pvr put FOLDER")
    reference = resolve(chosen, repo_base=env.repo_base)
    with here.lock():
        if reference.remote:
            _put_remote(env, here, reference, force)
        else:
            _put_local(env, here, reference.location)
    env.result({"to": reference.text})


def _put_remote(env: Env, here: Repository, reference: Reference, force: bool) -> None:
    from brickless.pvr import hub
    from brickless.pvr.http import Client

    entries = here.pristine()
    with Client(env) as client:
        client.name_host(reference.location)
        remote = hub.discover(client, reference.location)
        send_objects(env, client, remote, here, entries, force=force)
        hub.put_state(client, remote, entries)


def _put_local(env: Env, here: Repository, location: str) -> None:
    """The inverse of a local get: objects first, each checked, then the state in one step."""
    target = LocalSource(env, location)
    entries = here.pristine()
    with Meter(env, "Copying") as meter:
        for path, sha in sorted(objects_of(entries).items()):
            if not target.objects.has(sha):
                with here.objects.open(sha) as stream:
                    target.objects.add(read_chunks(stream, heard=meter.add_bytes), sha=sha)
                meter.say(f"{path[:15]} [OK]")
    if os.path.basename(target.meta) == ".pvr":
        other = Repository.open(os.path.dirname(target.meta))
        with other.lock():
            other.replace_state(entries, action="put", message=here.dir)
    else:
        with Repository.bare(target.meta).lock():
            atomic.write_file(os.path.join(target.meta, "json"), canonical.dumps(entries))
