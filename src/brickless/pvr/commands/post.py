"""`pvr post`: hand the committed state to a device's trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.get import BAD_REFERENCE
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.progress import human_size, watched
from brickless.pvr.reference import Reference, resolve
from brickless.store.entries import objects_of
from brickless.store.repo import Repository

if TYPE_CHECKING:
    from brickless.pvr.http import Client
    from brickless.pvr.hub import Remote, Step

_CODES = BAD_REFERENCE | {"reference-no-device": 2}


@cli.command("post", example="pvr post -m 'web: nginx 1.27' me/my-device", codes=_CODES)
@argument("repo", metavar="[URL|USER/DEVICE]", default="", shell_complete=nicks.repositories)
@option("--envelope", "-e", default="{}", help="JSON object around the state: further members of the step.")
@option("--commit-msg", "--message", "-m", default="", help="What changed and why, for the trail.")
@option("--rev", default="-1", help="The revision's number (default: the next), or locals/NAME on a device.")
@option("--force", "-f", is_flag=True, help="Upload objects again that the hub has.")
@option("--wait", type=float, default=0.0, metavar="SECONDS", help="Wait so long until the device is done with it.")
@option("--dry-run", "-n", is_flag=True, help="Only show what would be sent, and what the post would change.")
def command(env: Env, /, repo: str, rev: str, **flags: Any) -> None:
    """Upload the objects that the hub lacks, and post the committed state as a new revision of the trail.

    What is not committed is not posted. With --wait, exit 0 means that the device runs the revision, and exit 3 that
    it refused it, came back to the old one, or was not done in time.
    """
    from brickless.pvr import hub
    from brickless.pvr.http import Client

    here = env.repository()
    with here.lock():
        reference = _target(env, here, repo)
        entries = here.pristine()
        _warn_if_dirty(env, here)
        document = make_envelope(flags["envelope"], flags["commit_msg"], rev)
        with Client(env) as client:
            client.name_host(reference.location)
            remote = hub.discover(client, reference.location)
            if flags["dry_run"]:
                _preview(env, hub.state(client, remote), entries, here)
                return
            send_objects(env, client, remote, here, entries, force=flags["force"])
            document[remote.state_key] = entries
            step = hub.post_step(client, remote, document)
        _check(env, step, hub.state_sha(entries))
        _remember(env, here, reference)
    env.say(f"Successfully posted Revision {step.rev} ({step.state_sha[:8]}) to device id {step.trail_id}")
    told: dict[str, JsonValue] = {"rev": step.rev, "state-sha": step.state_sha, "trail-id": step.trail_id}
    told["to"] = reference.text
    if flags["wait"] > 0:
        told |= _wait(env, remote, step, flags["wait"])
    env.result(told)


def _preview(env: Env, there: dict[str, JsonValue], entries: dict[str, JsonValue], repo: Repository) -> None:
    from brickless.pvr import dryrun, hub

    shas = set(objects_of(entries).values()) - set(objects_of(there).values())
    size = sum(repo.objects.size_bytes(sha) for sha in shas if repo.objects.has(sha))
    dryrun.tell(env, there, entries, objects=len(shas), bytes=size, **{"state-sha": hub.state_sha(entries)})
    env.say(f"Would offer {len(shas)} object(s), {human_size(size)}; `pvr plan` shows what it means for the device.")


def _wait(env: Env, remote: Remote, step: Step, timeout_s: float) -> dict[str, JsonValue]:
    from brickless.pvr import outcome
    from brickless.pvr.http import Client

    with Client(env) as client:
        client.name_host(remote.post_url)
        found = outcome.follow(client, remote.post_url, step, timeout_s=timeout_s)
    return {"status": found.status, "status-msg": found.message}


def send_objects(
    env: Env, client: Client, remote: Remote, repo: Repository, entries: dict[str, JsonValue], *, force: bool
) -> int:
    """Upload what the target's current state does not have; returns how many objects were sent."""
    from brickless.pvr import hub, transfer

    there: set[str] = set()
    if "json-get-url" in remote.document:
        there = set(objects_of(hub.state(client, remote)).values())
        env.say("Synching baseline state with device [OK]")
    wanted = {sha: path for path, sha in sorted(objects_of(entries).items(), reverse=True) if sha not in there or force}
    return transfer.upload(client, remote.objects_url, wanted, repo.objects, force=force)


def make_envelope(text: str, message: str, rev: str) -> dict[str, JsonValue]:
    """The step's document without its state (pvr.md 7.5)."""
    from brickless.core import canonical
    from brickless.core.errors import JsonError
    from brickless.core.paths import check_revision

    try:
        document = canonical.loads(text)
    except JsonError as error:
        raise UserError(
            "envelope-broken", f"--envelope is no JSON: {error}", hint="""Write '{"key": "value"}'."""
        ) from error
    if not isinstance(document, dict):
        raise UserError("envelope-broken", "--envelope must be a JSON object.", hint="""Write '{"key": "value"}'.""")
    if message:
        document["commit-msg"] = message
    number = rev.removeprefix("-")
    if number.isascii() and number.isdigit():
        if int(rev):
            document["rev"] = int(rev)
        return document
    if not rev.startswith("locals/"):
        raise UserError("rev-broken", f"--rev {rev!r} is neither a number nor locals/NAME.")
    check_revision(rev)
    document["rev"] = rev
    return document


def _target(env: Env, repo: Repository, text: str) -> Reference:
    chosen = text or repo.config.text("DefaultPostUrl")
    if not chosen:
        raise UserError(
            "reference-needed",
            "This repository does not know where to post to.",
            hint="Name it: `pvr post user/device`.",
        )
    reference = resolve(chosen, repo_base=env.repo_base)
    if reference.trail:
        hint = f"Post to {reference.trail}."
        raise CommandError(2, f"{chosen} is one revision: a post makes a new one of the trail.", hint=hint)
    if not reference.remote:
        raise CommandError(2, f"{chosen} is a local path: a post goes to a hub or a device.", hint="Try `pvr put`.")
    return reference


def _warn_if_dirty(env: Env, repo: Repository) -> None:
    with watched(env, repo, "Hashing"):
        clean = repo.status().clean
    if not clean:
        env.warn("the working tree has changes that are not committed; they are not posted.")


def _check(env: Env, step: Step, expected: str) -> None:
    if step.state_sha and step.state_sha != expected:
        env.warn(f"the hub calls this state {step.state_sha}, here it is {expected}: it changed on its way.")


def _remember(env: Env, repo: Repository, reference: Reference) -> None:
    url = reference.text.partition("#")[0]
    values = repo.config.values
    values["DefaultPostUrl"] = url
    for key in ("DefaultGetUrl", "DefaultPutUrl"):
        values[key] = values.get(key) or url
    try:
        repo.save_config()
    except OSError as error:
        env.warn(f"the post is done, but .pvr/config could not be written: {error.strerror}")
