"""RSA and ECDSA in plain arithmetic, held against the `cryptography` library, and against inputs made to deceive."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core import publickey
from brickless.core.errors import HostileInputError
from brickless.core.publickey import EcKey, RsaKey, read_key, verify_ecdsa, verify_jws, verify_rsa

RSA = rsa.generate_private_key(65537, 2048)
HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
EC = {
    "ES256": (ec.derive_private_key(0x1F3A, ec.SECP256R1()), hashes.SHA256(), 32),
    "ES384": (ec.derive_private_key(0x2B77, ec.SECP384R1()), hashes.SHA384(), 48),
    "ES512": (ec.derive_private_key(0x3C01, ec.SECP521R1()), hashes.SHA512(), 66),
}
DATA = b"what is signed"


def spki(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def ec_key(alg: str) -> EcKey:
    key = read_key(spki(EC[alg][0]))
    assert isinstance(key, EcKey)
    return key


def rsa_key() -> RsaKey:
    key = read_key(spki(RSA))
    assert isinstance(key, RsaKey)
    return key


def raw_ec(alg: str, data: bytes = DATA) -> bytes:
    key, digest, size = EC[alg]
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    return r.to_bytes(size) + s.to_bytes(size)


@pytest.mark.parametrize("digest", sorted(HASHES))
def test_rsa_agrees_with_the_library(digest: str) -> None:
    signature = RSA.sign(DATA, padding.PKCS1v15(), HASHES[digest])
    assert verify_rsa(rsa_key(), digest, signature, DATA)
    assert not verify_rsa(rsa_key(), digest, signature, DATA + b".")
    others = set(HASHES) - {digest}
    assert not any(verify_rsa(rsa_key(), other, signature, DATA) for other in others)


@pytest.mark.parametrize("alg", sorted(EC))
def test_both_encodings_of_ecdsa_are_read(alg: str) -> None:
    key, digest, _ = EC[alg]
    assert verify_jws(ec_key(alg), alg, raw_ec(alg), DATA)
    assert verify_jws(ec_key(alg), alg, key.sign(DATA, ec.ECDSA(digest)), DATA)
    assert not verify_jws(ec_key(alg), alg, raw_ec(alg), DATA + b".")


@settings(max_examples=25, deadline=None)
@given(secret=st.integers(1, 2**250), data=st.binary(max_size=200), flip=st.integers(0, 511))
def test_p256_agrees_with_the_library_on_any_key_and_text(secret: int, data: bytes, flip: int) -> None:
    private = ec.derive_private_key(secret, ec.SECP256R1())
    key = read_key(spki(private))
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32) + s.to_bytes(32)
    assert verify_jws(key, "ES256", raw, data)
    # What is changed by one bit must be judged as the library does: that is, refused.
    changed = (int.from_bytes(raw) ^ (1 << flip)).to_bytes(64)
    dss = encode_dss_signature(int.from_bytes(changed[:32]), int.from_bytes(changed[32:]))
    with pytest.raises(InvalidSignature):
        private.public_key().verify(dss, data, ec.ECDSA(hashes.SHA256()))
    assert not verify_jws(key, "ES256", changed, data)


@pytest.mark.parametrize("alg", sorted(EC))
def test_numbers_out_of_range_are_no_signature(alg: str) -> None:
    key = ec_key(alg)
    n, size = key.curve.n, key.curve.size_bytes
    r, s = int.from_bytes(raw_ec(alg)[:size]), int.from_bytes(raw_ec(alg)[size:])
    for bad_r, bad_s in ((0, s), (r, 0), (0, 0), (n, s), (r, n), (r + n, s), (r, s + n), (n, n), (1, 1), (r, n - 1)):
        if max(bad_r, bad_s) < 1 << 8 * size:
            assert not verify_jws(key, alg, bad_r.to_bytes(size) + bad_s.to_bytes(size), DATA), (bad_r, bad_s)
        assert not verify_ecdsa(key, "sha256", encode_dss_signature(bad_r, bad_s), DATA)
    assert not verify_ecdsa(key, "sha256", bytes.fromhex("30060201ff020101"), DATA), "r is -1"
    assert not verify_ecdsa(key, "sha256", b"", DATA)


def test_a_signature_in_der_has_one_spelling() -> None:
    key, digest, _ = EC["ES256"]
    good = key.sign(DATA, ec.ECDSA(digest))
    assert verify_ecdsa(ec_key("ES256"), "sha256", good, DATA)
    r_length = good[3]
    padded_r = good[:1] + bytes([good[1] + 1, 2, r_length + 1, 0]) + good[4:]
    long_length = good[:1] + b"\x81" + good[1:]
    for bad in (good + b"\0", good[:-1], padded_r, long_length, b"\x31" + good[1:]):
        assert not verify_jws(ec_key("ES256"), "ES256", bad, DATA), bad.hex()


def test_a_point_that_lies_on_no_curve_is_no_key() -> None:
    good = spki(EC["ES256"][0])
    head = good[:-65]
    x, y, p = good[-64:-32], good[-32:], ec_key("ES256").curve.p
    read_key(head + b"\x04" + x + y)
    beyond = (int.from_bytes(x) + p).to_bytes(33)[-32:]
    for point in (
        b"\x04" + x + (int.from_bytes(y) ^ 1).to_bytes(32),  # beside the curve
        b"\x04" + bytes(64),
        b"\x04" + p.to_bytes(32) + y,
        b"\x04" + beyond + y,
        b"\x06" + x + y,  # the hybrid form
    ):
        with pytest.raises(HostileInputError):
            read_key(head + point)
    compressed = (
        EC["ES256"][0]
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    )
    with pytest.raises(HostileInputError):
        read_key(bytes([0x30, len(head[2:]) - 32 + 33]) + head[2:-1] + compressed)


@pytest.mark.parametrize("alg", ["ES256", "ES384", "RS256", "none", "HS256", ""])
def test_a_header_cannot_choose_an_algorithm_that_is_not_the_keys(alg: str) -> None:
    keys: dict[str, publickey.PublicKey] = {"RS256": rsa_key(), **{name: ec_key(name) for name in EC}}
    signatures = {"RS256": RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA256()), **{name: raw_ec(name) for name in EC}}
    for name, key in keys.items():
        assert verify_jws(key, alg, signatures[name], DATA) is (name == alg)


def forged(block: bytes) -> bytes:
    """A signature that opens to `block`, whatever that is: made with the private key."""
    numbers = RSA.private_numbers()
    return pow(int.from_bytes(block), numbers.d, numbers.public_numbers.n).to_bytes(256)


def test_rsa_padding_is_exact() -> None:
    key = rsa_key()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + publickey._hash("sha256", DATA)
    fill = 256 - 3 - len(info)
    good = b"\0\1" + b"\xff" * fill + b"\0" + info
    assert verify_rsa(key, "sha256", forged(good), DATA)
    no_null = bytes.fromhex("302f300b0609608648016503040201") + bytes.fromhex("0420") + info[-32:]
    for block in (
        b"\0\2" + good[2:],  # the type of an encryption
        b"\0\0" + good[2:],
        b"\0\1" + b"\xff" * 8 + b"\0" + info + bytes(fill - 8),  # short padding, garbage behind (CVE-2006-4339)
        b"\0\1" + b"\xff" * (fill - 1) + b"\xfe\0" + info,
        b"\0\1" + b"\xff" * (fill + 2) + b"\0" + no_null,
        b"\0\1" + b"\xff" * (fill + len(info) - 32) + b"\0" + info[-32:],  # the digest alone
        b"\0\1" + b"\xff" * fill + b"\0" + info[:-1] + bytes([info[-1] ^ 1]),
    ):
        assert len(block) == 256
        assert not verify_rsa(key, "sha256", forged(block), DATA), block.hex()


def test_rsa_signatures_of_another_size_or_value_are_none() -> None:
    key = rsa_key()
    good = RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA256())
    above = int.from_bytes(good) + key.n
    bad = [b"", b"\0" + good, good[1:], good + b"\0", bytes(256), (key.n - 1).to_bytes(256), key.n.to_bytes(256)]
    bad += [above.to_bytes(256)] if above < 1 << 2048 else []
    assert not any(verify_rsa(key, "sha256", one, DATA) for one in bad)


@pytest.mark.parametrize("bits", [1024, 1536])
def test_weak_rsa_keys_are_refused(bits: int) -> None:
    with pytest.raises(HostileInputError, match="2048"):
        read_key(spki(rsa.generate_private_key(65537, bits)))


def test_keys_that_are_malformed_are_refused() -> None:
    good = spki(RSA)
    read_key(good)
    for bad in (b"", good[:-1], good + b"\0", good.replace(b"\x05\x00", b"\x05\x01\x00"), b"\x30\x80" + good[4:]):
        with pytest.raises(HostileInputError):
            read_key(bad)
    other = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(HostileInputError, match="another curve"):
        read_key(spki(other))


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 300), value=st.integers(0, 255))
def test_any_changed_byte_of_a_key_is_another_key_or_none(at: int, value: int) -> None:
    data = bytearray(spki(RSA))
    at %= len(data)
    same = data[at] == value
    data[at] = value
    signature = RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA256())
    try:
        key = read_key(bytes(data))
    except HostileInputError:
        return
    assert verify_jws(key, "RS256", signature, DATA) is same
