"""`pvr plan`: what a post would cost the device."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("plan", example="pvr plan me/my-device")
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
def command(env: Env, repo: str) -> None:
    """Show what posting the committed state to REPO would mean: bytes to fetch, a reboot or not, what restarts."""
    from brickless.core.errors import UserError
    from brickless.pvr import plan
    from brickless.pvr.humandiff import human_size
    from brickless.pvr.reference import resolve
    from brickless.pvr.source import open_source

    here = env.repository()
    chosen = repo or here.config.text("DefaultPostUrl")
    if not chosen:
        raise UserError("reference-needed", "Where to? This repository was never posted.", hint="pvr plan user/device")
    with open_source(env, resolve(chosen, repo_base=env.repo_base)) as source:
        running = source.state()
    pool = here.objects
    found = plan.plan(running, here.pristine(), size_of=lambda sha: pool.size_bytes(sha) if pool.has(sha) else None)
    document: dict[str, JsonValue] = {
        "download-bytes": found.download_bytes,
        "download-objects": len(found.needed),
        "kept-objects": found.kept_objects,
        "reboot": found.reboot,
        "reasons": list(found.reasons),
        "refused": found.refused,
        "stop": list(found.stop),
        "start": list(found.start),
        "keep": list(found.keep),
    }
    lines = [f"REFUSED   the device would not take this state: {found.refused}"] if found.refused else []
    lines.append(f"download  {len(found.needed)} object(s), {human_size(found.download_bytes)}")
    lines += [f"          {item.path}  {human_size(item.size_bytes)}" for item in found.needed]
    reboot = {True: "yes", False: "no", None: "unknown"}[found.reboot]
    lines.append(f"reboot    {reboot}" + (f": {'; '.join(found.reasons)}" if found.reasons else ""))
    for label, names in (("stop", found.stop), ("start", found.start), ("keep", found.keep)):
        lines.append(f"{label:<9} {', '.join(names) or '-'}")
    env.result(document, lines)
