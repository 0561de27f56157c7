"""`pvr app update`: the newest image that an app tracks, or another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env


@cli.command("update", example="pvr app update web --from nginx:1.28")
@argument("name", shell_complete=nicks.apps)
@option("--from", "source", envvar="PVR_APP_FROM", default="", help="Another image than the one that is tracked.")
@option("--platform", envvar="PVR_PLATFORM", default="", help="os/arch[/variant].")
@option("--username", "-u", envvar="PVR_REGISTRY_USERNAME", default="", help="User for the registry.")
@option("--password", "-p", envvar="PVR_REGISTRY_PASSWORD", default="", help="Password for the registry.")
@option("--source", "search", envvar="PVR_SOURCE", default="", help="Where images are looked for: remote, local.")
@option("--base", envvar="PVR_APP_ADD_BASE", default="", help="An app whose root lies below this one's.")
@option("--patch", is_flag=True, envvar="PVR_APP_UPDATE_PATCH", help="Keep the root, put the changes over it.")
@option("--newbase", is_flag=True, envvar="PVR_APP_UPDATE_PATCH_CLEAN", help="Build the root whole, drop overlays.")
@option("--plain-http", is_flag=True, envvar="PVR_PLAIN_HTTP", help="The registry speaks HTTP without TLS.")
@option(
    "--mirror", "mirrors", envvar="PVR_REGISTRY_MIRRORS", multiple=True, help="REGISTRY=HOST that is asked instead."
)
@option("--arg", "args", multiple=True, help="Set a template argument KEY[=VALUE].")
@option("--arg-json", "arg_files", multiple=True, help="JSON file with template arguments.")
@option("--unset-arg", "unset_args", multiple=True, help="Remove a template argument.")
@option("--config", "configs", multiple=True, help="Set KEY=VALUE over the image's configuration.")
@option("--unset-config", "unset_configs", multiple=True, help="Remove such a KEY.")
def command(env: Env, /, name: str, **flags: Any) -> None:
    """Resolve the app's image again and build what is new. Settings, and keys of src.json that others wrote, stay."""
    from brickless.oci.app import Patch, install_above, update_app
    from brickless.pvr import apps
    from brickless.pvr.apps_pvr import origin, take
    from brickless.pvr.apps_src import change

    repo = env.repository()
    with repo.lock():
        came_from = origin(repo, name)
        if came_from:
            take(env, repo, name, flags["source"] or came_from, force=True)
        else:
            change(repo, name, flags)
            wanted = {key: flags[key] for key in ("username", "password", "platform", "plain_http", "mirrors")}
            patch = Patch.WHOLE if flags["newbase"] else Patch.OVERLAY if flags["patch"] else Patch.KEEP
            source, base = flags["source"] or None, flags["base"]
            with apps.building(env, repo, **wanted) as build:
                update_app(Path(repo.dir), name, build=build, source=source, patch=patch, base=base)
                install_above(Path(repo.dir), name, build=build)
        apps.protect(env, repo, name)
    env.result({"app": name.strip("/")}, ["Application updated"])
