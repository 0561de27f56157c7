"""Apps that come from another state: `app add --type pvr --from REPO#PART` (pvr.md 4.4)."""

from __future__ import annotations

import os
from pathlib import Path

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.oci import manifest_src
from brickless.oci.app import check_name, render_app
from brickless.pvr.env import Env
from brickless.pvr.reference import resolve
from brickless.pvr.source import open_source
from brickless.store import atomic
from brickless.store.checkout import write_entries
from brickless.store.entries import objects_of
from brickless.store.repo import Repository


def origin(repo: Repository, name: str) -> str:
    """Where an app of this kind came from; empty for every other kind."""
    src = manifest_src.read(Path(repo.dir, check_name(name)))
    value = src.get("pvr")
    return value if isinstance(value, str) else ""


def take(env: Env, repo: Repository, name: str, text: str, *, force: bool) -> None:
    """Write the part that a reference names as the app `name`; copies, never links into the pool. Call under the lock.

    Built beside the app and exchanged at the end. Raises UserError when the reference names no single part.
    """
    name = check_name(name)
    target = os.path.join(repo.dir, name)
    if os.path.lexists(target) and not force:
        raise UserError("app-exists", f"App '{name}' exists already.", hint="Use --force, or `pvr app update`.")
    reference = resolve(text, repo_base=env.repo_base)
    if not reference.fragment.include:
        raise UserError("app-part", f"{text!r} names no part.", hint="Write REPO#PART, as in me/device#web.")
    part = reference.fragment.include[0]
    with open_source(env, reference) as source:
        incoming = source.state()
        entries = {
            path.removeprefix(part + "/"): value for path, value in incoming.items() if path.startswith(part + "/")
        }
        if not entries:
            raise UserError(
                "app-part", f"The state of {text!r} has nothing below {part!r}.", hint="`pvr inspect` shows it."
            )
        source.fetch({sha: path for path, sha in objects_of(entries).items()}, repo.objects)
    work = atomic.temporary_path(target)
    try:
        os.mkdir(work)
        write_entries(repo.objects, work, entries)
        _note_origin(Path(work), entries, reference.text)
        if os.path.lexists(target):
            atomic.remove_tree(target)
        atomic.rename(work, target)
        if name != part and os.path.isfile(os.path.join(target, "run.json")):
            # The rendered files name the container and its volumes.
            render_app(Path(repo.dir), name)
    finally:
        if os.path.isdir(work):
            atomic.remove_tree(work)


def _note_origin(folder: Path, entries: dict[str, JsonValue], text: str) -> None:
    src = manifest_src.read(folder) if "src.json" in entries else {"#spec": manifest_src.SPEC}
    for key in ("docker_name", "docker_tag", "docker_digest", "docker_ovl_digest", "rootfs_url", "rootfs_digest"):
        src.pop(key, None)
    manifest_src.write(folder, {**src, "pvr": text})
