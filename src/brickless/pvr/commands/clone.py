"""`pvr clone`: a working copy of what lies elsewhere."""

from __future__ import annotations

import os

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.fetch import fetch
from brickless.pvr.progress import watched
from brickless.pvr.reference import resolve
from brickless.store import atomic
from brickless.store.entries import SPEC
from brickless.store.repo import Repository

_CODES = {
    "reference-scheme": 7,
    "reference-missing": 7,
    "reference-no-device": 7,
    "reference-too-long": 7,
    "fragment-empty-item": 7,
    "reference-no-repository": 7,
    "objects-missing": 7,
    "object-damaged": 8,
    "path-in-the-way": 8,
}


@cli.command("clone", example="pvr clone me/my-device", codes=_CODES, failure=7)
@argument("repo", metavar="REPO[#FRAGMENT]", required=False, default="", shell_complete=nicks.repositories)
@argument("directory", required=False, default="")
@option("--objects", "-o", envvar="PVR_OBJECTS_DIR", default="", help="The pool of objects (default: the shared one).")
@option("--canonical", "-c", is_flag=True, envvar="PVR_CANONICAL_JSON", help="Write JSON files canonically.")
@option("--spec", "-s", default=SPEC, help="The format, until the clone brings its own.")
def command(env: Env, repo: str, directory: str, objects: str, canonical: bool, spec: str) -> None:
    """Make a working copy of REPO in DIRECTORY, which must not exist or be empty."""
    if not repo:
        raise CommandError(2, "What is to be cloned?", hint="Name it: `pvr clone user/device`.")
    reference = resolve(repo, repo_base=env.repo_base)
    target = os.path.abspath(os.path.join(env.directory, directory or reference.name))
    _check_target(target)
    parent = os.path.dirname(target)
    atomic.make_dirs(parent)
    try:
        work = os.path.join(parent, f"pvr-clone-{os.urandom(6).hex()}")
        os.mkdir(work)
    except OSError as error:
        raise CommandError(4, f"No temporary folder can be made in {parent}: {error.strerror}") from error
    try:
        copy = Repository.init(work, spec=spec, objects_dir=os.path.abspath(objects or env.objects_dir))
        fetched = fetch(env, copy, reference, merge=False)
        with watched(env, copy, "Writing"):
            copy.checkout(canonical_json=canonical)
        _move(work, target)
    finally:
        if os.path.isdir(work):
            atomic.remove_tree(work)
    env.result(
        {"directory": target, "objects": fetched.objects, "from": reference.text}, [f"Successfully cloned: {target}"]
    )


def _check_target(target: str) -> None:
    """Before the download, not after it."""
    if os.path.lexists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise CommandError(9, f"{target} exists and is not an empty folder.", hint="Name another folder.")


def _move(work: str, target: str) -> None:
    try:
        atomic.rename(work, target)
    except OSError as error:
        raise CommandError(9, f"{work} cannot become {target}: {error.strerror}") from error
