"""X.509 certificates, as far as signatures of states need them (RFC 5280): a strict reader, and chains to an authority.

What is not understood and marked critical is refused, names of certificates are compared byte by byte, and an
authority must say that it is one. No network, no revocation, no clock: the moment of a check is an argument, or None
where dates are not to count.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from brickless.core import der, publickey
from brickless.core.errors import HostileInputError
from brickless.core.publickey import EcKey, PublicKey, RsaKey

MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_PEM_BYTES = 1 << 20
MAX_CHAIN = 10

_BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED_USAGE = (bytes.fromhex(oid) for oid in ("551d13", "551d0f", "551d25"))
_COMMON_NAME = bytes.fromhex("550403")
_CODE_SIGNING, _ANY_USAGE = bytes.fromhex("2b06010505070303"), bytes.fromhex("551d2500")
_DIGITAL_SIGNATURE, _SIGNS_CERTIFICATES = 0, 5
# Algorithm -> whether it is RSA's, and its digest. SHA-1 and older have been broken.
_ALGORITHMS = {
    bytes.fromhex("2a864886f70d01010b"): (True, "sha256"),
    bytes.fromhex("2a864886f70d01010c"): (True, "sha384"),
    bytes.fromhex("2a864886f70d01010d"): (True, "sha512"),
    bytes.fromhex("2a8648ce3d040302"): (False, "sha256"),
    bytes.fromhex("2a8648ce3d040303"): (False, "sha384"),
    bytes.fromhex("2a8648ce3d040304"): (False, "sha512"),
}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]*?)-----END \1-----")


class Usage(NamedTuple):
    """What a certificate's extensions say; None where they say nothing of it. `path_length` None: no bound."""

    is_ca: bool | None = None
    path_length: int | None = None
    bits: frozenset[int] | None = None
    purposes: frozenset[bytes] | None = None


class Certificate(NamedTuple):
    """A certificate that is well formed; whether it is to be believed, `leaf_key` says. Times in seconds since 1970."""

    raw: bytes
    signed: bytes
    issuer: bytes
    subject: bytes
    common_names: tuple[str, ...]
    first_s: int
    last_s: int
    key: PublicKey
    algorithm: bytes
    signature: bytes
    usage: Usage

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return ascii(self.common_names[0][:64]) if self.common_names else "without a common name"


def read(raw: bytes) -> Certificate:
    """Read a certificate in DER. Raises `HostileInputError` for everything that is not wholly understood."""
    if len(raw) > MAX_CERTIFICATE_BYTES:
        raise HostileInputError(f"a certificate has more than {MAX_CERTIFICATE_BYTES} bytes")
    signed, algorithm, signature = der.exactly(
        der.element(raw, der.SEQUENCE), der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.BIT_STRING
    )
    fields = list(der.children(signed))
    version = _version(fields)
    if len(fields) < 6:
        raise HostileInputError("a certificate lacks fields")
    serial, inner, issuer, validity, subject, key = fields[:6]
    der.integer(serial)
    if inner.raw != algorithm.raw:
        raise HostileInputError("a certificate names two algorithms for one signature")
    dates = der.children(der.expect(validity, der.SEQUENCE))
    if len(dates) != 2:
        raise HostileInputError("a certificate's validity is not two dates")
    return Certificate(
        raw,
        signed.raw,
        der.expect(issuer, der.SEQUENCE).raw,
        der.expect(subject, der.SEQUENCE).raw,
        tuple(_common_names(subject)),
        der.seconds(dates[0]),
        der.seconds(dates[1]),
        publickey.read_key(key.raw),
        _algorithm(algorithm),
        der.octets_of_bits(signature),
        _usage(fields[6:], version),
    )


def _version(fields: list[der.Node]) -> int:
    """Take the version out of the fields: 0 is v1, 2 is v3, the only one with extensions."""
    if not fields or fields[0].tag != 0xA0:
        return 0
    version = der.integer(der.element(fields.pop(0).body, der.INTEGER))
    if version not in (1, 2):
        raise HostileInputError("a certificate is of a version that there is not")
    return version


