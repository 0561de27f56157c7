"""Verification of RSA and ECDSA signatures in plain arithmetic: a device has no library for it (ADR 0045).

Only public values go through here, so nothing depends on how long a step takes; nothing here may ever sign or decrypt.
Formats: RFC 8017 8.2.2 (PKCS#1 v1.5, the expected block is made and compared, never parsed), FIPS 186-5 6.4.2 and
SEC 1 (curves P-256, P-384 and P-521), RFC 5280 4.1.2.7 for keys.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from brickless.core import der
from brickless.core.errors import HostileInputError

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_EXPONENT = 1 << 32
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
# DigestInfo of RFC 8017 9.2, up to the digest.
_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class Curve(NamedTuple):
    """y^2 = x^3 - 3x + b over the field of `p`; the point (gx, gy) has the prime order n, and the cofactor is 1."""

    name: str
    size_bytes: int
    p: int
    b: int
    n: int
    gx: int
    gy: int


_P521 = (1 << 521) - 1
CURVES = {
    bytes.fromhex("2a8648ce3d030107"): Curve(
        "P-256",
        32,
        0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
    bytes.fromhex("2b81040022"): Curve(
        "P-384",
        48,
        (1 << 384) - (1 << 128) - (1 << 96) + (1 << 32) - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    ),
    bytes.fromhex("2b81040023"): Curve(
        "P-521",
        66,
        _P521,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
        0x00C6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBAA14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66,
        0x011839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650,
    ),
}
# What a JWS algorithm asks of the key: None for RSA, else the curve's name; and the digest (RFC 7518 3.1).
JWS = {
    "RS256": (None, "sha256"),
    "ES256": ("P-256", "sha256"),
    "ES384": ("P-384", "sha384"),
    "ES512": ("P-521", "sha512"),
}


class RsaKey(NamedTuple):
    """Modulus and exponent."""

    n: int
    e: int


class EcKey(NamedTuple):
    """A point of a curve, known to lie on it."""

    curve: Curve
    x: int
    y: int


PublicKey: TypeAlias = RsaKey | EcKey


def read_key(spki: bytes) -> PublicKey:
    """Read a SubjectPublicKeyInfo. Raises `HostileInputError` for one that is malformed, weak or of another kind."""
    algorithm, bits = der.exactly(der.element(spki, der.SEQUENCE), der.SEQUENCE, der.SEQUENCE, der.BIT_STRING)
    kind, *parameters = der.children(algorithm, least=1)
    key = der.octets_of_bits(bits)
    if kind.tag == der.OID and kind.body == _RSA and [node.raw for node in parameters] == [b"\x05\x00"]:
        return read_rsa(key)
    if kind.tag == der.OID and kind.body == _EC and len(parameters) == 1 and parameters[0].tag == der.OID:
        return _read_point(parameters[0].body, key)
    raise HostileInputError("a public key is neither RSA nor on a named curve")


def read_rsa(data: bytes) -> RsaKey:
    """Read an RSAPublicKey (PKCS#1)."""
    modulus, exponent = der.exactly(der.element(data, der.SEQUENCE), der.SEQUENCE, der.INTEGER, der.INTEGER)
    n, e = der.integer(modulus), der.integer(exponent)
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or n < 0 or n % 2 == 0:
        raise HostileInputError(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits and be odd")
    if not 3 <= e < MAX_EXPONENT or e % 2 == 0:
        raise HostileInputError("an RSA key's exponent must be odd, at least 3 and below 2^32")
    return RsaKey(n, e)


def _read_point(name: bytes, data: bytes) -> EcKey:
    curve = CURVES.get(name)
    if curve is None:
        raise HostileInputError("an EC key is on another curve than P-256, P-384 and P-521")
    if len(data) != 1 + 2 * curve.size_bytes or data[0] != 4:
        raise HostileInputError(f"a key on {curve.name} is not an uncompressed point")
    x, y = int.from_bytes(data[1 : 1 + curve.size_bytes]), int.from_bytes(data[1 + curve.size_bytes :])
    if x >= curve.p or y >= curve.p or (y * y - x * x * x + 3 * x - curve.b) % curve.p:
        raise HostileInputError(f"a key is no point of {curve.name}")
    return EcKey(curve, x, y)


def verify_jws(key: PublicKey, alg: str, signature: bytes, data: bytes) -> bool:
    """Whether the signature is the key's over `data`, by a JWS algorithm that must be the key's own.

    EC signatures are read as raw r||s (what clients write) and as DER (what devices of the field expect).
    """
    curve, digest = JWS.get(alg, ("", ""))
    if isinstance(key, RsaKey):
        return curve is None and verify_rsa(key, digest, signature, data)
    if curve != key.curve.name:
        return False
    size = key.curve.size_bytes
    if len(signature) == 2 * size:
        return _verify_ecdsa(key, digest, int.from_bytes(signature[:size]), int.from_bytes(signature[size:]), data)
    return verify_ecdsa(key, digest, signature, data)


def verify_rsa(key: RsaKey, digest: str, signature: bytes, data: bytes) -> bool:
    """PKCS#1 v1.5: whether the signature opens to exactly the block that this data leads to."""
    size = (key.n.bit_length() + 7) // 8
    number = int.from_bytes(signature)
    if len(signature) != size or number >= key.n:
        return False
    info = _DIGEST_INFO[digest] + _hash(digest, data)
    expected = b"\x00\x01" + b"\xff" * (size - 3 - len(info)) + b"\x00" + info
    return pow(number, key.e, key.n).to_bytes(size) == expected


def verify_ecdsa(key: EcKey, digest: str, signature: bytes, data: bytes) -> bool:
    """ECDSA with a signature in DER; one that is not well formed is no signature."""
    try:
        r, s = der.exactly(der.element(signature, der.SEQUENCE), der.SEQUENCE, der.INTEGER, der.INTEGER)
        return _verify_ecdsa(key, digest, der.integer(r), der.integer(s), data)
    except HostileInputError:
        return False


def _verify_ecdsa(key: EcKey, digest: str, r: int, s: int, data: bytes) -> bool:
    curve = key.curve
    if not (1 <= r < curve.n and 1 <= s < curve.n):
        return False
    hashed = _hash(digest, data)
    e = int.from_bytes(hashed) >> max(0, 8 * len(hashed) - curve.n.bit_length())
    w = pow(s, -1, curve.n)
    x, _, z = _sum_of_multiples(curve, e * w % curve.n, r * w % curve.n, (key.x, key.y, 1))
    if z == 0:
        return False
    return x * pow(z, -2, curve.p) % curve.p % curve.n == r


_Point: TypeAlias = tuple[int, int, int]  # Jacobian: (X/Z^2, Y/Z^3); Z = 0 is the point at infinity
_INFINITY: _Point = (1, 1, 0)


def _sum_of_multiples(curve: Curve, u1: int, u2: int, q: _Point) -> _Point:
    """u1 G + u2 Q, both walked along at once."""
    g = (curve.gx, curve.gy, 1)
    table = (_INFINITY, g, q, _add(curve, g, q))
    total = _INFINITY
    for bit in range(max(u1.bit_length(), u2.bit_length()) - 1, -1, -1):
        total = _double(curve, total)
        total = _add(curve, total, table[(u1 >> bit & 1) | (u2 >> bit & 1) << 1])
    return total


def _double(curve: Curve, point: _Point) -> _Point:
    x, y, z = point
    if z == 0 or y == 0:
        return _INFINITY
    p = curve.p
    yy = y * y % p
    s = 4 * x * yy % p
    zz = z * z % p
    m = 3 * (x - zz) * (x + zz) % p  # a = -3
    doubled = (m * m - 2 * s) % p
    return doubled, (m * (s - doubled) - 8 * yy * yy) % p, 2 * y * z % p


def _add(curve: Curve, one: _Point, other: _Point) -> _Point:
    x1, y1, z1 = one
    x2, y2, z2 = other
    if z1 == 0:
        return other
    if z2 == 0:
        return one
    p = curve.p
    z1z1, z2z2 = z1 * z1 % p, z2 * z2 % p
    u1, u2 = x1 * z2z2 % p, x2 * z1z1 % p
    s1, s2 = y1 * z2 * z2z2 % p, y2 * z1 * z1z1 % p
    if u1 == u2:
        return _double(curve, one) if s1 == s2 else _INFINITY
    h, r = u2 - u1, s2 - s1
    hh = h * h % p
    hhh = h * hh % p
    v = u1 * hh % p
    x = (r * r - hhh - 2 * v) % p
    return x, (r * (v - x) - s1 * hhh) % p, h * z1 * z2 % p


def _hash(name: str, data: bytes) -> bytes:
    # Imported where it is used: hashlib loads libcrypto, which a process that only reads states does not need.
    import hashlib

    return hashlib.new(name, data).digest()
