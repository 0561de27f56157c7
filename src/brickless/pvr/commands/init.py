"""`pvr init`: make a repository."""

from __future__ import annotations

import os

from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.store.entries import SPEC
from brickless.store.repo import Repository


@cli.command("init", example="pvr init --objects ../../objects")
@option("--objects", "-o", envvar="PVR_OBJECTS_DIR", default="", help="The pool of objects (default: the shared one).")
@option("--spec", "-s", default=SPEC, show_default=True, help="The format of the states.")
def command(env: Env, objects: str, spec: str) -> None:
    """Make a repository in this folder: an empty state, and a working tree around it."""
    repo = Repository.init(env.directory, spec=spec, objects_dir=objects or env.objects_dir)
    env.result({"directory": os.path.abspath(repo.dir), "spec": spec, "objects": repo.objects.root})
