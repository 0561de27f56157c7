"""Signatures of states on a device: made as clients make them, and never believed for more than they cover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.signature import Rule, encode_base64url
from brickless.core.state import State, parse_state
from brickless.core.trust import Trust, unprotected, verified
from brickless.pvr import jws, signing

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING: Mapping[str, JsonValue] = {}
ALL = signing.raw_rule("all", include=["**"])


class Key:
    """A key of a developer's, as `pvr sig` uses it."""

    def __init__(self, private: Private) -> None:
        self.private = private

    @property
    def public_key(self) -> jws.PublicKey:
        return self.private.public_key()

    def sign(self, data: bytes) -> bytes:
        return jws.sign(self.private, data)


def pem(private: Private) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def certificate(private: Private, name: str, issuer: tuple[Private, str] | None = None) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    above = issuer or (private, name)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(above[1]))
        .public_key(private.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=9))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .sign(above[0], hashes.SHA256())
    )


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def entries(more: Mapping[str, JsonValue] = NOTHING) -> dict[str, JsonValue]:
    run: JsonValue = {"name": "web", "config": "c.json"}
    return {
        "#spec": "pantavisor-service-system@1",
        "device.json": {"groups": [{"name": "app"}]},
        "web/run.json": run,
        "web/c.json": {"a": Decimal("1.5"), "b": ["<&>", "ä"]},
        "web/src.json": {"from": "here"},
        "web/root.squashfs": "ab" * 32,
        "_config/web/etc/x": "cd" * 32,
        **more,
    }


def signed(
    private: Private,
    rule: Rule,
    where: str = "_sigs/all.json",
    chain: Any = None,
    more: Mapping[str, JsonValue] = NOTHING,
) -> State:
    content = entries(more)
    content[where] = dict(signing.sign(content, rule, Key(private), chain=chain))
    return state_of(content)


def state_of(content: dict[str, JsonValue]) -> State:
    return parse_state(canonical.dumps(content))


@pytest.mark.parametrize("private", [RSA, P256, P384], ids=["RS256", "ES256", "ES384"])
@pytest.mark.parametrize("include", ["**", "*"])
def test_what_a_client_signs_verifies(private: Private, include: str) -> None:
    rule = Rule((include, "*/*", "_config/**"), ("_sigs/all.json",))
    found = verified(signed(private, rule), Trust(key=pem(private)))
    assert unprotected(found) == ()
    assert found.by["web/root.squashfs"] == ("_sigs/all.json",)


def test_a_signature_in_der_as_devices_of_the_field_expect_it() -> None:
    state = signed(P256, ALL)
    document = signature_in(state)
    raw = jws.unb64url(document["signature"])
    dss = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    assert decode_dss_signature(dss)
    document["signature"] = encode_base64url(dss)
    again = state_of({"#spec": state.spec, **state.entries, "_sigs/all.json": document})
    assert unprotected(verified(again, Trust(key=pem(P256)))) == ()


def test_text_that_is_not_canonical_is_verified_as_it_was_signed() -> None:
    state = signed(P256, ALL)
    loose = json.dumps(json.loads(state.raw), indent=1).encode()
    assert unprotected(verified(parse_state(loose), Trust(key=pem(P256)))) == ()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_change_of_a_state_passes(data: st.DataObject) -> None:
    """Whatever is changed, added or taken away: either a signature breaks, or strict mode names the member."""
    content = {"#spec": STATE.spec, **STATE.entries}
    path = data.draw(st.sampled_from(sorted(content)))
    how = data.draw(st.sampled_from(["drop", "change", "add"]))
    if path in ("#spec", "device.json") and how != "change":
        return
    if how == "drop":
        del content[path]
    elif how == "add":
        content[path + "x.json"] = {}
    elif path == "device.json":
        content[path] = {"groups": [{"name": "app", "timeout": 3}]}
    elif path.startswith("_sigs/") or path == "#spec":
        return
    elif path.endswith(".json"):
        content[path] = {"name": "web", "config": "c.json", "x": 1}
    else:
        content[path] = "ef" * 32
    try:
        state = state_of(content)
        assert unprotected(verified(state, Trust(key=pem(P256))))
    except HostileInputError:
        return


STATE = signed(P256, ALL)


def test_a_large_state_is_covered_to_its_end() -> None:
    """CVE-2026-34155: a signature that counted only up to a length let the rest of a bundle be anything."""
    more: dict[str, JsonValue] = {f"web/file{n:05}": f"{n:064x}" for n in range(6000)}
    state = signed(P256, ALL, more=more)
    assert len(state.raw) > 400_000
    trust = Trust(key=pem(P256))
    assert unprotected(verified(state, trust)) == ()
    for name in ("web/file00000", "web/file03000", "web/file05999"):
        changed = {"#spec": state.spec, **state.entries, name: "f" * 64}
        with pytest.raises(HostileInputError, match="was changed"):
            verified(state_of(changed), trust)


def test_what_an_exclude_names_is_not_covered() -> None:
    """The reference counts it as covered: what stands in an exclude list may be anything there."""
    rule = Rule(("**",), ("_sigs/all.json", "web/root.squashfs", "web/src.json"))
    found = verified(signed(P256, rule), Trust(key=pem(P256)))
    assert found.uncovered == ()
    assert unprotected(found) == ("web/root.squashfs",)


