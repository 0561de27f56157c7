"""Real signatures of real states: our signing input is the one that was signed, and coverage is what the field says."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from brickless.core import canonical, signature
from brickless.core.signature import Dialect
from brickless.core.state import parse_state

# Two of the states lost what this one was made over.
COVERING_NOTHING = {"_sigs/_hostconfig.json"}

pytestmark = pytest.mark.needs("shared")


def verify(found: signature.Signature, data: bytes) -> None:
    assert found.x5c
    key = x509.load_der_x509_certificate(found.x5c[0]).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(found.signature, data, padding.PKCS1v15(), hashes.SHA256())
        return
    assert isinstance(key, ec.EllipticCurvePublicKey)
    half = len(found.signature) // 2
    numbers = int.from_bytes(found.signature[:half], "big"), int.from_bytes(found.signature[half:], "big")
    digest = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}[found.alg]
    key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(digest))


def test_the_signing_input_is_what_was_signed(shared_fixtures: Path) -> None:
    verified = []
    for file in sorted(shared_fixtures.glob("*.json")):
        state = parse_state(file.read_bytes())
        entries = signature.members(state)
        for found in signature.find_signatures(entries):
            for dialect in Dialect:
                covered, _ = signature.select(entries, found.rule, dialect)
                data = signature.signing_input(found, signature.payload(entries, covered))
                if found.path in COVERING_NOTHING:
                    assert not covered
                    with pytest.raises(InvalidSignature):
                        verify(found, data)
                    continue
                verify(found, data)
                verified.append((file.name, found.path, dialect))
                # a device works on the text of the state: the same bytes when it is canonical
                text = signature.payload_of_text(state.canonical(), covered)
                assert text == signature.payload(entries, covered)
    assert len(verified) == 32


def test_one_changed_member_breaks_the_signature(shared_fixtures: Path) -> None:
    state = parse_state((shared_fixtures / "awconnect.json").read_bytes())
    entries = signature.members(state) | {"awconnect/root.squashfs": "0" * 64}
    (found,) = signature.find_signatures(entries)
    covered, _ = signature.select(entries, found.rule, Dialect.DEVICE)
    with pytest.raises(InvalidSignature):
        verify(found, signature.signing_input(found, signature.payload(entries, covered)))


def test_coverage_of_a_whole_device(shared_fixtures: Path) -> None:
    state = parse_state((shared_fixtures / "initial_state.json").read_bytes())
    entries = signature.members(state)
    found = signature.find_signatures(entries)
    made = signature.coverage(entries, found, Dialect.DEVICE)
    assert "awconnect/root.squashfs" in made.protected
    assert made.by["awconnect/root.squashfs"] == ("_sigs/awconnect.json",)
    assert "awconnect/src.json" in made.excluded
    assert {*made.protected, *made.excluded, *made.notseen} == set(entries)
    assert canonical.loads(state.raw) == entries
