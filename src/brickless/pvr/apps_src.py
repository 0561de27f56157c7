"""Changing an app's settings in its src.json, other keys untouched (pvr.md 1.8, 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickless.oci import manifest_src
from brickless.oci.app import check_name
from brickless.pvr import apps
from brickless.store.repo import Repository


def change(repo: Repository, name: str, flags: dict[str, Any]) -> None:
    """Apply --arg, --arg-json, --unset-arg, --config, --unset-config and --source; writes only what changes."""
    folder = Path(repo.dir, check_name(name))
    src = manifest_src.read(folder)
    args = dict(src.get("args") or {}) | apps.arguments(flags["args"], flags["arg_files"], {})
    config = dict(src.get("config") or {}) | apps.pairs_of(flags["configs"], "--config")
    for key in flags["unset_args"]:
        args.pop(key, None)
    for key in flags["unset_configs"]:
        config.pop(key, None)
    changed = {**src, "args": args, "config": config}
    if flags.get("search"):
        apps.check_sources(flags["search"])
        changed["docker_source"] = flags["search"]
    if manifest_src.ordered(changed) != manifest_src.ordered(src):
        manifest_src.write(folder, changed)
