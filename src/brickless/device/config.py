"""Configuration of the runtime: layered, typed, each value with its origin; what is wrong is reported, never swallowed.

Levels, later wins (contracts/device.md 8.1): default, args, pantavisor.config, pantahub.config, policy, OEM file,
kernel command line, environment, user-meta, command. Each level is kept, so that taking one away restores what was
below it. The keys themselves are in `brickless.device.config_keys`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from brickless.device.config_keys import FLAG, INTEGER, KEYS, PATH, SECONDS, SIZE, WORDS, Key

DEFAULT, ARGS, PV_CONF, PH_CONF, PH_CLIENT = "default", "args", "pv conf file", "ph conf file", "ph client"
POLICY, OEM, PV_CMDLINE, PH_CMDLINE, ENV = "policy", "oem config", "pv cmdline", "ph cmdline", "env"
META, COMMAND = "metadata", "command"
#: Every level in order; the words are those of `GET /config2` (contracts/device.md 6.2).
LEVELS = (DEFAULT, ARGS, PV_CONF, PH_CONF, PH_CLIENT, POLICY, OEM, PV_CMDLINE, PH_CMDLINE, ENV, META, COMMAND)
_GROUPS: dict[str, frozenset[str]] = {
    ARGS: frozenset({"PV", "PH"}),
    PV_CONF: frozenset({"PV"}),
    PH_CONF: frozenset({"PH"}),
    PH_CLIENT: frozenset({"PH"}),
    POLICY: frozenset({"PV", "PH"}),
    OEM: frozenset({"O"}),
    PV_CMDLINE: frozenset({"PV"}),
    PH_CMDLINE: frozenset({"PH"}),
    ENV: frozenset({"PV", "PH"}),
    META: frozenset({"R"}),
    COMMAND: frozenset({"R"}),
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_UNITS_S = {"s": 1, "min": 60, "h": 3600}
_UNITS_BYTES = {"k": 1024, "m": 1024**2, "g": 1024**3}
# A part of a kernel setting's name begins with a letter or digit: neither `..` nor an absolute path can come of it.
_SYSCTL_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*")
MAX_FILE_BYTES = 64 * 1024
MAX_VALUE_CHARS = 4096
_MAX_NUMBER = 2**53
_MAX_PROBLEMS = 200
_MODE = "PV_SECUREBOOT_MODE"
_SECURITY = frozenset(name for name in KEYS if name.startswith("PV_SECUREBOOT_")) | {
    "PV_OEM_NAME",
    "PV_SYSTEM_ETCPANTAVISORDIR",
}

Value = str | int | bool | tuple[str, ...]


class ConfigError(ValueError):
    """A key or value that the table does not allow; the message names the key and what would be right."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}. {hint}" if hint else message)


class Setting(NamedTuple):
    """A value as it holds now, and the level that it comes from."""

    value: Value
    origin: str


def _unit(text: str, units: Mapping[str, int]) -> int:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    suffix = text[len(number) :]
    number = number.strip()
    if not number.isascii() or not number.isdigit() or (suffix and suffix not in units) or len(number) > 16:
        raise ValueError
    return int(number) * units.get(suffix, 1)


def _number(key: Key, text: str) -> int:
    units = {SECONDS: _UNITS_S, SIZE: _UNITS_BYTES}.get(key.kind, {})
    value = _unit(text.lower(), units)
    if not key.least <= value <= _MAX_NUMBER:
        raise ValueError
    return value


def _expected(key: Key) -> str:
    least = f", at least {key.least}" if key.least else ""
    return {
        FLAG: "1 or 0 (also true, false, yes, no, on, off)",
        INTEGER: f"a whole number{least}",
        SECONDS: f"seconds{least}, or a number with s, min or h",
        SIZE: f"bytes{least}, or a number with k, m or g",
        PATH: "an absolute path",
    }.get(
        key.kind, f"one of {', '.join(key.choices)}" if key.choices else f"at most {MAX_VALUE_CHARS} characters of text"
    )


def _typed(key: Key, text: str) -> Value:
    lower = text.lower()
    if key.kind == FLAG:
        if lower not in _TRUE | _FALSE:
            raise ValueError
        return lower in _TRUE
    if key.kind in {INTEGER, SECONDS, SIZE}:
        return _number(key, text)
    if key.kind == WORDS:
        return tuple(filter(None, (word.strip() for word in text.split(","))))
    if key.kind == PATH and (not text.startswith("/") or ".." in text.split("/")):
        raise ValueError
    if key.choices and text not in key.choices:
        raise ValueError
    return text


def parse(name: str, text: str) -> Value:
    """The typed value of one key. Raises ConfigError on an unknown key or a value that its type does not allow."""
    key = KEYS.get(name)
    if key is None:
        raise ConfigError(f"{name} is not a configuration key", hint="docs/reference/configuration.md lists them all.")
    if len(text) > MAX_VALUE_CHARS or not text.isprintable():
        raise ConfigError(f"The value of {name} has more than {MAX_VALUE_CHARS} characters, or unprintable ones")
    try:
        return _typed(key, text)
    except ValueError:
        shown = "(hidden)" if key.secret else repr(text[:80])
        raise ConfigError(f"{name}={shown} is not allowed", hint=f"Give {_expected(key)}.") from None


