"""`pvr dm-apply`: compute the dm-verity hashes of protected volumes anew."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("dm-apply", example="pvr app update web && pvr dm-apply web", failure=4)
@argument("prefix", metavar="[CONTAINER]", default="")
def command(env: Env, prefix: str) -> None:
    """Compute the hash trees of all protected volumes (or of one container's) again, with their own salt and UUID."""
    from brickless.pvr import verity

    repo = env.repository()
    with repo.lock():
        done = verity.apply(repo.dir, list(repo.working().entries), prefix)
        repo.add([item.hash_file for item in done if item.changed])
    env.result(
        {"volumes": [{"manifest": d.manifest, "hash_file": d.hash_file, "changed": d.changed} for d in done]},
        [f"- {'Updated' if item.changed else 'Unchanged verity format'} {item.manifest}" for item in done],
    )
