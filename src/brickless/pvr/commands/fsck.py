"""`pvr fsck`: check every object of the committed state."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.pool import Fault
from brickless.pvr.progress import Meter
from brickless.store.repo import Repository


@cli.command("fsck", example="pvr fsck --repair")
@option("--repair", is_flag=True, help="Mend from the working tree, or fetch again from where the state came.")
@option("--from", "source", default="", help="Fetch from this repository instead.")
@option("--pool", "whole_pool", is_flag=True, help="Check all objects of the pool, also those of other repositories.")
def command(env: Env, repair: bool, source: str, whole_pool: bool) -> None:
    """Read every object of the committed state and name each that is missing or damaged. Exit code 3 when one stays."""
    from brickless.pvr import pool

    repo = env.repository()
    with repo.lock():
        faults = _check(env, repo)
        if whole_pool:
            known = {fault.sha for fault in faults}
            with Meter(env, "Checking the pool") as meter:
                whole = pool.check_pool(repo.objects, heard=meter.add_bytes)
            faults += [fault for fault in whole if fault.sha not in known]
        left = _repair(env, repo, faults, source) if faults and (repair or source) else faults
    mended = [fault for fault in faults if fault not in left]
    if not faults:
        env.say("Every object is there and whole.")
    env.result(
        {"faults": _rows(left), "repaired": _rows(mended), "clean": not left},
        [
            *(f"repaired {fault.sha}  {fault.path}".rstrip() for fault in mended),
            *(f"{fault.kind:<8} {fault.sha}  {fault.path}".rstrip() for fault in left),
        ],
    )
    if left:
        raise CommandError(
            3,
            f"{len(left)} object(s) are missing or damaged in {repo.objects.root}.",
            hint="Fetch them again with `pvr fsck --repair`, or from elsewhere with --from.",
        )


def _check(env: Env, repo: Repository) -> list[Fault]:
    from brickless.pvr import pool
    from brickless.store.entries import objects_of

    entries = repo.pristine()
    shas = set(objects_of(entries).values())
    total = sum(repo.objects.size_bytes(sha) for sha in shas if repo.objects.has(sha))
    with Meter(env, "Checking", len(shas), total) as meter:

        def report(path: str, _sha: str) -> None:
            env.trace(f"checked {path}")
            meter.add_object()

        return pool.check(entries, repo.objects, report=report, heard=meter.add_bytes)


def _rows(faults: list[Fault]) -> list[JsonValue]:
    return [{"sha": fault.sha, "path": fault.path, "fault": fault.kind} for fault in faults]


def _repair(env: Env, repo: Repository, faults: list[Fault], text: str) -> list[Fault]:
    from brickless.core.errors import BricklessError
    from brickless.pvr import pool
    from brickless.pvr.reference import resolve
    from brickless.pvr.source import open_source
    from brickless.store.entries import objects_of

    # One without a path is needed by another repository: it is taken out, and that one's fsck fetches it.
    pool.forget_damaged(repo.objects, [fault for fault in faults if not fault.path])
    left = pool.mend_from_tree(repo, [fault for fault in faults if fault.path])
    origin = text or repo.config.text("DefaultGetUrl") or repo.config.text("DefaultPutUrl")
    if not left or not origin:
        return left
    there: set[str] = set()
    try:
        with open_source(env, resolve(origin, repo_base=env.repo_base)) as source:
            there = set(objects_of(source.state()).values())
            wanted = [fault for fault in left if fault.sha in there]
            # Out of the way first: a damaged object has the name that the good one needs.
            pool.forget_damaged(repo.objects, wanted)
            source.fetch({fault.sha: fault.path for fault in wanted}, repo.objects)
    except (BricklessError, OSError) as error:
        env.warn(f"fetching from {origin} failed: {error}")
    return [fault for fault in left if fault.sha not in there or not repo.objects.verify(fault.sha)]