def _algorithm(node: der.Node) -> bytes:
    kind, *parameters = der.children(node, least=1)
    oid = der.expect(kind, der.OID).body
    known = _ALGORITHMS.get(oid)
    if known is None:
        raise HostileInputError(f"a certificate is signed by an unknown or weak algorithm ({oid.hex()})")
    if [node.raw for node in parameters] != ([b"\x05\x00"] if known[0] else []):
        raise HostileInputError("a certificate's algorithm has parameters that do not belong to it")
    return oid


def _common_names(subject: der.Node) -> Iterator[str]:
    for part in der.children(subject):
        for pair in der.children(der.expect(part, der.SET)):
            kind, *value = der.children(der.expect(pair, der.SEQUENCE), least=1)
            if kind.tag == der.OID and kind.body == _COMMON_NAME and len(value) == 1:
                yield value[0].body.decode("utf-8", "replace")


def _usage(fields: Sequence[der.Node], version: int) -> Usage:
    """Read the extensions. Unique identifiers of issuer and subject (tags 1 and 2) may stand before them."""
    rest = list(fields)
    for tag in (0x81, 0x82):
        if rest and rest[0].tag == tag and version:
            rest.pop(0)
    if not rest:
        return Usage()
    if len(rest) != 1 or rest[0].tag != 0xA3 or version != 2:
        raise HostileInputError("a certificate has fields that do not belong there")
    usage, seen = Usage(), set[bytes]()
    for extension in der.children(der.element(rest[0].body, der.SEQUENCE)):
        kind, critical, value = _extension(extension)
        if kind in seen:
            raise HostileInputError("a certificate has an extension twice")
        seen.add(kind)
        usage = _take(usage, kind, critical, value)
    return usage


def _extension(node: der.Node) -> tuple[bytes, bool, bytes]:
    parts = list(der.children(der.expect(node, der.SEQUENCE)))
    critical = len(parts) == 3
    if critical and not der.boolean(parts.pop(1)):
        raise HostileInputError("DER: a default is written out")
    if len(parts) != 2:
        raise HostileInputError("a certificate's extension is malformed")
    return der.expect(parts[0], der.OID).body, critical, der.expect(parts[1], der.OCTET_STRING).body


def _take(usage: Usage, kind: bytes, critical: bool, value: bytes) -> Usage:
    if kind == _BASIC_CONSTRAINTS:
        parts = list(der.children(der.element(value, der.SEQUENCE)))
        is_ca = bool(parts) and parts[0].tag == der.BOOLEAN and der.boolean(parts.pop(0))
        length = der.integer(parts.pop(0)) if parts and is_ca else None
        if parts or (length is not None and length < 0):
            raise HostileInputError("a certificate's basic constraints are malformed")
        return usage._replace(is_ca=is_ca, path_length=length)
    if kind == _KEY_USAGE:
        return usage._replace(bits=der.flags(der.element(value, der.BIT_STRING)))
    if kind == _EXTENDED_USAGE:
        purposes = der.children(der.element(value, der.SEQUENCE))
        return usage._replace(purposes=frozenset(der.expect(purpose, der.OID).body for purpose in purposes))
    if critical:
        raise HostileInputError(f"a certificate has a critical extension that is not understood ({kind.hex()})")
    return usage


# PEM ----------------------------------------------------------------------------------------------------------------


def pem_blocks(data: bytes, *labels: str) -> Iterator[tuple[str, bytes]]:
    """The blocks of a PEM file (RFC 7468) with these labels: (label, DER). Raises `HostileInputError`."""
    if len(data) > MAX_PEM_BYTES:
        raise HostileInputError(f"a PEM file has more than {MAX_PEM_BYTES} bytes")
    for match in _PEM.finditer(data):
        label = match[1].decode()
        if label in labels:
            try:
                yield label, base64.b64decode(b"".join(match[2].split()), validate=True)
            except binascii.Error as error:
                raise HostileInputError(f"a PEM block {label} is not base64") from error


