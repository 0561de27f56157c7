"""`pvr app add`: an image becomes a container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("add", example="pvr app add web --from nginx:1.27 --volume /var/lib/web:permanent")
@argument("name", required=False, default="")
@option("--from", "source", envvar="PVR_FROM", default="", help="The image, root file system or state#part.")
@option("--type", "-t", "kind", envvar="PVR_SOURCE_TYPE", default="docker", help="docker, rootfs or pvr.")
@option(
    "--source", "search", envvar="PVR_SOURCE", default="remote,local", help="Where images are looked for, in order."
)
@option("--platform", envvar="PVR_PLATFORM", default="", help="os/arch[/variant], as in linux/arm/v7.")
@option("--username", "-u", envvar="PVR_REGISTRY_USERNAME", default="", help="User for the registry.")
@option("--password", "-p", envvar="PVR_REGISTRY_PASSWORD", default="", help="Password for the registry.")
@option("--group", envvar="PVR_GROUP", default="", help="The container's group (default: the last of groups.json).")
@option("--runlevel", envvar="PVR_RUNLEVEL", default="", help="Deprecated: data, root, platform or app.")
@option("--restart-policy", envvar="PVR_RESTART_POLICY", default="", help="system or container.")
@option("--status-goal", envvar="PVR_STATUS_GOAL", default="", help="MOUNTED, STARTED or READY.")
@option("--config-json", envvar="PVR_CONFIG_JSON", default="", help="JSON file with the image's configuration.")
@option("--arg", "args", envvar="PVR_TEMPLATE_ARG", multiple=True, help="Template argument KEY[=VALUE].")
@option("--arg-json", "arg_files", multiple=True, help="JSON file with template arguments.")
@option("--config", "configs", multiple=True, help="KEY=VALUE over the image's configuration.")
@option("--volume", "volumes", envvar="PVR_PERSISTENCE_VOLUME", multiple=True, help="PATH:PERSISTENCE[@DISK].")
@option("--format-options", "-o", envvar="PVR_FORMAT_OPTIONS", default="", help="Options of mksquashfs.")
@option("--base", envvar="PVR_APP_ADD_BASE", default="", help="An app whose root lies below this one's.")
@option("--plain-http", is_flag=True, envvar="PVR_PLAIN_HTTP", help="The registry speaks HTTP without TLS.")
@option(
    "--mirror", "mirrors", envvar="PVR_REGISTRY_MIRRORS", multiple=True, help="REGISTRY=HOST that is asked instead."
)
@option("--force", is_flag=True, help="Replace an app that exists.")
def command(env: Env, /, name: str, **flags: Any) -> None:
    """Make an app of an image: NAME/ with src.json, run.json, lxc.container.conf and root.squashfs.

    --from is an image of a registry, oci:FOLDER, oci-archive:FILE, docker-archive:FILE or - (an archive on standard
    input); with --type rootfs a folder, tarball or URL; with --type pvr a repository with #PART.
    """
    if not name:
        raise CommandError(2, "The app needs a name.", hint="pvr app add NAME --from IMAGE")
    if not flags["source"]:
        raise CommandError(
            4, "--from is needed: where does the app come from?", hint="pvr app add web --from nginx:1.27"
        )
    repo = env.repository()
    with repo.lock():
        if flags["kind"] == "pvr":
            from brickless.pvr.apps_pvr import take

            take(env, repo, name, flags["source"], force=flags["force"])
        else:
            _build(env, name, flags)
    env.result({"app": name.strip("/"), "from": flags["source"]}, ["Application added"])


def _build(env: Env, name: str, flags: dict[str, Any]) -> None:
    from brickless.oci.app import AppSettings, add_app
    from brickless.pvr import apps

    repo = env.repository()
    apps.check_sources(flags["search"])
    named = {
        "PV_GROUP": flags["group"],
        "PV_RUNLEVEL": flags["runlevel"],
        "PV_RESTART_POLICY": flags["restart_policy"],
        "PV_STATUS_GOAL": flags["status_goal"],
    }
    settings = AppSettings(
        args=apps.arguments(flags["args"], flags["arg_files"], named),
        config=apps.pairs_of(flags["configs"], "--config"),
        docker_config=apps.json_file(flags["config_json"], "--config-json") if flags["config_json"] else {},
        persistence=apps.volumes(flags["volumes"]),
        format_options=flags["format_options"],
        docker_source=flags["search"],
        base=flags["base"],
    )
    with apps.building(env, repo, **{key: flags[key] for key in _BUILD_FLAGS}) as build:
        add_app(
            Path(repo.dir),
            name,
            flags["source"],
            build=build,
            kind=flags["kind"],
            settings=settings,
            force=flags["force"],
        )


_BUILD_FLAGS = ("username", "password", "platform", "plain_http", "mirrors")
