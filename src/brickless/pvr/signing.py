"""Signatures over parts of a state: make them, verify them, and say what they cover (pvr.md 1.9 and 5, device.md 1.16).

Values in, values out: no file is read or written here and no clock is asked. A signature is one entry of the state,
usually `_sigs/<name>.json`; its header's rule says which other entries it covers.

Two things this module never does, because each would let a check pass on less than it claims: it never verifies over
the payload that a file brings along (it is only compared), and it never counts as protected what a rule *names*, only
what a signature that verified *covers*.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.core.glob import match
from brickless.pvr import jws

SPEC = "pvs@2"
TYPE = "PVS"
FOLDER = "_sigs"
MAX_HEADER_BYTES = 256 << 10
MAX_PATTERNS = 4096
ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")


class Rule(NamedTuple):
    """Which entries a signature covers: those that match an include and no exclude (dialect: `core.glob`)."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def covers(self, path: str) -> bool:
        """Tell whether the signature protects this entry."""
        return any(match(pattern, path) for pattern in self.include) and not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Tell whether the rule takes this entry out."""
        return any(match(pattern, path) for pattern in self.exclude)

    def select(self, entries: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the entries that the signature protects."""
        return {path: value for path, value in entries.items() if self.covers(path)}


class Signature(NamedTuple):
    """A signature as it lies in a state. `protected` is the text that was signed, never written anew."""

    path: str
    protected: str
    signature: bytes
    payload: bytes | None
    alg: str
    rule: Rule
    chain: tuple[x509.Certificate, ...]


class Verdict(NamedTuple):
    """What came of one signature. `signer` is the certificate's subject or the public key that fitted."""

    path: str
    valid: bool
    reason: str
    alg: str
    signer: str
    protected: tuple[str, ...]
    excluded: tuple[str, ...]


class Coverage(NamedTuple):
    """Every entry of a state in exactly one of three lists, by the signatures that verified; all sorted."""

    protected: tuple[str, ...]
    excluded: tuple[str, ...]
    notseen: tuple[str, ...]


class Signer(Protocol):
    """Something that can sign: a key in a file, a program, a token (see `pvr.signers`)."""

    @property
    def public_key(self) -> jws.PublicKey:
        """The key that others verify with."""

    def sign(self, data: bytes) -> bytes:
        """Return the JWS signature of `data`: for EC the raw r||s."""


