"""`get` and `merge`: the committed state becomes, or takes in, a state from elsewhere (pvr.md 3.3)."""

from __future__ import annotations

from typing import NamedTuple

from brickless.core import fragment as fragments
from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.pvr import demand
from brickless.pvr.env import Env
from brickless.pvr.reference import Reference, resolve
from brickless.pvr.source import open_source
from brickless.store.entries import objects_of
from brickless.store.repo import Repository


class Fetched(NamedTuple):
    """What a get did: objects that were brought, the new state, whether it differs from the old one."""

    objects: int
    entries: dict[str, JsonValue]
    changed: bool


def reference_or_default(env: Env, repo: Repository, text: str) -> Reference:
    """The reference of the command line, else where the last one led (not where puts go: pvr.md 8.2, 7)."""
    chosen = text or repo.config.text("DefaultGetUrl") or repo.config.text("DefaultPutUrl")
    if not chosen:
        raise UserError(
            "reference-needed",
            "This repository does not know where to get from.",
            hint="Name it: `pvr get user/device`.",
        )
    return resolve(chosen, repo_base=env.repo_base)


def fetch(env: Env, repo: Repository, reference: Reference, *, merge: bool) -> Fetched:
    """Bring a state in: objects first, then `.pvr/json`, then `.pvr/config`. Call under the repository's lock."""
    before = repo.pristine()
    with open_source(env, reference) as source:
        incoming = source.state()
        demand.check(env, incoming, reference.fragment, source=reference.text)
        combine = fragments.merge if merge else fragments.get
        entries = combine(before, incoming, reference.fragment)
        _warn_about_empty(env, reference, incoming)
        wanted = {sha: path for path, sha in sorted(objects_of(entries).items(), reverse=True)}
        from_there = objects_of(reference.fragment.select(incoming))
        # What the new state needs and the source has; local objects that stay are here already.
        count = source.fetch(
            {sha: path for sha, path in wanted.items() if sha in set(from_there.values())}, repo.objects
        )
    changed = repo.replace_state(entries, action="merge" if merge else "get", message=reference.text)
    _remember(repo, reference)
    return Fetched(count, entries, changed)


def preview(
    env: Env, repo: Repository, reference: Reference, *, merge: bool
) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """The state before and after `fetch`, which is not done: no object is fetched, and nothing is written."""
    before = repo.pristine()
    with open_source(env, reference) as source:
        incoming = source.state()
    demand.check(env, incoming, reference.fragment, source=reference.text)
    _warn_about_empty(env, reference, incoming)
    return before, (fragments.merge if merge else fragments.get)(before, incoming, reference.fragment)


def _warn_about_empty(env: Env, reference: Reference, incoming: dict[str, JsonValue]) -> None:
    for part in reference.fragment.include:
        if not any(path == part or path.startswith(f"{part}/") for path in incoming):
            env.warn(f"{reference.text}: the state there has nothing below {part!r}.")


def _remember(repo: Repository, reference: Reference) -> None:
    values = repo.config.values
    values["DefaultGetUrl"] = reference.text
    if reference.remote:
        for key in ("DefaultPutUrl", "DefaultPostUrl"):
            values[key] = values.get(key) or reference.trail or reference.text
    repo.save_config()
