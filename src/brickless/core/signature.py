"""Signatures inside a state, without the cryptography: what each covers, and the bytes that were signed.

A signature is a flattened JWS with detached payload; its protected header says by patterns which members of the state
it covers (contract pvr.md 5, device.md 1.16). Two dialects of these patterns exist, the client's and the device's:
who verifies says which.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from brickless.core import canonical, glob
from brickless.core.canonical import JsonInput, JsonValue
from brickless.core.errors import HostileInputError, JsonError
from brickless.core.state import SPEC_KEY, State

SIGNATURE_SPEC = "pvs@2"
ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")
MAX_PROTECTED_BYTES = 128 * 1024
MAX_PATTERNS = 256
MAX_CERTIFICATES = 16
# Patterns times members: a header that asks for more is an attack on the verifier's time.
MAX_MATCHES = 4_000_000

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class Dialect(StrEnum):
    """How patterns are read.

    CLIENT: `core.glob`. DEVICE: fnmatch by component; `x/**` is everything below `x` and `x` itself, a bare `**`
    nothing, `**/x` is `*/x`.
    """

    CLIENT = "client"
    DEVICE = "device"


class Rule(NamedTuple):
    """Which members a signature covers: those that match an include and no exclude."""

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()


class Signature(NamedTuple):
    """A signature as it stands in a state. `path` is its key, `x5c` the certificates in DER, leaf first."""

    path: str
    protected: str
    signature: bytes
    alg: str
    rule: Rule
    x5c: tuple[bytes, ...] | None


class Coverage(NamedTuple):
    """Who covers what. `by` and `excluded_by` name the signatures' paths for each member.

    `protected`: covered by a signature. `excluded`: named by an exclude and protected by none. `notseen`: neither.
    """

    protected: tuple[str, ...]
    excluded: tuple[str, ...]
    notseen: tuple[str, ...]
    by: Mapping[str, tuple[str, ...]]
    excluded_by: Mapping[str, tuple[str, ...]]

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Return what a device in mode `strict` would refuse: neither included nor excluded, signatures left out."""
        return tuple(path for path in self.notseen if not path.startswith("_sigs/"))

    @property
    def unprotected(self) -> tuple[str, ...]:
        """Return what may be changed without a signature breaking; the reference lets excluded members pass unseen."""
        return tuple(path for path in sorted({*self.excluded, *self.notseen}) if not path.startswith("_sigs/"))


def members(state: State) -> dict[str, JsonValue]:
    """Return all members of a state, `#spec` included: signatures may cover it."""
    return {SPEC_KEY: state.spec, **state.entries}


def find_signatures(entries: Mapping[str, JsonValue]) -> tuple[Signature, ...]:
    """Return every signature of a state, wherever it lies. Raises `HostileInputError` for a malformed one."""
    return tuple(
        parse_signature(path, value)
        for path, value in sorted(entries.items())
        if isinstance(value, dict) and value.get(SPEC_KEY) == SIGNATURE_SPEC
    )


def parse_signature(path: str, value: JsonValue) -> Signature:
    """Read one signature. Raises `HostileInputError` that names `path`."""
    if not isinstance(value, dict) or value.get(SPEC_KEY) != SIGNATURE_SPEC:
        raise HostileInputError(f"{path}: is no signature of the format {SIGNATURE_SPEC}")
    protected = _text(path, value, "protected")
    if len(protected) > MAX_PROTECTED_BYTES:
        raise HostileInputError(f"{path}: .protected: is longer than {MAX_PROTECTED_BYTES} characters")
    try:
        header = canonical.loads(decode_base64url(protected), strict=True)
        signature = decode_base64url(_text(path, value, "signature"))
    except JsonError as error:
        raise HostileInputError(f"{path}: .protected: {error.message}") from error
    except ValueError as error:
        raise HostileInputError(f"{path}: {error}") from error
    if not isinstance(header, dict):
        raise HostileInputError(f"{path}: .protected: the header is no object")
    if "crit" in header:
        # RFC 7515 4.1.11: what we do not understand and must, we refuse.
        raise HostileInputError(f"{path}: .protected: the header has critical extensions")
    if header.get("typ") != "PVS" or header.get("alg") not in ALGORITHMS:
        raise HostileInputError(f"{path}: .protected: typ must be PVS, and alg one of {', '.join(ALGORITHMS)}")
    return Signature(path, protected, signature, str(header["alg"]), _rule(path, header), _certificates(path, header))


