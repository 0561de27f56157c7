"""Keys, certificates and JSON Web Signatures of `_sigs/*.json` (spec/state.md "Signatures", RFC 7515, RFC 7518).

Only the cryptography lives here: bytes to sign come in, a verdict goes out. Which keys of a state a signature covers is
`brickless.core.signature`'s business. Nothing here touches the network or looks at the clock: the time of a check is an
argument.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from brickless.core.errors import HostileInputError, UserError

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

MAX_PEM_BYTES = 1 << 20
MAX_CHAIN = 10
MIN_RSA_BITS = 2048

_CURVES = {
    "secp256r1": ("ES256", "P-256", 32),
    "secp384r1": ("ES384", "P-384", 48),
    "secp521r1": ("ES512", "P-521", 66),
}
# What the library raises for a certificate that is malformed, at once or when a part of it is first looked at.
_BROKEN_CERTIFICATE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
)
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "RS256": hashes.SHA256,
    "ES256": hashes.SHA256,
    "ES384": hashes.SHA384,
    "ES512": hashes.SHA512,
}


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """The bytes of unpadded base64url; anything else is refused, so that one value has one spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise HostileInputError(f"a signature member is not base64url: {error}") from error
    if b64url(data) != text:
        raise HostileInputError("a signature member is base64url with padding or stray bits")
    return data


def load_private_key(pem: bytes, *, name: str, passphrase: bytes | None = None) -> PrivateKey:
    """The first private key of a PEM file: PKCS#1, PKCS#8 or SEC1. RSA of at least 2048 bits, or a NIST curve."""
    try:
        key = serialization.load_pem_private_key(_block(pem, b"PRIVATE KEY", name), password=passphrase)
    except TypeError as error:
        raise UserError(
            "signing-key-passphrase",
            f"the private key {name} has a passphrase, which was not given",
            context=str(error),
            hint="Set PVR_SIG_PASSPHRASE, or run this on a terminal.",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            "signing-key-unreadable",
            f"{name} holds no private key that can be read",
            context=str(error),
            hint="Is the passphrase the right one?" if passphrase else "",
        ) from error
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise UserError(
                "signing-key-weak", f"{name} is an RSA key of {key.key_size} bits; {MIN_RSA_BITS} are the least"
            )
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm(key.public_key())
        return key
    raise UserError(
        "signing-key-kind", f"{name} holds a key of a kind that devices cannot verify", hint="use RSA or P-256"
    )


def load_public_keys(pem: bytes, *, name: str) -> list[PublicKey]:
    """Every `PUBLIC KEY` block of a PEM file, PKCS#1 or PKIX."""
    keys: list[PublicKey] = []
    for block in _blocks(pem, b"PUBLIC KEY"):
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UserError(
                "public-key-unreadable", f"{name} holds a public key that cannot be read", context=str(error)
            ) from error
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise UserError("public-key-kind", f"{name} holds a public key that is neither RSA nor EC")
        keys.append(key)
    if not keys:
        raise UserError("public-key-missing", f"{name} holds no PUBLIC KEY block")
    return keys


def load_certificates(pem: bytes, *, name: str) -> list[x509.Certificate]:
    """Every `CERTIFICATE` block of a PEM file, in file order (a chain: leaf first)."""
    try:
        return [_strictly(x509.load_pem_x509_certificate, block) for block in _blocks(pem, b"CERTIFICATE")]
    except _BROKEN_CERTIFICATE as error:
        raise UserError(
            "certificate-unreadable", f"{name} holds a certificate that cannot be read", context=str(error)
        ) from error


def algorithm(key: PublicKey) -> str:
    """The JWS algorithm that belongs to a key: RS256, ES256, ES384 or ES512."""
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if key.curve.name not in _CURVES:
        raise UserError(
            "signing-key-curve", f"the curve {key.curve.name} has no JWS algorithm", hint="use P-256 or P-384"
        )
    return _CURVES[key.curve.name][0]


def jwk(key: PublicKey) -> dict[str, str]:
    """The public key as a JSON Web Key (RFC 7517), members in alphabetical order of the reference's encoder."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": b64url(_octets(numbers.n)), "e": b64url(_octets(numbers.e))}
    _, curve, size = _CURVES[key.curve.name]
    point = key.public_numbers()
    return {"kty": "EC", "crv": curve, "x": b64url(point.x.to_bytes(size)), "y": b64url(point.y.to_bytes(size))}


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The JWS signature of `data`: PKCS#1 v1.5 for RSA; for EC the raw r||s of RFC 7518, section 3.4."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    alg, _, size = _CURVES[key.curve.name]
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[alg]())))
    return r.to_bytes(size) + s.to_bytes(size)


def verify(key: PublicKey, alg: str, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is `key`'s over `data`. `alg` must be the key's own: a header cannot choose a weaker one.

    EC signatures are accepted as raw r||s (what clients write) and as DER (what devices of the field expect).
    """
    if alg != algorithm(key):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            return True
        size = _CURVES[key.curve.name][2]
        if len(signature) == 2 * size:
            r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
            signature = encode_dss_signature(r, s)
        key.verify(signature, data, ec.ECDSA(_HASHES[alg]()))
    except InvalidSignature:
        return False
    return True


