"""`pvr global-config`: show or change the global settings (pvr.md 7.10)."""

from __future__ import annotations

import os

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks
from brickless.pvr.errors import CommandError
from brickless.store import atomic
from brickless.store.repo import RepositoryError

DEFAULTS: dict[str, JsonValue] = {"Spec": "1", "AutoUpgrade": True, "DistributionTag": "develop"}
_BOOLEANS = {"true": True, "false": False}


@cli.command("global-config", example="pvr global-config AutoUpgrade=false")
@argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
def command(env: Env, settings: tuple[str, ...]) -> None:
    """Show the settings that all clients of this user share, after changing those that are given.

    Keys: Spec, AutoUpgrade (this pvr never upgrades itself), DistributionTag.
    """
    path = os.path.join(env.config_dir, "config.json")
    values = DEFAULTS | _load(path)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in DEFAULTS or not equals:
            raise CommandError(3, f"{setting!r} is no setting.", hint=f"Keys: {', '.join(DEFAULTS)}.")
        boolean = isinstance(DEFAULTS[key], bool)
        if boolean and value not in _BOOLEANS:
            raise CommandError(3, f"{key} is true or false, not {value!r}.")
        values[key] = _BOOLEANS[value] if boolean else value
    if settings:
        atomic.make_dirs(env.config_dir, mode=0o700)
        text = ",".join(
            f"{canonical.dumps(key).decode()}:{canonical.dumps(value).decode()}" for key, value in values.items()
        )
        atomic.write_file(path, f"{{{text}}}".encode())
    shown = {key: values[key] for key in DEFAULTS}
    env.result(shown, [four_blanks(shown)])


def _load(path: str) -> dict[str, JsonValue]:
    try:
        with open(path, "rb") as file:
            document = canonical.loads(file.read(canonical.MAX_BYTES))
    except FileNotFoundError:
        return {}
    except HostileInputError as error:
        raise RepositoryError(f"{path} is damaged: {error}", hint="Remove it; it is made anew.") from error
    if not isinstance(document, dict):
        raise RepositoryError(f"{path} is damaged: it is no JSON object.", hint="Remove it; it is made anew.")
    return document