class Trust(NamedTuple):
    """Whom a verifier believes: explicit public keys, or certificates of CAs (pvr.md 5.3). Never a header's `jwk`."""

    keys: tuple[jws.PublicKey, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()


def part_rule(part: str, *, include: Iterable[str] = (), exclude: Iterable[str] = (), config: bool = True) -> Rule:
    """The rule of `sig add --part` (pvr.md 5.2): globs count from the part's folder; its `_config` comes along."""
    part = part.strip("/")
    wanted = [f"{part}/{pattern}" for pattern in include or ("**",)]
    if config:
        wanted.append(f"_config/{part}/**")
    return Rule(tuple(wanted), (*(f"{part}/{pattern}" for pattern in exclude or ("src.json",)), signature_path(part)))


def raw_rule(name: str, *, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Rule:
    """The rule of `sig add --raw`: globs as given; the signature's own entry is always taken out.

    The reference writes `_sigs/.json` there by mistake (pvr.md 8.2, 15): then a signature over `**` would cover itself.
    """
    return Rule(tuple(include) or ("**",), (*(tuple(exclude) or ("src.json",)), signature_path(name)))


def signature_path(name: str) -> str:
    """Where the signature of this name lies in a state."""
    return f"{FOLDER}/{name}.json"


def device_hazards(rule: Rule) -> list[str]:
    """The patterns that the field's devices read in another way than clients do (device.md 1.16), each with a reason.

    A device then selects other entries, and refuses the signature.
    """
    hazards = []
    for pattern in (*rule.include, *rule.exclude):
        inner = pattern.removesuffix("/**")
        if pattern == "**":
            hazards.append("'**' alone matches nothing on a device: name the folders, as in 'web/**'")
        elif "**" in inner:
            hazards.append(f"{pattern!r}: a device knows '**' only at the end, behind a slash")
        elif "{" in inner:
            hazards.append(f"{pattern!r}: a device does not know braces")
    return hazards


# Making


def sign(
    entries: Mapping[str, JsonValue],
    rule: Rule,
    signer: Signer,
    *,
    chain: Sequence[x509.Certificate] | None = (),
    with_payload: bool = False,
) -> dict[str, JsonValue]:
    """Sign what the rule covers of a committed state, and return the signature's entry.

    `chain` goes into the header, leaf first; None leaves the member out. Raises UserError when the rule covers
    nothing, when the chain's leaf is not the signer's certificate, or when the signer's answer does not verify.
    """
    covered = rule.select(entries)
    if not covered:
        raise UserError(
            "signature-covers-nothing",
            f"the rule include {_shown(rule.include)}, exclude {_shown(rule.exclude)} covers nothing of the state",
            hint="Commit first (`pvr add` and `pvr commit`); a signature is made over what is committed.",
        )
    key = signer.public_key
    if chain and chain[0].public_key() != key:
        raise UserError(
            "signing-chain-foreign",
            f"the first certificate of the chain, {chain[0].subject.rfc4514_string()}, is not that of the signing key",
            hint="Give the chain that belongs to the key with --x5c, or none with --x5c no.",
        )
    protected = jws.b64url(header_bytes(key, rule, chain))
    payload = canonical.dumps(covered)
    signed = signing_input(protected, payload)
    signature = signer.sign(signed)
    if not jws.verify(key, jws.algorithm(key), signature, signed):
        raise UserError(
            "signer-answer-wrong",
            "what the signer returned is no signature of its public key over the data",
            hint="Check that the key, the certificate chain and the signing program belong together.",
        )
    document: dict[str, JsonValue] = {"#spec": SPEC, "protected": protected, "signature": jws.b64url(signature)}
    if with_payload:
        document["payload"] = jws.b64url(payload)
    return document


def header_bytes(key: jws.PublicKey, rule: Rule, chain: Sequence[x509.Certificate] | None) -> bytes:
    """The protected header: compact JSON, members and escapes as the field's client writes them (pvr.md 5.1)."""
    # `jwk` and `pvs` keep their own order inside, so each member is written by itself.
    members: dict[str, object] = {
        "alg": jws.algorithm(key),
        "jwk": dict(jws.jwk(key)),
        "pvs": {"include": list(rule.include), "exclude": list(rule.exclude)},
        "typ": TYPE,
    }
    if chain is not None:
        ders = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in chain]
        members["x5c"] = ders or None
    return _compact(members).encode()


def signing_input(protected: str, payload: bytes) -> bytes:
    """The bytes that are signed (RFC 7515, section 5.1)."""
    return f"{protected}.{jws.b64url(payload)}".encode()


def _compact(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_compact(key)}:{_compact(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_compact, value)) + "]"
    if not isinstance(value, str):
        return "null"
    text = canonical.dumps(value).decode()
    for character in "<>&\u2028\u2029":  # as Go's encoder does
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# Verifying


def is_signature(value: JsonValue) -> bool:
    """Tell whether an entry of a state is a signature: devices look for the `#spec` alone, wherever it lies."""
    return isinstance(value, dict) and value.get("#spec") == SPEC


def signatures_of(entries: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the signatures of a state by path, sorted."""
    return {path: entries[path] for path in sorted(entries) if is_signature(entries[path])}


def parse(path: str, document: JsonValue) -> Signature:
    """Read a signature's entry. Raises HostileInputError for anything that a verifier must not guess about."""
    if not is_signature(document) or not isinstance(document, dict):
        raise HostileInputError(f"{path} is no signature: its #spec is not {SPEC}")
    protected, signature, payload = (_text(path, document, key) for key in ("protected", "signature", "payload"))
    if protected is None or signature is None:
        raise HostileInputError(f"{path} is no signature: the member 'protected' or 'signature' is missing")
    if len(protected) > MAX_HEADER_BYTES:
        raise HostileInputError(f"{path}: the header has more than {MAX_HEADER_BYTES} bytes")
    # Strict: two readers of the same header must not find two different rules in it.
    header = canonical.loads(jws.unb64url(protected), max_bytes=MAX_HEADER_BYTES, max_depth=8, strict=True)
    if not isinstance(header, dict):
        raise HostileInputError(f"{path}: the header is no JSON object")
    _check_header(path, header)
    x5c = header.get("x5c")
    return Signature(
        path,
        protected,
        jws.unb64url(signature),
        None if payload is None else _unb64_any(payload),
        str(header["alg"]),
        _parse_rule(path, header.get("pvs")),
        () if x5c is None else tuple(jws.parse_x5c(x5c)),
    )


def _unb64_any(text: str) -> bytes:
    """An embedded payload: base64url, or the standard alphabet that the reference's listing writes (8.2, 15)."""
    return jws.unb64url(text.replace("+", "-").replace("/", "_"))


def _text(path: str, document: Mapping[str, JsonValue], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise HostileInputError(f"{path}: the member {key!r} is no text")
    return value


def _check_header(path: str, header: Mapping[str, JsonValue]) -> None:
    if header.get("typ") != TYPE:
        raise HostileInputError(f"{path}: the header's typ is not {TYPE}")
    if header.get("alg") not in ALGORITHMS:
        raise HostileInputError(
            f"{path}: the algorithm {str(header.get('alg'))[:20]!r} is none of {_shown(ALGORITHMS)}"
        )
    # RFC 7515, 4.1.11: an extension that we do not know must make the signature invalid; b64 changes what is signed.
    if "crit" in header or "b64" in header:
        raise HostileInputError(f"{path}: the header has extensions that must be understood, and we know none")


def _parse_rule(path: str, value: JsonValue) -> Rule:
    if not isinstance(value, dict):
        raise HostileInputError(f"{path}: the header has no rule: 'pvs' is missing")
    lists: list[tuple[str, ...]] = []
    for key in ("include", "exclude"):
        patterns = value.get(key)
        if patterns is None and key == "exclude" and key in value:
            patterns = []  # the reference's encoder writes an empty list as null
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise HostileInputError(f"{path}: the rule's {key!r} is no list of patterns")
        if len(patterns) > MAX_PATTERNS:
            raise HostileInputError(f"{path}: the rule's {key!r} has more than {MAX_PATTERNS} patterns")
        lists.append(tuple(str(pattern) for pattern in patterns))
    return Rule(lists[0], lists[1])


def verify(entries: Mapping[str, JsonValue], path: str, document: JsonValue, trust: Trust, *, at: datetime) -> Verdict:
    """Verify one signature over a committed state at a time; a verdict, never an exception, for any bytes."""
    try:
        signature = parse(path, document)
        payload = canonical.dumps(signature.rule.select(entries))
        if signature.payload is not None and signature.payload != payload:
            raise HostileInputError("the payload in the file is not what the rule covers of the state")
        signer = _check(signature, signing_input(signature.protected, payload), trust, at)
    except HostileInputError as error:
        return Verdict(path, False, str(error), "", "", (), ())
    protected = tuple(sorted(p for p in entries if signature.rule.covers(p)))
    excluded = tuple(sorted(p for p in entries if signature.rule.excludes(p)))
    return Verdict(path, True, "", signature.alg, signer, protected, excluded)


def _check(signature: Signature, signed: bytes, trust: Trust, at: datetime) -> str:
    """Return who signed. Raises HostileInputError when nobody whom we trust did."""
    for key, name in _candidates(signature, trust, at):
        if jws.verify(key, signature.alg, signature.signature, signed):
            return name
    raise HostileInputError("the signature does not fit the state: what it covers was changed, or another key made it")


def _candidates(signature: Signature, trust: Trust, at: datetime) -> list[tuple[jws.PublicKey, str]]:
    if trust.keys:
        return [(key, f"public key {fingerprint(key)[:16]}") for key in trust.keys]
    if signature.chain:
        subject = signature.chain[0].subject.rfc4514_string()
        return [(jws.chain_key(signature.chain, trust.roots, at=at), subject)]
    found = [(key, name) for root in trust.roots for key, name in _root_key(root, trust, at)]
    if not found:
        raise HostileInputError("the signature brings no certificate, and no trusted certificate may sign code itself")
    return found


def _root_key(root: x509.Certificate, trust: Trust, at: datetime) -> list[tuple[jws.PublicKey, str]]:
    try:
        return [(jws.chain_key([root], trust.roots, at=at), root.subject.rfc4514_string())]
    except HostileInputError:
        return []  # not meant for signing code, or not valid now: another one of the pool may be


def fingerprint(key: jws.PublicKey) -> str:
    """The hex SHA-256 of the key's SubjectPublicKeyInfo."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return canonical.sha256_hex(der)


def coverage(entries: Mapping[str, JsonValue], verdicts: Iterable[Verdict]) -> Coverage:
    """Sort every entry of the state by what the valid signatures among `verdicts` do with it."""
    valid = [verdict for verdict in verdicts if verdict.valid]
    protected = {path for verdict in valid for path in verdict.protected}
    excluded = {path for verdict in valid for path in verdict.excluded} - protected
    notseen = entries.keys() - protected - excluded
    return Coverage(tuple(sorted(protected)), tuple(sorted(excluded)), tuple(sorted(notseen)))


def unprotected(found: Coverage) -> list[str]:
    """Return what keeps a device in strict secure boot from running the state: entries that no signature speaks of."""
    return [path for path in found.notseen if not path.startswith(f"{FOLDER}/")]


def check_canonical(raw: bytes) -> dict[str, JsonValue]:
    """Read the bytes of a committed state for verification. Raises HostileInputError where readers could differ.

    A device rebuilds payloads from the text as it lies there (pvr.md 5.4): duplicate keys, or a text that is not
    canonical, mean that it verifies something else than we do.
    """
    entries = canonical.loads(raw, max_bytes=64 << 20, strict=True)
    if not isinstance(entries, dict):
        raise HostileInputError("the state is no JSON object")
    return entries


def _shown(patterns: Iterable[str]) -> str:
    return ", ".join(patterns) or "nothing"
