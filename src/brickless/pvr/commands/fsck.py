"""`pvr fsck`: check every object of the committed state."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.store.entries import objects_of
from brickless.store.repo import Repository


@cli.command("fsck", example="pvr fsck --repair")
@option("--repair", is_flag=True, help="Fetch what is missing or damaged again, from where the state came.")
@option("--from", "source", default="", help="Fetch from this repository instead.")
def command(env: Env, repair: bool, source: str) -> None:
    """Read every object of the committed state and name each that is missing or damaged. Exit code 3 when one stays."""
    repo = env.repository()
    with repo.lock():
        faults = _check(repo)
        if faults and (repair or source):
            _repair(env, repo, faults, source)
            faults = _check(repo)
    rows: list[JsonValue] = [{"sha": sha, "path": path, "fault": fault} for sha, (path, fault) in faults.items()]
    env.result(
        {"faults": rows, "clean": not faults},
        [f"{fault:<8} {sha}  {path}" for sha, (path, fault) in faults.items()],
    )
    if faults:
        raise CommandError(
            3, f"{len(faults)} object(s) are missing or damaged.", hint="Fetch them again with `pvr fsck --repair`."
        )


def _check(repo: Repository) -> dict[str, tuple[str, str]]:
    wanted = {sha: path for path, sha in sorted(objects_of(repo.pristine()).items(), reverse=True)}
    faults: dict[str, tuple[str, str]] = {}
    for sha, path in sorted(wanted.items(), key=lambda item: item[1]):
        if not repo.objects.has(sha):
            faults[sha] = (path, "missing")
        elif not repo.objects.verify(sha):
            faults[sha] = (path, "damaged")
    return faults


def _repair(env: Env, repo: Repository, faults: dict[str, tuple[str, str]], text: str) -> None:
    from brickless.pvr.fetch import reference_or_default
    from brickless.pvr.source import open_source

    reference = reference_or_default(env, repo, text or repo.config.text("DefaultGetUrl"))
    with open_source(env, reference) as source:
        there = set(objects_of(source.state()).values())
        wanted = {sha: path for sha, (path, _) in faults.items() if sha in there}
        for sha in wanted:
            # Out of the way first: a damaged object has the name that the good one needs.
            repo.objects.remove(sha)
        source.fetch(wanted, repo.objects)
