"""User metadata: what the owner sets at the hub, mirrored into files and into the configuration.

The whole set is replaced: a key that is gone at the hub goes here, too, and a configuration key gets back the value
that it had. `<container>.<key>` is also shown to that container alone (contracts/device.md 7.6).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from brickless.device import config as configuration
from brickless.device.config import Config, ConfigError
from brickless.store import atomic


class UserMeta:
    """The mirror: `cache` survives a reboot, `run` is what containers see."""

    __slots__ = ("_cache", "_config", "_report", "_run", "_trail", "_values")

    def __init__(self, config: Config, cache: str, run: str, trail: str, report: Callable[[str], None]) -> None:
        self._config = config
        self._cache = cache
        self._run = run
        self._trail = trail
        self._report = report
        self._values: dict[str, str] = {}

    def restore(self) -> None:
        """Puts back what was known before the reboot: an offline device keeps what its owner has set."""
        values: dict[str, str] = {}
        for name in _names(self._cache):
            with open(os.path.join(self._cache, name), encoding="utf-8", errors="replace") as file:
                values[name] = file.read(65536)
        self._apply(values)

    def replace(self, values: Mapping[str, str]) -> bool:
        """Takes over what the hub says now; only files that differ are written. False when nothing is new."""
        wanted = {key.replace("/", "."): value for key, value in values.items()}
        if wanted == self._values:
            return False
        mirror(self._cache, wanted)
        self._apply(wanted)
        return True

    def _apply(self, values: dict[str, str]) -> None:
        mirror(os.path.join(self._run, "user-meta"), values)
        for container in containers_of(self._trail):
            prefix = f"{container}."
            own = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
            folder = os.path.join(self._run, f"user-meta.{container}")
            if own or os.path.isdir(folder):
                mirror(folder, own)
        self._configure(values)
        self._values = values

    def _configure(self, values: Mapping[str, str]) -> None:
        self._config.drop(configuration.META)
        for key, value in values.items():
            if not self._config.knows(key):
                continue
            try:
                self._config.put(configuration.META, key, value)
            except ConfigError as error:
                if self._values.get(key) != value:
                    self._report(f"user-meta: {error}")


def containers_of(trail: str) -> list[str]:
    """The containers of the revision whose folder this is."""
    return [name for name in _names(trail) if os.path.isfile(os.path.join(trail, name, "run.json"))]


def put_cached(config: Config) -> None:
    """Apply the user metadata that is kept on disk: what is set by it holds for every process of the runtime."""
    folder = config.text("PV_CACHE_USRMETADIR")
    config.drop(configuration.META)
    for name in _names(folder):
        if not config.knows(name):
            continue
        with open(os.path.join(folder, name), "rb") as file:
            config.put_all(configuration.META, [(name, file.read(65536).decode("utf-8", "replace"))])


def _names(folder: str) -> list[str]:
    try:
        return [name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def mirror(folder: str, values: Mapping[str, str]) -> None:
    """Makes the files of a folder be exactly these; a file that is right already is left alone."""
    os.makedirs(folder, exist_ok=True)
    for name in _names(folder):
        if name not in values:
            atomic.discard(os.path.join(folder, name))
    for name, value in values.items():
        path = os.path.join(folder, name)
        data = value.encode("utf-8", "replace")
        if not _holds(path, data):
            atomic.write_file(path, data)


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(data) + 1) == data
    except FileNotFoundError:
        return False
