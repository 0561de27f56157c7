"""`pvr sig update`: sign again what existing signatures cover."""

from __future__ import annotations

import os

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.store.repo import Repository
from brickless.store.selection import glob_match

_BAD_GLOB, _FAILED, _MISSING = 123, 126, 125


@cli.command("update", example="pvr sig update web && pvr add && pvr commit", failure=127)
@argument("names", metavar="[NAME|PATTERN.json]...", nargs=-1)
def command(env: Env, names: tuple[str, ...]) -> None:
    """Sign again, each signature with its own rule and the key of now (default: all in _sigs/)."""
    from brickless.core.signature import parse_signature
    from brickless.pvr import keyfiles, signing

    repo = env.repository()
    done: list[str] = []
    with repo.lock():
        entries = signing.read_state(repo.pristine_bytes())
        paths = _select(list(signing.signatures_of(entries)), names)
        who, chain = keyfiles.signer(env)
        for path in paths:
            rule = parse_signature(path, _in_tree(repo, path, entries[path])).rule
            try:
                document = signing.sign(entries, rule, who, chain=chain, with_payload=env.parent["with_payload"])
            except Exception:
                env.say(f"Updating pvs signature @ {path} [ERROR]")
                raise
            keyfiles.write_signature(env, repo, path, document)
            env.say(f"Updating pvs signature @ {path} [DONE]")
            done.append(path)
    if env.parent["output"] != "-":
        env.result({"updated": done})


def _select(known: list[str], names: tuple[str, ...]) -> list[str]:
    chosen: list[str] = []
    for name in names or ("_sigs/*.json",):
        pattern = name if name.endswith(".json") else f"_sigs/{name}.json"
        hits = [path for path in known if glob_match(pattern, path)]
        if not hits and names:
            raise CommandError(_BAD_GLOB, f"{name} matches no committed signature.", hint="See them with `pvr sig ls`.")
        chosen += [path for path in hits if path not in chosen]
    return chosen


def _in_tree(repo: Repository, path: str, committed: JsonValue) -> JsonValue:
    """The rule is that of the working tree's file, if there is one (pvr.md 5.2)."""
    full = os.path.join(repo.dir, path)
    if not os.path.isfile(full):
        return committed
    from brickless.pvr import keyfiles

    return keyfiles.read_signature(full)
