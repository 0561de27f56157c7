"""Keys, chains and signatures: what verifies, and everything that must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from brickless.core.errors import HostileInputError, UserError
from brickless.pvr import jws

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEYS = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}


def certificate(
    name: str,
    key: jws.PrivateKey,
    issuer: tuple[x509.Certificate, jws.PrivateKey] | None = None,
    *,
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
    start: datetime = NOW - timedelta(days=1),
    path_length: int | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    if not ca and usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


ROOT = certificate("root", KEYS["RS256"], ca=True)
MIDDLE_KEY = ec.generate_private_key(ec.SECP256R1())
MIDDLE = certificate("middle", MIDDLE_KEY, (ROOT, KEYS["RS256"]), ca=True)
LEAF = certificate("leaf", KEYS["ES256"], (MIDDLE, MIDDLE_KEY))


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_a_signature_verifies_over_its_own_bytes_only(alg: str) -> None:
    key = KEYS[alg]
    signature = jws.sign(key, b"protected.payload")
    assert jws.algorithm(key.public_key()) == alg
    assert jws.verify(key.public_key(), alg, signature, b"protected.payload")
    assert not jws.verify(key.public_key(), alg, signature, b"protected.payloae")
    assert not jws.verify(key.public_key(), alg, signature[:-1] + bytes([signature[-1] ^ 1]), b"protected.payload")
    assert not jws.verify(key.public_key(), alg, b"", b"protected.payload")


@pytest.mark.parametrize(
    ("key", "claimed"), [("RS256", "ES256"), ("ES256", "RS256"), ("ES384", "ES256"), ("RS256", "none")]
)
def test_a_header_cannot_choose_another_algorithm_than_the_keys_own(key: str, claimed: str) -> None:
    signature = jws.sign(KEYS[key], b"data")
    assert not jws.verify(KEYS[key].public_key(), claimed, signature, b"data")


def test_ec_signatures_verify_as_raw_and_as_der() -> None:
    raw = jws.sign(KEYS["ES256"], b"data")
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    assert len(raw) == 64
    assert jws.verify(KEYS["ES256"].public_key(), "ES256", raw, b"data")
    assert jws.verify(KEYS["ES256"].public_key(), "ES256", der, b"data")


@pytest.mark.parametrize("text", ["AA==", "A", "A+B/", "AB", "A B", "é"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(HostileInputError):
        jws.unb64url(text)


def test_a_chain_leads_to_a_root_through_the_certificates_sent() -> None:
    assert jws.chain_key([LEAF, MIDDLE], [ROOT], at=NOW) == KEYS["ES256"].public_key()
    assert jws.chain_key([LEAF], [MIDDLE], at=NOW) == KEYS["ES256"].public_key()


OTHER_ROOT = certificate("root", MIDDLE_KEY, ca=True)
SHORT_ROOT = certificate("root", KEYS["RS256"], ca=True, path_length=0)
NOT_CA = certificate("middle", MIDDLE_KEY, (ROOT, KEYS["RS256"]))
BAD_CHAINS = {
    "the middle certificate is missing": ([LEAF], [ROOT], NOW, "no trusted CA"),
    "a stranger of the same name": ([LEAF, MIDDLE], [OTHER_ROOT], NOW, "no trusted CA"),
    "no roots at all": ([LEAF, MIDDLE], [], NOW, "no trusted CA"),
    "too late": ([LEAF, MIDDLE], [ROOT], NOW + timedelta(days=60), "not valid"),
    "too early": ([LEAF, MIDDLE], [ROOT], NOW - timedelta(days=60), "not valid"),
    "longer than the root allows": ([LEAF, MIDDLE], [SHORT_ROOT], NOW, "longer"),
    "signed by a certificate that is no CA": ([LEAF, NOT_CA], [ROOT], NOW, "not a CA"),
    "a server certificate": (
        [certificate("leaf", KEYS["ES256"], (ROOT, KEYS["RS256"]), usage=ExtendedKeyUsageOID.SERVER_AUTH)],
        [ROOT],
        NOW,
        "code signing",
    ),
    "a certificate for anything": (
        [certificate("leaf", KEYS["ES256"], (ROOT, KEYS["RS256"]), usage=None)],
        [ROOT],
        NOW,
        "code signing",
    ),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_bad_chain_is_refused_with_its_reason(name: str) -> None:
    chain, roots, at, reason = BAD_CHAINS[name]
    with pytest.raises(HostileInputError, match=reason):
        jws.chain_key(chain, roots, at=at)


@pytest.mark.parametrize("value", [None, [], "x", [1], ["!"], ["AAAA"], ["AAAA"] * 11])
def test_x5c_that_is_no_chain_is_refused(value: object) -> None:
    with pytest.raises(HostileInputError):
        jws.parse_x5c(value)


def pem(key: jws.PrivateKey, form: serialization.PrivateFormat, passphrase: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


@pytest.mark.parametrize("form", [serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8])
@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_private_keys_are_read_in_every_usual_form(alg: str, form: serialization.PrivateFormat) -> None:
    text = b"# a comment\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pem(
        KEYS[alg], form
    )
    assert jws.load_private_key(text, name="key.pem").public_key() == KEYS[alg].public_key()


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        (b"", "pem-block-missing"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "signing-key-unreadable"),
        (pem(KEYS["ES256"], serialization.PrivateFormat.PKCS8, b"secret"), "signing-key-passphrase"),
        (pem(rsa.generate_private_key(65537, 1024), serialization.PrivateFormat.PKCS8), "signing-key-weak"),
        (pem(ec.generate_private_key(ec.SECP256K1()), serialization.PrivateFormat.PKCS8), "signing-key-curve"),
        (b"x" * (jws.MAX_PEM_BYTES + 1), "pem-too-large"),
    ],
)
def test_a_key_that_cannot_sign_says_why(text: bytes, identity: str) -> None:
    with pytest.raises(UserError) as caught:
        jws.load_private_key(text, name="key.pem")
    assert caught.value.id == identity
