"""What a transaction does to a state: parts put in, parts taken out (device.md 6.4). Pure: values to values."""

from __future__ import annotations

from collections.abc import Mapping

from brickless.core import canonical, signature
from brickless.core.canonical import JsonInput, JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.paths import check_state_path
from brickless.core.signature import Dialect, Signature

SPEC_KEY, SPEC = "#spec", "pantavisor-service-system@1"
CONFIG, SIGNATURES = "_config", "_sigs"
Entries = dict[str, JsonValue]


def read(data: bytes) -> Entries:
    """A state as a value. Raises HostileInputError."""
    value = canonical.loads(data)
    if not isinstance(value, dict):
        raise HostileInputError("The state is no JSON object")
    for path in value:
        if path != SPEC_KEY:
            check_state_path(path)
    return value


def text(entries: Mapping[str, JsonValue]) -> bytes:
    """The state as it is stored: canonical, so `#spec` comes first and signatures hold."""
    given: dict[str, JsonInput] = {SPEC_KEY: SPEC, **entries}
    return canonical.dumps(given)


def parts(entries: Mapping[str, JsonValue]) -> set[str]:
    """The parts that a package brings: first folders, of configuration the second."""
    found = set()
    for path in entries:
        words = path.split("/")
        if words[0] == CONFIG and len(words) > 2:
            found.add(words[1])
        elif words[0] not in (CONFIG, SIGNATURES) and len(words) > 1:
            found.add(words[0])
    return found


def prefixes(package: Mapping[str, JsonValue]) -> set[str]:
    """The folders that a package brings whole: a part's own, or a part's configuration; each without the other."""
    found = set()
    for path in package:
        words = path.split("/")
        if words[0] == CONFIG and len(words) > 2:
            found.add(f"{CONFIG}/{words[1]}/")
        elif words[0] not in (CONFIG, SIGNATURES) and len(words) > 1:
            found.add(f"{words[0]}/")
    return found


def add(base: Mapping[str, JsonValue], package: Mapping[str, JsonValue]) -> Entries:
    """`base` with the package's parts in place of its own: what they had before is gone, not mixed.

    The folders that the package brings go, and all that an old signature of its name covered and no other does.
    """
    folders = tuple(prefixes(package))
    gone = {path for path in base if path.startswith(folders)} if folders else set()
    for path in package:
        if path.startswith(f"{SIGNATURES}/"):
            gone |= covered_alone(base, path)
    kept = {path: value for path, value in base.items() if path not in gone}
    return {**kept, **package}


def remove(base: Mapping[str, JsonValue], part: str) -> Entries:
    """`base` without a part: its folder, its configuration, its signature and what that alone covered.

    Raises HostileInputError when there is nothing of it.
    """
    name = f"{SIGNATURES}/{part}.json"
    gone = {path for path in base if path == name or path.startswith((f"{part}/", f"{CONFIG}/{part}/"))}
    gone |= covered_alone(base, name) - {SPEC_KEY}
    if not gone:
        raise HostileInputError(f"There is no part {part!r} in the transaction")
    return {path: value for path, value in base.items() if path not in gone}


def covered_alone(entries: Mapping[str, JsonValue], path: str) -> set[str]:
    """The members that the signature at `path` covers and no other; none when it is not there or is none."""
    signatures = _signatures(entries)
    mine = next((one for one in signatures if one.path == path), None)
    if mine is None:
        return set()
    names = [name for name in entries if not name.startswith(f"{SIGNATURES}/")]
    covered, _ = signature.select(names, mine.rule, Dialect.CLIENT)
    others: set[str] = set()
    for one in signatures:
        if one.path != path:
            others.update(signature.select(names, one.rule, Dialect.CLIENT)[0])
    return set(covered) - others - {SPEC_KEY}


def _signatures(entries: Mapping[str, JsonValue]) -> list[Signature]:
    """The well-formed ones: of a broken one nobody can tell what it covers."""
    found = []
    for path, value in entries.items():
        if path.startswith(f"{SIGNATURES}/"):
            try:
                found.append(signature.parse_signature(path, value))
            except HostileInputError:
                continue
    return found
