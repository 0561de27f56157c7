"""`pvr tag`: names for states."""

from __future__ import annotations

import time

from brickless.core.errors import UserError
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.log import one_line, time_text
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("tag", example="pvr tag v1.2 -m 'as shipped' && pvr diff v1.2 HEAD")
@argument("name", metavar="[NAME]", default="")
@argument("revision", metavar="[REV]", default="HEAD")
@option("--message", "-m", default="", help="What the name is for.")
@option("--delete", "-d", is_flag=True, help="Remove the name; the state stays in the history as long as others do.")
@option("--force", "-f", is_flag=True, help="Let a name that exists mean another state.")
def command(env: Env, name: str, revision: str, message: str, delete: bool, force: bool) -> None:
    """Give the state REV (default: the committed one) a name, or list the names there are.

    A name stands wherever a state is asked for: `pvr show NAME`, `pvr diff NAME HEAD`, `pvr revert NAME`. Names stay in
    this repository. The objects of a state that has a name are kept by `pvr gc`.
    """
    from brickless.store import tags

    repo = env.repository()
    if not name:
        found = sorted(tags.load(repo.meta).items())
        env.result(
            {key: tag._asdict() for key, tag in found},
            [
                f"{key:<20} {tag.sha[:10]}  {time_text(tag.time_s)}  {one_line(tag.message)}".rstrip()
                for key, tag in found
            ],
        )
        return
    with repo.lock():
        known = tags.load(repo.meta)
        if delete:
            if known.pop(name, None) is None:
                raise UserError("tag-unknown", f"There is no tag {name!r}.", hint="`pvr tag` lists them.")
            tags.save(repo.meta, known)
            env.result({"deleted": name})
            return
        if name in known and not force:
            raise CommandError(3, f"The tag {name!r} exists.", hint="Give --force to let it mean another state.")
        sha = _keep(env, repo.meta, revision)
        known[tags.check_name(name)] = tags.Tag(int(time.time()), message, sha)
        tags.save(repo.meta, known)
    env.result({"tag": name, "sha": sha})


def _keep(env: Env, meta: str, revision: str) -> str:
    from brickless.core import canonical
    from brickless.pvr.revision import state_of
    from brickless.store import history

    return history.keep(meta, canonical.dumps(state_of(env, revision)))
