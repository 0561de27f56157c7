"""The bootloader's variables as U-Boot stores them, and the decision which revision to boot (contract device.md
3.3-3.4).

`pv_rev` is the committed revision, `pv_try` one that is to be tried, `pv_trying` what the bootloader remembers of its
tries. The reference forgets `pv_trying` when it falls back: if that boot dies too, the next one tries the bad
revision again, for ever in turns. Here the memory stays until `pv_try` is gone: after its attempts a revision is not
booted again before someone asks anew. To tell a new request from an old one, the runtime counts its requests in
`pv_serial`, which other bootloaders pass over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import paths
from brickless.core.errors import HostileInputError

SIZE_BYTES = 64 * 1024
"""The size of the file that the writer pads to."""
FACTORY = "0"
MAX_SERIAL = 10**9

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRYING = re.compile(r"(?P<rev>[^#:]+)(?:#(?P<serial>[0-9]{1,10}))?(?::(?P<attempts>[0-9]{1,4}))?")


class Choice(NamedTuple):
    """What to boot.

    `trying` is what the bootloader must remember before it boots ("" to forget), `attempt` counts the tries of a
    revision from 1 and is 0 for a boot that is no try, `fell_back` says that `pv_try` had its attempts.
    """

    rev: str
    trying: str
    attempt: int
    fell_back: bool = False


def parse(data: bytes) -> dict[str, str]:
    """Read an environment: `key=value` pieces, each ended by NUL, up to an empty one.

    As in U-Boot what is no such piece is passed over: a file that a power cut left behind must not stop the boot.
    """
    env: dict[str, str] = {}
    for piece in data[:SIZE_BYTES].partition(b"\0\0")[0].split(b"\0"):
        key, equals, value = piece.partition(b"=")
        name = key.decode("ascii", "replace").strip()
        if equals and _KEY.fullmatch(name):
            env[name] = value.decode("utf-8", "replace").strip()
    return env


def render(env: Mapping[str, str]) -> bytes:
    """Return the environment, `pv_rev` and `pv_try` first, without the padding. Raises `HostileInputError`."""
    parts: list[str] = []
    for key in sorted(env, key=lambda name: (name not in {"pv_rev", "pv_try"}, name)):
        if not _KEY.fullmatch(key) or "\0" in env[key] or "\n" in env[key]:
            raise HostileInputError(f"the boot variable {key!r} cannot be stored")
        parts.append(f"{key}={env[key]}\0")
    data = "".join(parts).encode() + b"\0"
    if len(data) > SIZE_BYTES:
        raise HostileInputError(f"the boot variables take {len(data)} bytes, more than {SIZE_BYTES}")
    return data


def choose(env: Mapping[str, str], trying: str, *, max_attempts: int = 1) -> Choice:
    """Decide which revision to boot from the stored variables and the bootloader's own memory.

    A `pv_rev` or `pv_try` that is no name of a revision counts as unset; without `pv_rev` it is the factory revision.
    """
    committed = _revision(env, "pv_rev") or FACTORY
    wanted = _revision(env, "pv_try")
    if not wanted or wanted == committed:
        return Choice(committed, "", 0)
    serial = _serial(env)
    match = _TRYING.fullmatch(trying)
    same = match is not None and match["rev"] == wanted and int(match["serial"] or 0) == serial
    attempts = int(match["attempts"] or 1) if match is not None and same else 0
    if attempts >= max_attempts or (serial and env.get("pv_failed") == str(serial)):
        return Choice(committed, trying, 0, fell_back=True)
    attempts += 1
    memory = f"{wanted}#{serial}" if serial else wanted
    return Choice(wanted, memory if attempts == 1 else f"{memory}:{attempts}", attempts)


def request_try(env: Mapping[str, str], rev: str) -> dict[str, str]:
    """Return the variables that ask for a try of `rev` at the next boot. Raises `HostileInputError`."""
    paths.check_revision(rev)
    return {**env, "pv_try": rev, "pv_serial": str(_serial(env) % MAX_SERIAL + 1)}


def commit(env: Mapping[str, str], rev: str) -> dict[str, str]:
    """Return the variables that make `rev` the committed revision and end its try. Raises `HostileInputError`."""
    paths.check_revision(rev)
    before = _revision(env, "pv_rev")
    previous = {"pv_prev": before} if before and before != rev else {}
    return {**env, **previous, "pv_rev": rev, "pv_try": ""}


def give_up(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that end a try before its attempts are used up: the revision was seen to fail."""
    serial = _serial(env)
    return {**env, "pv_failed": str(serial)} if serial else dict(env)


def confirm(env: Mapping[str, str], mark: str) -> dict[str, str]:
    """Return the variables that tell a bootloader which counts boots that the boot `mark` went well."""
    return {**env, "pv_alive": mark}


def clear_try(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables after a failed try: allowed only once its error is on disk (contract 3.3)."""
    return {**env, "pv_try": ""}


def _serial(env: Mapping[str, str]) -> int:
    text = env.get("pv_serial", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0


def _revision(env: Mapping[str, str], key: str) -> str:
    name = env.get(key, "")
    try:
        paths.check_revision(name)
    except HostileInputError:
        return ""
    return name
