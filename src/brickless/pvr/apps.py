"""What the commands of `pvr app` share: credentials, platforms, arguments and volumes from flags (pvr.md 1.8, 4)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import JsonError, UserError
from brickless.oci import manifest_src
from brickless.oci.app import Build
from brickless.oci.auth import Credentials, DockerConfig
from brickless.oci.manifest import Platform
from brickless.oci.registry import Access
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.http import proxy_of
from brickless.pvr.pace import Pace
from brickless.pvr.progress import Meter
from brickless.store.repo import Repository

_PLATFORMS_FILE = "_hostconfig/pvr/docker.json"
RUNLEVELS = ("data", "root", "platform", "app")


@contextmanager
def building(
    env: Env, repo: Repository, *, username: str = "", password: str = "", platform: str = "", **more: Any
) -> Iterator[Build]:
    """What a build needs, from the flags, the committed state's platforms and the user's docker configuration."""
    config = os.environ.get("DOCKER_CONFIG") or os.path.join(os.environ.get("HOME", "/"), ".docker")
    environment = {name: os.environ[name] for name in ("HOME", "PATH", "XDG_RUNTIME_DIR") if name in os.environ}
    docker = DockerConfig.load(Path(config, "config.json"), environment)
    credentials = Credentials(username, password) if username else None
    wanted = [platform] if platform else _committed_platforms(repo)
    pace = Pace(env.limit_rate)
    with Meter(env, "Downloading layers") as meter:

        def downloaded(count: int) -> None:
            meter.add_bytes(count)
            pace.took(count)

        access = Access(
            heard=downloaded,
            timeout_s=env.timeout_s,
            proxy=proxy_of(env),
            system_proxy=env.http_proxy == "system",
            credentials=credentials,
            docker=docker,
            plain_http=bool(more.get("plain_http")),
            mirrors=_mirrors(more.get("mirrors") or ()),
        )
        yield Build(
            cache=Path(env.config_dir, "cache"),
            platforms=[Platform.parse(text) for text in wanted],
            access=access,
            stdin=sys.stdin.buffer,
            docker_host=os.environ.get("DOCKER_HOST", ""),
            epoch_s=_epoch(),
            say=meter.say,
            report=meter.warn,
            unpacked=meter.beside("Unpacking"),
            squashing=lambda total: meter.then("Squashing", total),
        )


def _epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UserError("epoch", f"SOURCE_DATE_EPOCH is {text!r}, which is no number of seconds since 1970.")
    return int(text)


def _mirrors(items: tuple[str, ...]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for name, equals, mirror in pairs:
        if not (name and equals and mirror):
            raise UserError("mirror", f"{name!r} is no mirror.", hint="Write REGISTRY=HOST[:PORT].")
    return {name: mirror for name, _, mirror in pairs}


def _committed_platforms(repo: Repository) -> list[str]:
    document = repo.pristine().get(_PLATFORMS_FILE)
    platforms = document.get("platforms") if isinstance(document, dict) else None
    return [text for text in platforms if isinstance(text, str)] if isinstance(platforms, list) else []


def arguments(pairs: tuple[str, ...], files: tuple[str, ...], named: dict[str, str]) -> dict[str, JsonValue]:
    """The template's arguments: --arg K[=V] (text), --arg-json FILE (any JSON), flags with a name of their own."""
    args: dict[str, JsonValue] = {}
    for path in files:
        args.update(json_file(path, "--arg-json"))
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise UserError("arg", f"--arg {pair!r} has no name.", hint="Write --arg NAME=VALUE.")
        args[key] = value
    if named.get("PV_GROUP") and named.get("PV_RUNLEVEL"):
        raise CommandError(
            5, "--group and --runlevel exclude each other.", hint="Runlevels are deprecated: use --group."
        )
    args.update({key: value for key, value in named.items() if value})
    return args


def pairs_of(items: tuple[str, ...], flag: str) -> dict[str, JsonValue]:
    """KEY=VALUE items; a value that is JSON counts as such (`--config 'Cmd=["/bin/sh"]'`), else as text."""
    found: dict[str, JsonValue] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise UserError("pair", f"{flag} {item!r} is not KEY=VALUE.")
        try:
            found[key] = canonical.loads(value)
        except JsonError:
            found[key] = value
    return found


def json_file(path: str, flag: str) -> dict[str, JsonValue]:
    """A JSON object from a file."""
    with open(path, "rb") as file:
        data = file.read(canonical.MAX_BYTES + 1)
    try:
        document = canonical.loads(data)
    except JsonError as error:
        raise UserError("json-file", f"{flag} {path} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise UserError("json-file", f"{flag} {path} must hold a JSON object.")
    return document


def volumes(items: tuple[str, ...]) -> dict[str, str]:
    """--volume PATH:PERSISTENCE[@DISK], and `ovl:PATH:PERSISTENCE` for an overlay on the image's folder."""
    found: dict[str, str] = {}
    for item in items:
        scheme = "ovl:" if item.startswith("ovl:") else ""
        path, colon, mode = item.removeprefix("ovl:").partition(":")
        if not path or not colon or mode.partition("@")[0] not in {"permanent", "revision", "boot"}:
            raise UserError(
                "volume",
                f"--volume {item!r} is not PATH:PERSISTENCE[@DISK].",
                hint="PERSISTENCE is permanent, revision or boot, as in --volume /var/lib/web:permanent.",
            )
        found[scheme + path] = mode
    return found


def check_sources(text: str) -> None:
    """--source: an ordered list of `remote` and `local`."""
    unknown = [item for item in text.split(",") if item not in {"remote", "local"}]
    if unknown:
        raise CommandError(3, f"--source {text!r} is not allowed.", hint="Use remote, local, or remote,local.")


def protect(env: Env, repo: Repository, name: str) -> None:
    """Hash the app's volumes anew if any is under dm-verity: what was built must boot (pvr.md 4.4). Under the lock."""
    enabled = manifest_src.read(Path(repo.dir, name.strip("/"))).get("dm_enabled")
    if not isinstance(enabled, dict) or not any(enabled.values()):
        return
    from brickless.pvr import verity

    done = verity.apply(repo.dir, list(repo.working().entries), name.strip("/"))
    repo.add([item.hash_file for item in done if item.changed])
    for item in done:
        env.say(f"- {'Updated' if item.changed else 'Unchanged verity format'} {item.manifest}")