def lines(text: str) -> Iterator[tuple[str, str]]:
    """`KEY=value` pairs of a configuration file; empty lines and lines that begin with # are left out."""
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _alias_table() -> dict[str, str]:
    return {alias: key.name for key in KEYS.values() for alias in key.aliases}


class Config:
    """What every key is set to, from which level, and what was wrong on the way (`problems`)."""

    __slots__ = ("_aliases", "_defaults", "_levels", "problems", "sysctls")

    def __init__(self) -> None:
        self._defaults: dict[str, Value] = {
            key.name: _typed(key, key.default) if key.default else "" for key in KEYS.values()
        }
        self._levels: dict[str, dict[str, Value]] = {}
        self._aliases = _alias_table()
        #: Sentences about values that were refused and aliases that were used, in the order in which they were met.
        self.problems: list[str] = []
        #: Kernel settings: name (`a_b_c` or `a.b.c`) -> value; `sysctl_path` finds their files.
        self.sysctls: dict[str, str] = {}

    # Setting --------------------------------------------------------------------------------------------------------
    def put(self, level: str, name: str, text: str) -> None:
        """Sets one key on one level. Raises ConfigError when the key, the level or the value is not allowed."""
        if self._put_sysctl(level, name, text):
            return
        canonical = self._canonical(level, name)
        if not KEYS[canonical].levels & _GROUPS[level]:
            raise ConfigError(
                f"{canonical} may not be set there", hint="docs/reference/configuration.md lists the levels."
            )
        self._levels.setdefault(level, {})[canonical] = parse(canonical, text)

    def put_all(self, level: str, pairs: Iterable[tuple[str, str]]) -> None:
        """Sets many keys on one level; what is not allowed goes to `problems` and leaves the lower level's value."""
        for name, text in pairs:
            try:
                self.put(level, name, text)
            except ConfigError as error:
                self._report(f"{level}: {error}")

    def put_command_line(self, text: str) -> None:
        """Takes the keys out of a kernel command line: `PV_X=v`, `PH_X=v`, the old `pv_a.b=v`. Others are not ours."""
        for word in text.split():
            name, equals, value = word.partition("=")
            kind = name[:3].upper()
            if not equals or kind not in {"PV_", "PH_"}:
                continue
            if name not in KEYS and name.islower():
                name = name[3:]
                if name not in self._aliases and not name.startswith("sysctl."):
                    continue  # pv_rev, pv_try and the like: arguments of the boot loader, not configuration
            self.put_all(PV_CMDLINE if kind == "PV_" else PH_CMDLINE, [(name, value)])

    def drop(self, level: str, name: str | None = None) -> None:
        """Takes one key, or all, off a level: what was set below holds again."""
        if name is None:
            self._levels.pop(level, None)
        else:
            self._levels.get(level, {}).pop(self._aliases.get(name, name), None)

    def hold_strict(self) -> None:
        """Where the system's own files say `strict`, the boot loader's words do not weaken it: they are taken away."""
        inner = (level for level in (POLICY, PV_CONF, ARGS) if _MODE in self._levels.get(level, {}))
        if self._levels.get(next(inner, DEFAULT), {}).get(_MODE) != "strict":
            return
        for level in (PV_CMDLINE, ENV):
            for name in [name for name in self._levels.get(level, {}) if name in _SECURITY]:
                del self._levels[level][name]
                self._report(f"{level}: {name} does not count, PV_SECUREBOOT_MODE is strict")

    def knows(self, name: str) -> bool:
        """Whether a name is a key or the old name of one."""
        return name in KEYS or name in self._aliases

    def _canonical(self, level: str, name: str) -> str:
        if name in KEYS:
            return name
        if name not in self._aliases:
            raise ConfigError(
                f"{name[:80]!r} is not a configuration key", hint="docs/reference/configuration.md lists them all."
            )
        if level not in {META, COMMAND}:  # there the old names are the usual ones
            self._report(f"{level}: {name} is the old name of {self._aliases[name]}")
        return self._aliases[name]

    def _put_sysctl(self, level: str, name: str, text: str) -> bool:
        prefix = next((p for p in ("PV_SYSCTL_", "sysctl.") if name.startswith(p)), None)
        if prefix is None:
            return False
        if "PV" not in _GROUPS[level]:
            raise ConfigError(f"{name[:80]} may not be set there")
        setting = name[len(prefix) :].lower() if prefix == "PV_SYSCTL_" else name[len(prefix) :]
        if not setting.replace("_", "").replace("-", "").replace(".", "").isalnum() or len(text) > MAX_VALUE_CHARS:
            raise ConfigError(f"{name[:80]} is not the name of a kernel setting")
        self.sysctls[setting] = text
        return True

    def _report(self, sentence: str) -> None:
        if sentence not in self.problems and len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(sentence)

    # Getting --------------------------------------------------------------------------------------------------------
    def setting(self, name: str) -> Setting:
        """The value that holds and its origin. Raises KeyError for a name that is not in the table."""
        for level in reversed(LEVELS):
            value = self._levels.get(level, {}).get(name)
            if value is not None:
                return Setting(value, level)
        return Setting(self._defaults[name], DEFAULT)

    def text(self, name: str) -> str:
        """A text or path key; `""` when it is not set."""
        value = self.setting(name).value
        if not isinstance(value, str):
            raise TypeError(f"{name} is not a text")
        return value

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self.setting(name).value
        if not isinstance(value, int):
            raise TypeError(f"{name} is not a number")
        return value

    def seconds(self, name: str) -> int:
        """A duration in seconds."""
        return self.integer(name)

    def size(self, name: str) -> int:
        """A size in bytes."""
        return self.integer(name)

    def flag(self, name: str) -> bool:
        """A yes-or-no key."""
        value = self.setting(name).value
        if not isinstance(value, bool):
            raise TypeError(f"{name} is not a flag")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """A key that lists words."""
        value = self.setting(name).value
        if not isinstance(value, tuple):
            raise TypeError(f"{name} is not a list")
        return value

    def entries(self) -> Iterator[tuple[Key, str, str]]:
        """Every key with its value as text and its origin; secrets that are set read `(hidden)`."""
        for name, key in KEYS.items():
            value, origin = self.setting(name)
            text = render(value)
            yield key, "(hidden)" if key.secret and text else text, origin


