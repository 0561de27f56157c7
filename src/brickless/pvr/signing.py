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
from brickless.core.signature import (
    SIGNATURE_SPEC,
    Coverage,
    Dialect,
    Rule,
    Signature,
    coverage,
    parse_signature,
    payload,
    payload_of_text,
    select,
    signing_input,
)
from brickless.pvr import jws

__all__ = [
    "Coverage",
    "Rule",
    "Signature",
    "Signer",
    "Trust",
    "Verdict",
    "cover",
    "device_hazards",
    "part_rule",
    "raw_rule",
    "sign",
    "signatures_of",
    "verify",
]

FOLDER = "_sigs"
MAX_STATE_BYTES = 64 << 20


class Verdict(NamedTuple):
    """What came of one signature. `signer` is the certificate's subject, or the public key that fitted.

    `signature` is None when `valid` is false: what did not verify has no rule that anybody may count on.
    """

    path: str
    valid: bool
    reason: str
    signer: str
    signature: Signature | None


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


def device_hazards(entries: Mapping[str, JsonValue], rule: Rule) -> tuple[str, ...]:
    """Return the entries that the field's devices select otherwise than clients (device.md 1.16): `**` and braces.

    A device makes another payload then, and refuses the signature.
    """
    client, device = (set(select(entries, rule, dialect)[0]) for dialect in (Dialect.CLIENT, Dialect.DEVICE))
    return tuple(sorted(client ^ device))


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
    covered, _ = select(entries, rule, Dialect.CLIENT)
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
    header = jws.b64url(header_bytes(key, rule, chain))
    document: dict[str, JsonValue] = {"#spec": SIGNATURE_SPEC, "protected": header, "signature": "AA"}
    bytes_signed = payload(entries, covered)
    # Read back by the reader of received signatures: what it would refuse is not written.
    data = signing_input(parse_signature("the new signature", document), bytes_signed)
    made = signer.sign(data)
    if not jws.verify(key, jws.algorithm(key), made, data):
        raise UserError(
            "signer-answer-wrong",
            "what the signer returned is no signature of its public key over the data",
            hint="Check that the key, the certificate chain and the signing program belong together.",
        )
    document["signature"] = jws.b64url(made)
    if with_payload:
        document["payload"] = jws.b64url(bytes_signed)
    return document


def header_bytes(key: jws.PublicKey, rule: Rule, chain: Sequence[x509.Certificate] | None) -> bytes:
    """The protected header: compact JSON, members and escapes as the field's client writes them (pvr.md 5.1)."""
    # `jwk` and `pvs` keep their own order inside, so each member is written by itself.
    members: dict[str, object] = {
        "alg": jws.algorithm(key),
        "jwk": dict(jws.jwk(key)),
        "pvs": {"include": list(rule.include), "exclude": list(rule.exclude)},
        "typ": "PVS",
    }
    if chain is not None:
        ders = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in chain]
        members["x5c"] = ders or None
    return _compact(members).encode()


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


def signatures_of(entries: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the signatures of a state by path, sorted: devices look for the `#spec` alone, wherever it lies."""
    return {
        path: value
        for path, value in sorted(entries.items())
        if isinstance(value, dict) and value.get("#spec") == SIGNATURE_SPEC
    }


def verify(entries: Mapping[str, JsonValue], path: str, document: JsonValue, trust: Trust, *, at: datetime) -> Verdict:
    """Verify one signature over a committed state at a time; a verdict, never an exception, for any bytes."""
    try:
        signature = parse_signature(path, document)
        # One signature has one spelling: stray bits in the base64 would let two texts verify.
        jws.unb64url(signature.protected)
        jws.unb64url(str(document["signature"]) if isinstance(document, dict) else "")
        bytes_signed = payload(entries, select(entries, signature.rule, Dialect.CLIENT)[0])
        _check_embedded(document, bytes_signed)
        signer = _check(signature, signing_input(signature, bytes_signed), trust, at)
    except HostileInputError as error:
        return Verdict(path, False, str(error), "", None)
    return Verdict(path, True, "", signer, signature)


def cover(entries: Mapping[str, JsonValue], verdicts: Iterable[Verdict]) -> Coverage:
    """Sort every entry of the state by what the valid signatures among `verdicts` do with it."""
    valid = [verdict.signature for verdict in verdicts if verdict.valid and verdict.signature is not None]
    return coverage(entries, valid, Dialect.CLIENT)


def read_state(raw: bytes) -> dict[str, JsonValue]:
    """Read the bytes of a committed state for verification.

    Raises HostileInputError where two readers could differ (duplicate keys, text that is not UTF-8).
    """
    entries = canonical.loads(raw, max_bytes=MAX_STATE_BYTES, strict=True)
    if not isinstance(entries, dict):
        raise HostileInputError("the state is no JSON object")
    return entries


def text_differs(raw: bytes, entries: Mapping[str, JsonValue], signature: Signature) -> bool:
    """Tell whether a device, which rebuilds payloads from the state's text, would verify other bytes (pvr.md 5.4)."""
    covered, _ = select(entries, signature.rule, Dialect.CLIENT)
    return payload_of_text(raw, covered) != payload(entries, covered)


def fingerprint(key: jws.PublicKey) -> str:
    """The hex SHA-256 of the key's SubjectPublicKeyInfo."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return canonical.sha256_hex(der)


def _check_embedded(document: JsonValue, bytes_signed: bytes) -> None:
    """Compare a payload that the file brings along: base64url, or the standard alphabet of the reference's listing."""
    embedded = document.get("payload") if isinstance(document, dict) else None
    if embedded is None:
        return
    if not isinstance(embedded, str):
        raise HostileInputError("the payload in the file is no text")
    if jws.unb64url(embedded.replace("+", "-").replace("/", "_")) != bytes_signed:
        raise HostileInputError("the payload in the file is not what the rule covers of the state")


def _check(signature: Signature, signed: bytes, trust: Trust, at: datetime) -> str:
    """Return who signed. Raises HostileInputError when nobody whom we trust did."""
    for key, name in _candidates(signature, trust, at):
        if jws.verify(key, signature.alg, signature.signature, signed):
            return name
    raise HostileInputError("the signature does not fit the state: what it covers was changed, or another key made it")


def _candidates(signature: Signature, trust: Trust, at: datetime) -> list[tuple[jws.PublicKey, str]]:
    if trust.keys:
        return [(key, f"public key {fingerprint(key)[:16]}") for key in trust.keys]
    if signature.x5c is not None:
        chain = jws.parse_x5c([base64.b64encode(der).decode() for der in signature.x5c])
        return [(jws.chain_key(chain, trust.roots, at=at), chain[0].subject.rfc4514_string())]
    found = [(key, name) for root in trust.roots for key, name in _root_key(root, trust, at)]
    if not found:
        raise HostileInputError("the signature brings no certificate, and no trusted certificate may sign code itself")
    return found


def _root_key(root: x509.Certificate, trust: Trust, at: datetime) -> list[tuple[jws.PublicKey, str]]:
    try:
        return [(jws.chain_key([root], trust.roots, at=at), root.subject.rfc4514_string())]
    except HostileInputError:
        return []  # not meant for signing code, or not valid now: another one of the pool may be


def _shown(patterns: Iterable[str]) -> str:
    return ", ".join(patterns) or "nothing"
