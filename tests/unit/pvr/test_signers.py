"""Signers outside this process: any program, and keys on a PKCS#11 token."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from brickless.core.errors import UserError
from brickless.linux import process
from brickless.pvr import jws, signers, signing

NOW = datetime(2026, 6, 1, tzinfo=UTC)
STATE = {"#spec": "pantavisor-service-system@1", "web/root.squashfs": "a" * 64}


def pem(key: jws.PrivateKey, path: Path) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(stat.S_IRUSR)
    return path


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())])
def test_any_program_can_sign(key: jws.PrivateKey, tmp_path: Path) -> None:
    # openssl answers DER for EC keys; the signature in the file must be r||s all the same.
    command = f"openssl dgst -sha256 -sign '{pem(key, tmp_path / 'the key.pem')}'"
    signer = signers.command_signer(command, key.public_key(), {})
    document = signing.sign(STATE, signing.part_rule("web"), signer, chain=None)
    verdict = signing.verify(STATE, "s.json", document, signing.Trust(keys=(key.public_key(),)), at=NOW)
    assert verdict.valid, verdict.reason
    if isinstance(key, ec.EllipticCurvePrivateKey):
        assert len(jws.unb64url(str(document["signature"]))) == 64


def test_a_program_that_fails_says_so_and_what_it_said(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    signer = signers.command_signer("openssl dgst -sha256 -sign /nonexistent", key.public_key(), {})
    with pytest.raises(process.ProcessError, match="signing failed"):
        signing.sign(STATE, signing.part_rule("web"), signer, chain=None)


@pytest.mark.parametrize(("answer", "id_"), [(b"", "signer-answer-size"), (b"x" * 5000, "signer-answer-size")])
def test_answers_that_are_no_signature_are_refused(answer: bytes, id_: str) -> None:
    with pytest.raises(UserError) as caught:
        signers.raw_signature("ES256", answer)
    assert caught.value.id == id_


def test_an_answer_in_no_known_form_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        signers.raw_signature("ES256", b"neither")
    assert caught.value.id == "signer-answer-form"


@pytest.mark.parametrize("command", ["", "  ", "sign 'unclosed"])
def test_commands_that_are_none_are_refused(command: str) -> None:
    with pytest.raises(UserError):
        signers.command_signer(command, rsa.generate_private_key(65537, 2048).public_key(), {})


@pytest.mark.parametrize(
    ("uri", "id_"),
    [
        ("pkcs11:object=k?pin-value=1234", "pkcs11-pin-in-uri"),
        ("pkcs11:token=t?module-path=/x.so", "pkcs11-uri"),
        ("pkcs11:object=a;object=b?module-path=/x.so", "pkcs11-uri"),
        ("pkcs11:object=%zz?module-path=/x.so", "pkcs11-uri"),
        ("pkcs11:object?module-path=/x.so", "pkcs11-uri"),
    ],
)
def test_uris_that_are_ambiguous_or_leak_are_refused(uri: str, id_: str) -> None:
    with pytest.raises(UserError) as caught:
        signers.Token.parse(uri)
    assert caught.value.id == id_


def test_a_uri_finds_a_key() -> None:
    token = signers.Token.parse("pkcs11:token=My%20Token;id=%01%ff?module-path=/x.so&pin-source=file:/run/pin")
    assert token == signers.Token("/x.so", "My Token", "", "01ff", "/run/pin")
    assert token.arguments() == ["--module", "/x.so", "--token-label", "My Token", "--id", "01ff"]


SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


@pytest.mark.needs("softhsm")
@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RS256", "ES256", "ES384"],
)
def test_a_key_on_a_token_signs(key: jws.PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    environment = {"SOFTHSM2_CONF": str(configuration)}
    keys = ["--token", "brick", "--label", "release", "--id", "01", "--pin", "654321"]
    for argv in (
        ["softhsm2-util", "--init-token", "--free", "--label", "brick", "--so-pin", "123456", "--pin", "654321"],
        ["softhsm2-util", "--import", str(pem(key, tmp_path / "key.pem")), *keys],
    ):
        process.run(argv, purpose="preparing the token", timeout_s=30, env=environment)
    pin = tmp_path / "pin"
    pin.write_text("654321\n")
    uri = f"pkcs11:token=brick;object=release;id=%01?module-path={SOFTHSM}&pin-source=file:{pin}"
    given = None if isinstance(key, rsa.RSAPrivateKey) else key.public_key()
    signer = signers.token_signer(uri, environment=environment, public_key=given)
    document = signing.sign(STATE, signing.part_rule("web"), signer, chain=None)
    trust = signing.Trust(keys=(key.public_key(),))
    assert signing.verify(STATE, "s.json", document, trust, at=NOW).valid
    pin.write_text("000000\n")
    locked = signers.token_signer(uri, environment=environment, public_key=key.public_key())
    with pytest.raises(process.ProcessError, match="signing failed"):
        signing.sign(STATE, signing.part_rule("web"), locked, chain=None)
