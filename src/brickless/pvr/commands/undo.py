"""`pvr undo`: take back the last change of the committed state."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env
from brickless.pvr.hub import state_sha
from brickless.pvr.revision import state_of


@cli.command("undo", example="pvr undo && pvr checkout")
@argument("revision", metavar="[REV]", default="HEAD~1")
def command(env: Env, revision: str) -> None:
    """Make an earlier state the committed one again (default: the one before the last change).

    The working tree stays; `pvr checkout` writes the files. Undo is a change like any other: undo again takes it back.
    """
    repo = env.repository()
    with repo.lock():
        entries = state_of(env, revision)
        changed = repo.replace_state(entries, action="undo", message=revision)
        repo.clear_marks()
    env.result(
        {"state-sha": state_sha(entries), "changed": changed},
        [f"The committed state is {state_sha(entries)[:10]} again. Run pvr checkout to write its files."],
    )
