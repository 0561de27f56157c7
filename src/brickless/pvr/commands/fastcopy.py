"""`pvr fastcopy`: copy a state, or parts of it, between two trails, without moving an object."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.post import make_envelope
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.reference import Reference, resolve

_SOURCE = {"reference-scheme": 7, "reference-missing": 7, "reference-no-device": 7, "reference-too-long": 7}


@cli.command("fastcopy", example="pvr fastcopy me/lab#nginx me/field#web", codes=_SOURCE)
@argument("source", metavar="SRC[#PARTS]", shell_complete=nicks.repositories)
@argument("destination", metavar="DST[#NAMES]", shell_complete=nicks.repositories)
@option("--envelope", "-e", default="{}", help="JSON object around the state: further members of the step.")
@option("--commit-msg", "--message", "-m", default="", help="What changed and why, for the trail.")
@option("--rev", default="-1", help="The revision's number (default: the next).")
@option("--force", "-f", is_flag=True, hidden=True, help="Accepted for scripts; there is nothing to force.")
@option("--merge", is_flag=True, help="Keep what the destination has below the names.")
def command(
    env: Env, source: str, destination: str, envelope: str, commit_msg: str, rev: str, force: bool, merge: bool
) -> None:
    """Post to DST what SRC has, all of it or the parts that `#a,b` names; DST's fragment gives them other names.

    The objects must be known to the hub already; none is transferred. What is inside a part (run.json) stays as it is.
    """
    from brickless.pvr import fastcopy, hub
    from brickless.pvr.http import Client

    del force
    origin, target = resolve(source, repo_base=env.repo_base), _target(env, destination)
    if not origin.remote:
        raise CommandError(7, f"{source} is local: fastcopy works between trails on a hub.", hint="Use `pvr post`.")
    document = make_envelope(envelope, commit_msg, rev)
    with Client(env) as client:
        for reference in (origin, target):
            client.name_host(reference.location)
        there = hub.discover(client, target.location)
        copied = fastcopy.copy(
            hub.state(client, there),
            hub.state(client, hub.discover(client, origin.location)),
            parts=origin.fragment,
            names=target.fragment,
            merge=merge,
        )
        document[there.state_key] = copied.entries
        step = hub.post_step(client, there, document)
    for warning in copied.warnings:
        env.warn(warning)
    env.say(f"Successfully posted Revision {step.rev} ({step.state_sha[:8]}) to device id {step.trail_id}")
    env.result({"rev": step.rev, "state-sha": step.state_sha, "trail-id": step.trail_id})


def _target(env: Env, text: str) -> Reference:
    from brickless.core.errors import UserError

    try:
        reference = resolve(text, repo_base=env.repo_base)
    except UserError as error:
        raise CommandError(8, error.message, context=error.context, hint=error.hint) from error
    if not reference.remote:
        raise CommandError(8, f"{text} is local: fastcopy works between trails on a hub.", hint="Use `pvr post`.")
    return reference
