"""`pvr sig ls`: verify signatures and list what they cover."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env, four_blanks
from brickless.pvr.errors import CommandError
from brickless.store.repo import Repository

if TYPE_CHECKING:
    from brickless.pvr.signing import Coverage, Verdict

_FAILED, _MISSING = 13, 125


@cli.command("ls", example="pvr sig --cacerts ca.pem ls --tree", failure=127)
@argument("names", metavar="[NAME|PATH.json]...", nargs=-1)
@option("--part", "-p", default="", envvar="PVR_SIG_ADD_PART", help="Only the signature of this part.")
@option("--with-sigs", "-s", is_flag=True, envvar="PVR_SIG_LS_WITH_SIGS", help="List the signatures themselves too.")
@option("--tree", "as_tree", is_flag=True, help="For people: every file and who vouches for it.")
@option("--strict", is_flag=True, help="Fail too when an entry is in no signature's rule, as a strict device does.")
def command(env: Env, names: tuple[str, ...], part: str, with_sigs: bool, as_tree: bool, strict: bool) -> None:
    """Verify the signatures of the committed state, and list what they protect and what nobody does.

    Fails with exit code 13 when one signature does not verify, and says which and why.
    """
    from brickless.pvr import keyfiles, signing

    repo = env.repository()
    entries = signing.read_state(repo.pristine_bytes())
    documents = _documents(repo, signing.signatures_of(entries), (*names, *([part] if part else [])))
    verdicts: list[Verdict] = []
    if documents:
        believed = keyfiles.trust(env)
        now = datetime.datetime.now(datetime.UTC)
        verdicts = [signing.verify(entries, path, value, believed, at=now) for path, value in documents.items()]
    _check(verdicts)
    found = signing.cover(entries, verdicts)
    _warn(env, entries, documents)
    if strict and found.uncovered:
        raise CommandError(
            _FAILED,
            f"{len(found.uncovered)} entr(ies) are in no signature's rule: {', '.join(found.uncovered[:5])}",
            hint="Sign them with `pvr sig add`; `pvr sig ls --tree` shows all.",
        )
    if as_tree and not env.json:
        signers = {verdict.path: verdict.signer for verdict in verdicts}
        for line in _tree(sorted(entries), found, signers):
            env.out(line)
        return
    listed = _listing(found) if documents else {}
    if with_sigs and documents:
        listed["sigs"] = list(documents.values())
    env.result(listed, [four_blanks(listed)])


def _documents(repo: Repository, committed: dict[str, JsonValue], names: tuple[str, ...]) -> dict[str, JsonValue]:
    """The signatures that are asked for: the working tree's file, else the committed entry (pvr.md 5.3)."""
    from brickless.pvr import keyfiles

    paths = [name if name.endswith(".json") else f"_sigs/{name}.json" for name in names] or list(committed)
    found: dict[str, JsonValue] = {}
    for path in paths:
        full = os.path.join(repo.dir, path)
        if os.path.isfile(full):
            found[path] = keyfiles.read_signature(full)
        elif path in committed:
            found[path] = committed[path]
        else:
            raise CommandError(_MISSING, f"There is no signature {path}.", hint="See them with `pvr sig ls`.")
    return found


def _warn(env: Env, entries: dict[str, JsonValue], documents: dict[str, JsonValue]) -> None:
    """Say when what was verified is not what a post would send."""
    for path, document in documents.items():
        if entries.get(path) != document:
            env.warn(f"{path} in the working tree is not what is committed: commit it before you post.")


def _check(verdicts: list[Verdict]) -> None:
    bad = [verdict for verdict in verdicts if not verdict.valid]
    if bad:
        reasons = "\n".join(f"  {verdict.path}: {verdict.reason}" for verdict in bad)
        raise CommandError(
            _FAILED,
            f"{len(bad)} of {len(verdicts)} signature(s) do not verify:\n{reasons}\n",
            hint="Sign again what you changed with `pvr sig update`; otherwise do not use this state.",
        )


def _listing(found: Coverage) -> dict[str, JsonValue]:
    lists = {"protected": found.protected, "excluded": found.excluded, "notseen": found.notseen}
    return {name: list(paths) for name, paths in lists.items() if paths}


def _tree(paths: list[str], found: Coverage, signers: dict[str, str]) -> list[str]:
    lines: list[str] = []
    folder: list[str] = []
    for path in paths:
        *parents, name = path.split("/")
        shared = 0
        while shared < min(len(folder), len(parents)) and folder[shared] == parents[shared]:
            shared += 1
        lines += [f"{'  ' * depth}{parents[depth]}/" for depth in range(shared, len(parents))]
        folder = parents
        by = [f"{_short(sig)} ({signers[sig]})" for sig in found.by.get(path, ())]
        out = [_short(sig) for sig in found.excluded_by.get(path, ())]
        who = f"signed by {', '.join(by)}" if by else f"excluded by {', '.join(out)}" if out else "NOT SIGNED"
        lines.append(f"{'  ' * len(parents)}{name}  [{who}]")
    return lines


def _short(path: str) -> str:
    return path.removeprefix("_sigs/").removesuffix(".json")