def test_authors_notes_need_no_signature_but_their_namesakes_do() -> None:
    rule = Rule(("*", "web/**"), ("_sigs/all.json", "web/src.json"))
    found = verified(signed(P256, rule, more={"_config/web/src.json": {"x": 1}}), Trust(key=pem(P256)))
    assert unprotected(found) == ("_config/web/etc/x", "_config/web/src.json")


def test_a_signature_of_one_part_says_nothing_of_another() -> None:
    found = verified(signed(P256, signing.part_rule("web")), Trust(key=pem(P256)))
    assert unprotected(found) == ("#spec", "device.json")


def test_one_bad_signature_among_good_ones_is_bad() -> None:
    content = entries()
    content["_sigs/web.json"] = dict(signing.sign(entries(), signing.part_rule("web"), Key(P256), chain=None))
    verified(state_of(content), Trust(key=pem(P256)))
    content["_sigs/x.json"] = dict(signing.sign(entries(), Rule(("device.json",), ()), Key(P384), chain=None))
    with pytest.raises(HostileInputError, match=r"_sigs/x\.json"):
        verified(state_of(content), Trust(key=pem(P256)))


def test_a_signature_that_lies_elsewhere_is_looked_at_too() -> None:
    state = signed(P256, Rule(("web/*",), ("web/sig.json",)), where="web/sig.json")
    with pytest.raises(HostileInputError, match=r"web/sig\.json"):
        verified(state, Trust(key=pem(P384)))


def test_without_trust_nothing_verifies() -> None:
    for trust in (Trust(), Trust(store=b"x"), Trust(key=b"nothing in here")):
        with pytest.raises(HostileInputError, match="public key"):
            verified(STATE, trust)
    chained = signed(P256, ALL, chain=[certificate(P256, "signer")])
    with pytest.raises(HostileInputError, match="trust store is missing"):
        verified(chained, Trust(key=pem(P256)))


def test_a_chain_is_needed_where_certificates_are_given() -> None:
    """A header with certificates is not judged by the bare key, and the key that it brings along is nobody's."""
    root = certificate(RSA, "root")
    leaf = certificate(P256, "signer", (RSA, "root"))
    state = signed(P256, ALL, chain=[leaf])
    assert unprotected(verified(state, Trust(store=pem_of(root)))) == ()
    assert unprotected(verified(state, Trust(store=pem_of(root), at_s=NOW.timestamp()))) == ()
    with pytest.raises(HostileInputError, match="has ended"):
        verified(state, Trust(store=pem_of(root), at_s=(NOW + timedelta(days=10)).timestamp()))
    with pytest.raises(HostileInputError, match="leads to no certificate"):
        verified(state, Trust(key=pem(P256), store=pem_of(certificate(P384, "root"))))
    with pytest.raises(HostileInputError, match="1 to 10"):
        verified(with_header(state, x5c=[]), Trust(key=pem(P256), store=pem_of(root)))


def signature_in(state: State) -> dict[str, Any]:
    document = state.entries["_sigs/all.json"]
    assert isinstance(document, dict)
    return dict(document)


def with_header(state: State, **more: object) -> State:
    document = signature_in(state)
    header = json.loads(jws.unb64url(document["protected"])) | more
    document["protected"] = encode_base64url(json.dumps(header).encode())
    return state_of({"#spec": state.spec, **state.entries, "_sigs/all.json": document})


@pytest.mark.parametrize("more", [{"pvs": {"include": ["web/c.json"], "exclude": []}}, {"alg": "ES384"}, {"kid": "x"}])
def test_a_header_that_was_changed(more: dict[str, object]) -> None:
    with pytest.raises(HostileInputError):
        verified(with_header(STATE, **more), Trust(key=pem(P256)))


def test_the_oem_may_sign_its_own_containers_alone() -> None:
    store, oem_store = pem_of(certificate(P384, "root")), pem_of(certificate(RSA, "oem root"))
    trust = Trust(store=store, oem_name="acme", oem_store=oem_store)
    leaf = certificate(P256, "acme", (RSA, "oem root"))
    part = Rule(("web/**",), ("web/src.json",))
    assert "web/c.json" in verified(signed(P256, part, chain=[leaf]), trust).by
    more: dict[str, JsonValue] = {"acme/default.config": "ee" * 32}
    for rule in (Rule(("**",), ("_sigs/all.json",)), Rule(("acme/**", "web/**"), ())):
        with pytest.raises(HostileInputError, match="leads to no certificate"):
            verified(signed(P256, rule, chain=[leaf], more=more), trust)
    stranger = certificate(P256, "somebody", (RSA, "oem root"))
    with pytest.raises(HostileInputError, match="leads to no certificate"):
        verified(signed(P256, part, chain=[stranger]), trust)


def test_more_signatures_than_are_read() -> None:
    one = STATE.entries["_sigs/all.json"]
    content = entries({f"_sigs/{n}.json": one for n in range(65)})
    with pytest.raises(HostileInputError, match="65 signatures"):
        verified(state_of(content), Trust(key=pem(P256)))