def select(paths: Iterable[str], rule: Rule, dialect: Dialect) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths that the rule covers, and those that only its excludes kept from it, in the order given."""
    matches: Callable[[str, str], bool] = glob.match if dialect is Dialect.CLIENT else match_device
    covered: list[str] = []
    excluded: list[str] = []
    for path in paths:
        if any(matches(pattern, path) for pattern in rule.exclude):
            excluded.append(path)
        elif any(matches(pattern, path) for pattern in rule.include):
            covered.append(path)
    return tuple(covered), tuple(excluded)


def payload(entries: Mapping[str, JsonValue], covered: Iterable[str]) -> bytes:
    """Return the bytes that a client signs: the canonical JSON of the covered members."""
    chosen: dict[str, JsonInput] = {path: entries[path] for path in covered}
    return canonical.dumps(chosen)


def payload_of_text(raw: bytes, covered: Iterable[str]) -> bytes:
    """Return the bytes that a device verifies: the members' source text, in the order of the document.

    It equals `payload` when the stored state is canonical. Raises `JsonError`.
    """
    wanted = set(covered)
    pieces = (f"{key_text}:{value_text}" for key, key_text, value_text in source_members(raw) if key in wanted)
    return b"{" + ",".join(pieces).encode() + b"}"


def signing_input(signature: Signature, payload: bytes) -> bytes:
    """Return the bytes under the signature (RFC 7515 5.1): the received header, a dot, the payload in base64url."""
    return f"{signature.protected}.{encode_base64url(payload)}".encode()


def coverage(entries: Mapping[str, JsonValue], signatures: Sequence[Signature], dialect: Dialect) -> Coverage:
    """Return who covers what.

    Only pass signatures that were verified. Raises `HostileInputError` for absurd headers.
    """
    patterns = sum(len(signature.rule.include) + len(signature.rule.exclude) for signature in signatures)
    if patterns * len(entries) > MAX_MATCHES:
        raise HostileInputError(f"{len(signatures)} signatures with {patterns} patterns are too many for this state")
    by: dict[str, list[str]] = {}
    excluded_by: dict[str, list[str]] = {}
    for signature in signatures:
        covered, excluded = select(entries, signature.rule, dialect)
        for table, paths in ((by, covered), (excluded_by, excluded)):
            for path in paths:
                table.setdefault(path, []).append(signature.path)
    return Coverage(
        tuple(sorted(by)),
        tuple(sorted(excluded_by.keys() - by.keys())),
        tuple(sorted(entries.keys() - by.keys() - excluded_by.keys())),
        {path: tuple(names) for path, names in by.items()},
        {path: tuple(names) for path, names in excluded_by.items()},
    )


def match_device(pattern: str, path: str) -> bool:
    """Match in the device's dialect: fnmatch(FNM_PATHNAME), and FNM_LEADING_DIR for patterns that end in `/**`."""
    if pattern == "**":
        return False
    below = pattern.endswith("/**")
    wanted = pattern.removesuffix("/**").split("/")
    names = path.split("/")
    if len(names) < len(wanted) or (len(names) > len(wanted) and not below):
        return False
    return all(glob.match_component(part, name) for part, name in zip(wanted, names, strict=False))


def source_members(raw: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield key, key's source text and value's source text of the members of a JSON object, in document order."""
    canonical.loads(raw, strict=True)  # within bounds, and valid from end to end
    text = raw.decode()
    decoder = json.JSONDecoder()
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        key_text = text[at:end]
        at = _skip(text, _skip(text, end) + 1)
        _, end = decoder.raw_decode(text, at)
        yield str(key), key_text, text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def encode_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_base64url(text: str) -> bytes:
    """Read base64url without padding. Raises `ValueError`; other alphabets and padding are refused."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("is no base64url text")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("is no base64url text") from error


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _text(path: str, value: Mapping[str, JsonValue], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise HostileInputError(f"{path}: .{key}: must be a string")
    return text


def _rule(path: str, header: Mapping[str, JsonValue]) -> Rule:
    rule = header.get("pvs")
    if not isinstance(rule, dict):
        raise HostileInputError(f"{path}: .protected: the header has no pvs rule")
    return Rule(_patterns(path, rule, "include"), _patterns(path, rule, "exclude"))


def _patterns(path: str, rule: Mapping[str, JsonValue], key: str) -> tuple[str, ...]:
    patterns = rule.get(key)
    if not isinstance(patterns, list) or len(patterns) > MAX_PATTERNS:
        raise HostileInputError(f"{path}: .protected: pvs.{key} must be an array of at most {MAX_PATTERNS} patterns")
    return tuple(_pattern(path, key, pattern) for pattern in patterns)


def _pattern(path: str, key: str, pattern: JsonValue) -> str:
    if not isinstance(pattern, str):
        raise HostileInputError(f"{path}: .protected: pvs.{key} holds something else than patterns")
    return pattern


def _certificates(path: str, header: Mapping[str, JsonValue]) -> tuple[bytes, ...] | None:
    chain = header.get("x5c")
    if chain is None:
        return None
    if not isinstance(chain, list) or len(chain) > MAX_CERTIFICATES:
        raise HostileInputError(f"{path}: .protected: x5c must be an array of at most {MAX_CERTIFICATES} certificates")
    try:
        return tuple(base64.b64decode(str(certificate), validate=True) for certificate in chain)
    except binascii.Error as error:
        raise HostileInputError(f"{path}: .protected: x5c holds something else than base64") from error
