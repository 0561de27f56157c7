"""What names a state on the command line: `HEAD`, `HEAD~2`, a hash, a tag, `.`, or any repository."""

from __future__ import annotations

import os
import re

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.pvr.env import Env
from brickless.pvr.reference import resolve
from brickless.pvr.source import open_source
from brickless.store import discovery, history, tags
from brickless.store.repo import Repository, load_state

_HEAD = re.compile(r"(?:HEAD|@)(?:~([0-9]{1,4}))?")
_HASH = re.compile(r"[0-9a-f]{6,64}")


def state_of(env: Env, text: str) -> dict[str, JsonValue]:
    """The state that `text` names. Raises UserError."""
    if text == ".":
        return env.repository().working().entries
    head = _HEAD.fullmatch(text)
    if head is not None:
        back = int(head.group(1) or 0)
        repo = env.repository()
        return repo.pristine() if not back else load_state(_past(repo, back))
    if _HASH.fullmatch(text) and not os.path.exists(text):
        repo = env.repository()
        return load_state(_by_hash(repo, text))
    tag = _tagged(env, text)
    if tag:
        return load_state(tag)
    with open_source(env, resolve(text, repo_base=env.repo_base)) as source:
        return source.state()


def _past(repo: Repository, back: int) -> str:
    known = history.entries(repo.meta)
    if back >= len(known):
        raise UserError(
            "revision-unknown",
            f"The history has {len(known)} state(s), HEAD~{back} is before the first.",
            hint="See them with `pvr log`.",
        )
    return history.state_path(repo.meta, known[-1 - back].sha)


def _tagged(env: Env, text: str) -> str:
    """Where the state with this tag is kept; empty when there is none. A path needs `./` if a tag has its name."""
    if not os.path.isdir(os.path.join(discovery.find(env.directory), ".pvr")):
        return ""
    repo = env.repository()
    found = tags.load(repo.meta).get(text)
    return history.state_path(repo.meta, found.sha) if found else ""


def _by_hash(repo: Repository, prefix: str) -> str:
    hits = sorted(sha for sha in history.needed(repo.meta) if sha.startswith(prefix))
    if len(hits) != 1:
        problem = "names no state" if not hits else f"names {len(hits)} states"
        raise UserError("revision-unknown", f"{prefix} {problem} of the history.", hint="See them with `pvr log`.")
    return history.state_path(repo.meta, hits[0])