def public_keys(pem: bytes) -> tuple[PublicKey, ...]:
    """The public keys of a PEM file, PKIX or PKCS#1."""
    return tuple(
        publickey.read_key(data) if label == "PUBLIC KEY" else publickey.read_rsa(data)
        for label, data in pem_blocks(pem, "PUBLIC KEY", "RSA PUBLIC KEY")
    )


# Chains -------------------------------------------------------------------------------------------------------------


def leaf_key(chain: Sequence[Certificate], store: bytes, at_s: float | None) -> PublicKey:
    """The key of the chain's first certificate, when the chain leads to one of the PEM file `store`.

    The others may stand in any order. A certificate that has ended is refused at `at_s`; one that has not begun shows
    that the clock is behind, not that the certificate is wrong. Raises `HostileInputError` that says what fails.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise HostileInputError(f"a chain must have 1 to {MAX_CHAIN} certificates, this one has {len(chain)}")
    leaf, rest = chain[0], list(chain[1:])
    _check_purpose(leaf)
    current, below = leaf, 0
    while True:
        _check_date(current, at_s)
        if _is_in(store, current):
            return leaf.key
        anchor = _issuer(current, _named(store, current.issuer), below)
        if anchor is not None:
            _check_date(anchor, at_s)
            return leaf.key
        issuer = _issuer(current, rest, below)
        if issuer is None:
            raise HostileInputError(f"the certificate {current.name} leads to no certificate of the trust store")
        rest.remove(issuer)
        current, below = issuer, below + 1


def _is_in(store: bytes, certificate: Certificate) -> bool:
    return any(data == certificate.raw for _, data in pem_blocks(store, "CERTIFICATE"))


def _named(store: bytes, name: bytes) -> Iterator[Certificate]:
    """The certificates of the store that speak of a name: a store of hundreds is not read for one chain."""
    for _, data in pem_blocks(store, "CERTIFICATE"):
        if name in data:
            yield read(data)


def _issuer(certificate: Certificate, candidates: Iterable[Certificate], below: int) -> Certificate | None:
    """The first of the candidates that is the certificate's issuer and may be. `below`: authorities between."""
    for candidate in candidates:
        if candidate.subject == certificate.issuer and _is_signed_by(certificate, candidate.key):
            _check_authority(candidate, below)
            return candidate
    return None


def _is_signed_by(certificate: Certificate, key: PublicKey) -> bool:
    by_rsa, digest = _ALGORITHMS[certificate.algorithm]
    if by_rsa and isinstance(key, RsaKey):
        return publickey.verify_rsa(key, digest, certificate.signature, certificate.signed)
    if not by_rsa and isinstance(key, EcKey):
        return publickey.verify_ecdsa(key, digest, certificate.signature, certificate.signed)
    return False


def _check_authority(certificate: Certificate, below: int) -> None:
    usage = certificate.usage
    if not usage.is_ca or (usage.bits is not None and _SIGNS_CERTIFICATES not in usage.bits):
        raise HostileInputError(f"the certificate {certificate.name} is no authority, and yet it signed another one")
    if usage.path_length is not None and usage.path_length < below:
        raise HostileInputError(f"the chain below the certificate {certificate.name} is longer than it allows")


def _check_purpose(leaf: Certificate) -> None:
    """Who says what its key is for must say: signing code. Who says nothing is bound by the trust store alone."""
    usage = leaf.usage
    if usage.purposes is not None and not usage.purposes & {_CODE_SIGNING, _ANY_USAGE}:
        raise HostileInputError(f"the certificate {leaf.name} is not meant for signing code")
    if usage.bits is not None and _DIGITAL_SIGNATURE not in usage.bits:
        raise HostileInputError(f"the certificate {leaf.name} is not meant for signatures")


def _check_date(certificate: Certificate, at_s: float | None) -> None:
    if at_s is not None and at_s > certificate.last_s:
        raise HostileInputError(f"the certificate {certificate.name} has ended")