def _strictly(load: Callable[[bytes], x509.Certificate], data: bytes) -> x509.Certificate:
    """Load a certificate; what the library only warns of (a serial number below 1) is broken to us, today already."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        return load(data)


def parse_x5c(values: object) -> list[x509.Certificate]:
    """The chain of a JWS header: standard base64 DER, leaf first. Bounded; anything malformed is hostile."""
    if not isinstance(values, list) or not values or len(values) > MAX_CHAIN:
        raise HostileInputError(f"the x5c member is not a list of 1 to {MAX_CHAIN} certificates")
    chain = []
    for value in values:
        if not isinstance(value, str):
            raise HostileInputError("an x5c member is not text")
        try:
            chain.append(_strictly(x509.load_der_x509_certificate, base64.b64decode(value, validate=True)))
        except (binascii.Error, *_BROKEN_CERTIFICATE) as error:
            raise HostileInputError(f"an x5c member is not a certificate: {error}") from error
    return chain


def chain_key(chain: Sequence[x509.Certificate], roots: Iterable[x509.Certificate], *, at: datetime) -> PublicKey:
    """The leaf's key, if the chain leads to one of `roots` and may sign code at the time `at`; else HostileInputError.

    RFC 5280, as far as signatures of states need it: each certificate signed by the next one's key, issuers are CAs,
    everyone valid at `at`, path lengths kept, the leaf has the extended key usage *code signing*.
    """
    try:
        return _chain_key(chain, list(roots), at)
    except _BROKEN_CERTIFICATE as error:
        raise HostileInputError(f"a certificate of the chain is malformed: {error}") from error


def _chain_key(chain: Sequence[x509.Certificate], pool: list[x509.Certificate], at: datetime) -> PublicKey:
    leaf = chain[0]
    _check_usage(leaf)
    current, depth = leaf, 0
    rest = list(chain[1:])
    while True:
        _check_validity(current, at)
        anchor = _issuer(current, pool)
        if anchor is not None:
            if anchor != leaf:  # a leaf that is itself trusted needs nobody above it
                _check_validity(anchor, at)
                _check_ca(anchor, depth)
            break
        issuer = _issuer(current, rest)
        if issuer is None:
            raise HostileInputError(f"the certificate of {current.subject.rfc4514_string()} leads to no trusted CA")
        _check_ca(issuer, depth)
        rest.remove(issuer)
        current, depth = issuer, depth + 1
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise HostileInputError("the signing certificate's key is neither RSA nor EC")
    return key


def _issuer(certificate: x509.Certificate, candidates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    for candidate in candidates:
        if candidate == certificate:
            return candidate
        try:
            certificate.verify_directly_issued_by(candidate)
        except (*_BROKEN_CERTIFICATE, TypeError, InvalidSignature):
            continue  # not this one's child: the next candidate may be the issuer
        return candidate
    return None


def _check_validity(certificate: x509.Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise HostileInputError(
            f"the certificate of {certificate.subject.rfc4514_string()} is not valid at {at.isoformat()}",
            context=f"valid from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}",
        )


def _check_ca(certificate: x509.Certificate, depth: int) -> None:
    name = certificate.subject.rfc4514_string()
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise HostileInputError(f"the certificate of {name} is not a CA, yet it signed another") from None
    if not constraints.ca:
        raise HostileInputError(f"the certificate of {name} is not a CA, yet it signed another")
    if constraints.path_length is not None and constraints.path_length < depth:
        raise HostileInputError(f"the chain below {name} is longer than it allows")


def _check_usage(leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise HostileInputError("the signing certificate has no extended key usage; it needs code signing") from None
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise HostileInputError("the signing certificate is not meant for code signing")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _blocks(pem: bytes, label: bytes) -> list[bytes]:
    """The PEM blocks whose label contains `label`, in order (RFC 7468)."""
    if len(pem) > MAX_PEM_BYTES:
        raise UserError("pem-too-large", f"a PEM file may have {MAX_PEM_BYTES} bytes at the most")
    found, lines, kept = [], pem.splitlines(), None
    for line in lines:
        if line.startswith(b"-----BEGIN ") and label in line:
            kept = [line]
        elif kept is not None:
            kept.append(line)
            if line.startswith(b"-----END "):
                found.append(b"\n".join(kept) + b"\n")
                kept = None
    return found


def _block(pem: bytes, label: bytes, name: str) -> bytes:
    blocks = _blocks(pem, label)
    if not blocks:
        raise UserError("pem-block-missing", f"{name} holds no {label.decode()} block")
    return blocks[0]
