"""`pvr app install`: render an app's files anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env


@cli.command("install", example="pvr app install web")
@argument("name", shell_complete=nicks.apps)
@option("--username", "-u", envvar="PVR_REGISTRY_USERNAME", default="", help="User for the registry.")
@option("--password", "-p", envvar="PVR_REGISTRY_PASSWORD", default="", help="Password for the registry.")
@option("--platform", envvar="PVR_PLATFORM", default="", help="os/arch[/variant].")
@option("--source", "search", envvar="PVR_SOURCE", default="", help="Where images are looked for: remote, local.")
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
    """Write run.json and lxc.container.conf anew from src.json; build root.squashfs unless it is the right one."""
    from brickless.oci.app import install_app
    from brickless.pvr import apps
    from brickless.pvr.apps_src import change

    repo = env.repository()
    with repo.lock():
        change(repo, name, flags)
        wanted = {key: flags[key] for key in ("username", "password", "platform", "plain_http", "mirrors")}
        with apps.building(env, repo, **wanted) as build:
            install_app(Path(repo.dir), name, build=build)
        apps.protect(env, repo, name)
    env.result({"app": name.strip("/")}, ["Application installed"])