def render(value: Value) -> str:
    """A value as it would stand in a file."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def sysctl_path(setting: str, root: str = "/proc/sys") -> str | None:
    """The file of a kernel setting, None where this kernel has none.

    Underscores may be part of a name or stand between folders (`kernel_core_pattern` is kernel/core_pattern), so the
    longest name that exists is taken at each step. A name is letters, digits and `_.-` alone: a slash would start a
    path anew and lead to any file of the device.
    """
    if not _SYSCTL_NAME.fullmatch(setting):
        return None
    parts = setting.replace(".", "_").split("_")
    for length in range(len(parts), 0, -1):
        path = os.path.join(root, "_".join(parts[:length]))
        rest = "_".join(parts[length:])
        if not rest and os.path.isfile(path):
            return path
        if rest and os.path.isdir(path) and (found := sysctl_path(rest, path)) is not None:
            return found
    return None


class Sources(NamedTuple):
    """Where configuration is read from. `storage` is None while the storage partition is not mounted yet."""

    environ: Mapping[str, str]
    command_line: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    file: str = "/etc/pantavisor.config"
    storage: str | None = None
    revision_dir: str | None = None


def load(sources: Sources) -> Config:
    """Reads every level in order. Never raises for what it reads: a file or value that is wrong goes to `problems`."""
    config = Config()
    config.put_all(ARGS, sources.arguments)
    config.put_command_line(sources.command_line)
    config.put_all(ENV, sorted((k, v) for k, v in sources.environ.items() if k in KEYS or k.startswith("PV_SYSCTL_")))
    _read(config, PV_CONF, sources.file)
    if sources.storage is not None:
        _read(config, PH_CONF, os.path.join(sources.storage, "config", "pantahub.config"))
    policy = config.text("PV_POLICY")
    if policy and _plain(config, "PV_POLICY", policy):
        _read(
            config,
            POLICY,
            os.path.join(config.text("PV_SYSTEM_ETCPANTAVISORDIR"), "policies", f"{policy}.config"),
            needed=True,
        )
    oem = config.text("PV_OEM_NAME")
    if oem and sources.revision_dir is not None and _plain(config, "PV_OEM_NAME", oem):
        _read(config, OEM, os.path.join(sources.revision_dir, oem, f"{policy or 'default'}.config"))
    config.hold_strict()
    return config


def _plain(config: Config, name: str, value: str) -> bool:
    """Whether a value is one plain file name, so that it cannot lead out of the folder it names a file in."""
    if "/" in value or value.startswith("."):
        config.problems.append(f"{name}={value[:80]!r} is not a plain name; it was ignored")
        return False
    return True


def _read(config: Config, level: str, path: str, *, needed: bool = False) -> None:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if needed:
            config.problems.append(f"{level}: {path} is missing; its settings do not hold")
        return
    except OSError as error:
        config.problems.append(f"{level}: {path} cannot be read: {error.strerror}")
        return
    if len(data) > MAX_FILE_BYTES:
        config.problems.append(f"{level}: {path} is larger than {MAX_FILE_BYTES} bytes; it was ignored")
        return
    config.put_all(level, lines(data.decode("utf-8", "replace")))
