"""Chains of certificates that lead to a trusted one, and all the ways in which one may not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core import certificate
from brickless.core.errors import HostileInputError
from brickless.core.publickey import read_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_S = NOW.timestamp()
DAY = timedelta(days=1)
Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Made:
    """A certificate with its key."""

    def __init__(self, name: str, issuer: Made | None = None, **how: Any) -> None:
        self.key: Private = how.get("key") or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(above.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(how.get("first", NOW - 10 * DAY))
            .not_valid_after(how.get("last", NOW + 10 * DAY))
        )
        ca = how.get("ca", issuer is None)
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, how.get("path") if ca else None), critical=True)
        for extension in how.get("more", ()):
            builder = builder.add_extension(extension, critical=how.get("critical", False))
        self.made = builder.sign(how.get("signed_by", above.key), how.get("digest", hashes.SHA256()))
        self.raw = self.made.public_bytes(serialization.Encoding.DER)
        self.pem = self.made.public_bytes(serialization.Encoding.PEM)
        self.read = certificate.read(self.raw)


def usage(*bits: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in bits for name in names})


CODE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
ROOT = Made("root")
MIDDLE = Made("middle", ROOT, ca=True)
LEAF = Made("leaf", MIDDLE, more=[CODE, usage("digital_signature")])


def check(*chain: Made, store: Sequence[Made] = (ROOT,), at_s: float | None = NOW_S) -> bytes:
    """The DER of the key that is believed."""
    pem = b"".join(one.pem for one in store)
    key = certificate.leaf_key([one.read for one in chain], pem, at_s)
    assert key == read_key(
        chain[0]
        .made.public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return pem


def test_a_certificate_is_read() -> None:
    one = LEAF.read
    assert one.common_names == ("leaf",)
    assert (one.first_s, one.last_s) == ((NOW - 10 * DAY).timestamp(), (NOW + 10 * DAY).timestamp())
    assert one.usage.bits == frozenset({0})
    assert one.usage.is_ca is False
    assert MIDDLE.read.usage.is_ca is True


def test_chains_that_lead_to_the_store() -> None:
    check(LEAF, MIDDLE)
    check(LEAF, MIDDLE, ROOT)
    check(LEAF, ROOT, MIDDLE)  # in another order
    check(LEAF, store=[MIDDLE])
    check(LEAF, store=[LEAF])  # pinned
    check(LEAF, MIDDLE, store=[Made("other"), ROOT, Made("root")])


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 3072)])
@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_keys_and_digests(key: Private, digest: hashes.HashAlgorithm) -> None:
    root = Made("root", key=key, digest=digest)
    check(Made("leaf", root, digest=digest), store=[root])


def refused(match: str, *chain: Made, store: Sequence[Made] = (ROOT,), at_s: float | None = NOW_S) -> None:
    with pytest.raises(HostileInputError, match=match):
        check(*chain, store=store, at_s=at_s)


def test_a_chain_that_leads_nowhere() -> None:
    refused("leads to no certificate", LEAF)
    refused("leads to no certificate", LEAF, MIDDLE, store=[])
    refused("leads to no certificate", LEAF, MIDDLE, store=[Made("root")])  # the name alone is nobody
    refused("leads to no certificate", Made("leaf", ROOT, signed_by=ec.generate_private_key(ec.SECP256R1())))
    circle = Made("one", Made("two"), ca=True)
    refused("leads to no certificate", circle, Made("two", circle, ca=True))


def test_who_is_no_authority_signs_nothing() -> None:
    for how in ({"ca": False}, {"ca": None}, {"ca": True, "more": [usage("digital_signature")]}):
        middle = Made("middle", ROOT, **how)
        refused("no authority", Made("leaf", middle), middle)
        refused("no authority", Made("leaf", middle), store=[middle])
    refused("no authority", Made("below", LEAF), LEAF, MIDDLE)


def test_a_chain_that_is_longer_than_an_authority_allows() -> None:
    root = Made("root", path=0)
    middle = Made("middle", root, ca=True)
    check(Made("leaf", root), store=[root])
    refused("longer than it allows", Made("leaf", middle), middle, store=[root])
    check(Made("leaf", middle), middle, store=[Made("root", key=root.key, path=1)])
    below: list[Made] = [ROOT]
    for n in range(certificate.MAX_CHAIN):
        below.append(Made(f"level {n}", below[-1], ca=True))
    refused("1 to 10", *reversed(below[1:]), Made("x"))


@pytest.mark.parametrize(
    "purposes",
    [[ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.TIME_STAMPING]],
)
def test_a_certificate_for_something_else(purposes: list[x509.ObjectIdentifier]) -> None:
    refused("not meant for signing code", Made("leaf", ROOT, more=[x509.ExtendedKeyUsage(purposes)]))
    refused("not meant for signatures", Made("leaf", ROOT, more=[usage("key_encipherment")]))


def test_dates() -> None:
    ended = Made("leaf", ROOT, last=NOW - DAY, first=NOW - 20 * DAY)
    refused("has ended", ended)
    check(ended, at_s=None)  # where dates are not to count
    young = Made("leaf", ROOT, first=NOW + DAY)
    check(young)  # it shows that the clock is behind
    old = Made("root", last=NOW - DAY, first=NOW - 20 * DAY)
    refused("has ended", Made("leaf", old), store=[old])
    refused("has ended", Made("leaf", old), old, store=[old])
    check(Made("leaf", old), store=[old], at_s=None)


def test_what_is_critical_and_not_understood_is_refused() -> None:
    constraints = x509.NameConstraints(permitted_subtrees=[x509.DNSName("example.org")], excluded_subtrees=None)
    Made("leaf", ROOT, more=[constraints])
    with pytest.raises(HostileInputError, match="critical"):
        Made("leaf", ROOT, more=[constraints], critical=True)


def test_algorithms_that_are_not_understood_are_refused() -> None:
    with pytest.raises(HostileInputError, match="neither RSA nor"):
        Made("leaf", key=ed25519.Ed25519PrivateKey.generate(), digest=None)
    with pytest.raises(HostileInputError, match="unknown or weak"):
        Made("leaf", key=rsa.generate_private_key(65537, 2048), digest=hashes.SHA224())


def test_bytes_behind_and_cut_off() -> None:
    for bad in (LEAF.raw + b"\0", LEAF.raw[:-1], LEAF.raw[1:], b"", b"\x30\x80" + LEAF.raw[4:] + b"\0\0"):
        with pytest.raises(HostileInputError):
            certificate.read(bad)
    with pytest.raises(HostileInputError, match="more than"):
        certificate.read(bytes(certificate.MAX_CERTIFICATE_BYTES + 1))


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_certificate_with_any_byte_changed_is_not_believed(at: int, value: int) -> None:
    data = bytearray(LEAF.raw)
    at %= len(data)
    if data[at] == value:
        return
    data[at] = value
    with pytest.raises(HostileInputError):
        certificate.leaf_key([certificate.read(bytes(data)), MIDDLE.read], ROOT.pem, NOW_S)


@settings(max_examples=300, deadline=None)
@given(begin=st.integers(0, 10_000), length=st.integers(0, 40), new=st.binary(max_size=8))
def test_a_certificate_with_any_piece_replaced_is_read_or_refused(begin: int, length: int, new: bytes) -> None:
    begin %= len(LEAF.raw)
    data = LEAF.raw[:begin] + new + LEAF.raw[begin + length :]
    # The outer lengths are put right, so that what is inside is reached.
    body = data[4:]
    data = b"\x30\x82" + len(body).to_bytes(2) + body
    if data == LEAF.raw:
        return
    with pytest.raises(HostileInputError):
        certificate.leaf_key([certificate.read(data), MIDDLE.read], ROOT.pem, NOW_S)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(HostileInputError):
        certificate.read(data)


def test_pem_files() -> None:
    assert [data for _, data in certificate.pem_blocks(b"text\n" + ROOT.pem + b"\n" + LEAF.pem, "CERTIFICATE")] == [
        ROOT.raw,
        LEAF.raw,
    ]
    assert list(certificate.pem_blocks(ROOT.pem[:-30], "CERTIFICATE")) == []
    with pytest.raises(HostileInputError, match="base64"):
        list(certificate.pem_blocks(b"-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n", "CERTIFICATE"))
    public = LEAF.key.public_key()
    pkix = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_keys(pkix) == (LEAF.read.key,)
    key = rsa.generate_private_key(65537, 2048).public_key()
    pkcs1 = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    assert len(certificate.public_keys(pkcs1)) == 1
    with pytest.raises(HostileInputError, match="more than"):
        certificate.public_keys(bytes(certificate.MAX_PEM_BYTES + 1))
