"""Signatures over parts of a state: what they cover, what verifies, and that no check passes on less than it says."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.core.signature import Dialect, Rule, parse_signature, select
from brickless.pvr import jws, signing
from brickless.pvr.signers import FileSigner
from brickless.pvr.signing import Trust

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
SHA = "a" * 64
STATE: dict[str, JsonValue] = {
    "#spec": "pantavisor-service-system@1",
    "_config/web/etc/motd": SHA,
    "_config/web2/etc/motd": SHA,
    "bsp/kernel.img": SHA,
    "web/root.squashfs": SHA,
    "web/run.json": {"name": "web", "Entrypoint": None},
    "web/src.json": {"docker_name": "nginx"},
    "web2/run.json": {"name": "web2"},
}


def issue(name: str, key: jws.PrivateKey, issuer: tuple[x509.Certificate, jws.PrivateKey] | None) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


CA = issue("ca", P384, None)
LEAF = issue("leaf", RSA, (CA, P384))
CA_TRUST = Trust(roots=(CA,))


def signed(part: str = "web", **rule: object) -> tuple[str, dict[str, JsonValue]]:
    made = signing.part_rule(part, **rule)  # type: ignore[arg-type]  # plain values that the test knows
    return signing.signature_path(part), signing.sign(STATE, made, FileSigner(RSA), chain=[LEAF])


def reforged(document: dict[str, JsonValue], **changes: object) -> dict[str, JsonValue]:
    """The same rule with another header, signed again by the right key: only the header's rules can refuse it."""
    header = json.loads(jws.unb64url(str(document["protected"]))) | changes
    protected = jws.b64url(json.dumps({key: value for key, value in header.items() if value != "absent"}).encode())
    rule = Rule(tuple(header["pvs"]["include"]), tuple(header["pvs"]["exclude"] or ()))
    payload = canonical.dumps({path: STATE[path] for path in covered(STATE, rule)})
    data = f"{protected}.{jws.b64url(payload)}".encode()
    return document | {"protected": protected, "signature": jws.b64url(jws.sign(RSA, data))}


def covered(entries: dict[str, JsonValue], rule: Rule) -> list[str]:
    return sorted(select(entries, rule, Dialect.CLIENT)[0])


def test_a_part_rule_covers_the_part_and_its_configuration_and_no_neighbour() -> None:
    rule = signing.part_rule("web")
    assert rule == Rule(("web/**", "_config/web/**"), ("web/src.json", "_sigs/web.json"))
    assert covered(STATE, rule) == ["_config/web/etc/motd", "web/root.squashfs", "web/run.json"]
    assert signing.part_rule("web/", config=False).include == ("web/**",)
    assert signing.part_rule("web", include=["run.json"], exclude=["x"]).include == ("web/run.json", "_config/web/**")


def test_a_raw_rule_takes_its_own_signature_out() -> None:
    assert signing.raw_rule("all") == Rule(("**",), ("src.json", "_sigs/all.json"))
    assert covered({"_sigs/all.json": {}, "a/src.json": {}}, signing.raw_rule("all")) == ["a/src.json"]


@pytest.mark.parametrize("key", [RSA, P256, P384], ids=["RS256", "ES256", "ES384"])
@pytest.mark.parametrize("with_payload", [False, True])
def test_what_was_signed_verifies(key: jws.PrivateKey, with_payload: bool) -> None:
    document = signing.sign(STATE, signing.part_rule("web"), FileSigner(key), chain=None, with_payload=with_payload)
    assert ("payload" in document) is with_payload
    verdict = signing.verify(STATE, "_sigs/web.json", document, Trust(keys=(key.public_key(),)), at=NOW)
    assert verdict.valid, verdict.reason
    found = signing.cover(STATE, [verdict])
    assert found.protected == ("_config/web/etc/motd", "web/root.squashfs", "web/run.json")
    assert found.excluded == ("web/src.json",)


def test_the_header_is_compact_and_its_members_are_in_order() -> None:
    _, document = signed()
    text = jws.unb64url(str(document["protected"])).decode()
    assert list(json.loads(text)) == ["alg", "jwk", "pvs", "typ", "x5c"]
    assert list(json.loads(text)["pvs"]) == ["include", "exclude"]
    assert " " not in text
    no_chain = signing.header_bytes(RSA.public_key(), Rule(("a&b/**",), ()), None).decode()
    assert "x5c" not in no_chain
    assert '"a\\u0026b/**"' in no_chain
    assert signing.header_bytes(RSA.public_key(), Rule((), ()), []).decode().endswith('"x5c":null}')


def test_a_chain_leads_to_a_trusted_ca_or_nowhere() -> None:
    path, document = signed()
    assert signing.verify(STATE, path, document, CA_TRUST, at=NOW).signer == "CN=leaf"
    other = issue("ca", P256, None)
    assert not signing.verify(STATE, path, document, Trust(roots=(other,)), at=NOW).valid
    late = signing.verify(STATE, path, document, CA_TRUST, at=NOW + timedelta(days=60))
    assert "not valid at" in late.reason
    assert not signing.verify(STATE, path, document, Trust(), at=NOW).valid, "no trust at all must not verify"


def test_without_a_chain_a_certificate_of_the_pool_may_sign_itself() -> None:
    document = signing.sign(STATE, signing.part_rule("web"), FileSigner(RSA), chain=None)
    assert signing.verify(STATE, "s.json", document, Trust(roots=(CA, LEAF)), at=NOW).valid
    assert "no trusted certificate" in signing.verify(STATE, "s.json", document, CA_TRUST, at=NOW).reason


def test_a_header_cannot_vouch_for_itself() -> None:
    mallory = rsa.generate_private_key(65537, 2048)
    document = signing.sign(STATE, signing.part_rule("web"), FileSigner(mallory), chain=None)
    assert not signing.verify(STATE, "s.json", document, CA_TRUST, at=NOW).valid
    forged = signing.sign(STATE, signing.part_rule("web"), FileSigner(mallory), chain=[issue("ca", mallory, None)])
    assert not signing.verify(STATE, "s.json", forged, CA_TRUST, at=NOW).valid


# A check never passes on a subset by accident (the lesson of CVE-2026-34155).


@pytest.mark.parametrize(
    "change",
    [
        {"web/root.squashfs": "b" * 64},
        {"web/run.json": {"name": "web"}},
        {"web/run.json": {"name": "web", "Entrypoint": None, "roles": ["mgmt"]}},
        {"web/added.squashfs": SHA},
        {"_config/web/etc/shadow": SHA},
        {"web/root.squashfs": None},
    ],
    ids=["object", "null-dropped", "member-added", "file-added", "config-added", "file-removed"],
)
def test_any_change_of_what_is_covered_breaks_the_signature(change: dict[str, JsonValue]) -> None:
    path, document = signed()
    state = {key: value for key, value in (STATE | change).items() if value is not None}
    verdict = signing.verify(state, path, document, CA_TRUST, at=NOW)
    assert not verdict.valid
    assert verdict.signature is None


def test_a_change_outside_the_rule_breaks_nothing_and_is_not_protected() -> None:
    path, document = signed()
    state = STATE | {"web2/run.json": {"name": "mallory"}, "web/src.json": {}}
    verdict = signing.verify(state, path, document, CA_TRUST, at=NOW)
    assert verdict.valid
    found = signing.cover(state, [verdict])
    assert "web2/run.json" in found.notseen
    assert "web/src.json" in found.excluded


def test_a_payload_in_the_file_is_never_what_is_verified() -> None:
    rule = signing.part_rule("web")
    document = signing.sign(STATE, rule, FileSigner(RSA), chain=[LEAF], with_payload=True)
    changed = STATE | {"web/root.squashfs": "b" * 64}
    verdict = signing.verify(changed, "s.json", document, CA_TRUST, at=NOW)
    assert not verdict.valid
    assert "payload" in verdict.reason
    standard = base64.b64encode(jws.unb64url(str(document["payload"]))).decode().rstrip("=")
    assert signing.verify(STATE, "s.json", document | {"payload": standard}, CA_TRUST, at=NOW).valid


def test_an_invalid_signature_protects_nothing_in_the_coverage() -> None:
    path, document = signed()
    verdicts = [
        signing.verify(STATE, path, document | {"signature": jws.b64url(bytes(256))}, CA_TRUST, at=NOW),
        signing.verify(STATE, "_sigs/web2.json", signed("web2")[1], CA_TRUST, at=NOW),
    ]
    found = signing.cover(STATE, verdicts)
    assert found.protected == ("_config/web2/etc/motd", "web2/run.json")
    assert found.uncovered == (
        "#spec",
        "_config/web/etc/motd",
        "bsp/kernel.img",
        "web/root.squashfs",
        "web/run.json",
        "web/src.json",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"typ": "JWT"}, "typ must be PVS"),
        ({"typ": "absent"}, "typ must be PVS"),
        ({"alg": "none"}, "alg one of RS256"),
        ({"alg": "HS256"}, "alg one of RS256"),
        ({"alg": "ES256"}, "does not fit"),
        ({"alg": ["RS256"]}, "alg one of RS256"),
        ({"crit": ["b64"], "b64": False}, "critical extensions"),
        ({"pvs": {"include": ["web/**"], "exclude": [], "more": 1}}, ""),
        ({"x5c": []}, "x5c"),
        ({"x5c": ["!!"]}, "x5c"),
        ({"x5c": "MII"}, "x5c"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_headers_are_read_strictly(changes: dict[str, object], reason: str) -> None:
    verdict = signing.verify(STATE, "s.json", reforged(signed()[1], **changes), CA_TRUST, at=NOW)
    if not reason:
        assert verdict.valid, verdict.reason
    else:
        assert not verdict.valid
        assert reason in verdict.reason


@pytest.mark.parametrize(
    "rule",
    [
        None,
        [],
        {},
        {"include": ["web/**"]},
        {"include": "web/**", "exclude": []},
        {"include": [1], "exclude": []},
        {"include": ["[web/**"], "exclude": []},
        {"include": ["a"] * 5000, "exclude": []},
        {"include": ["{a,b}" * 20], "exclude": []},
    ],
    ids=["null", "list", "empty", "no-exclude", "text", "number", "open-class", "many", "explosive"],
)
def test_a_rule_that_cannot_be_read_covers_nothing(rule: object) -> None:
    header = json.loads(jws.unb64url(str(signed()[1]["protected"]))) | {"pvs": rule}
    document: dict[str, JsonValue] = {
        "#spec": "pvs@2",
        "protected": jws.b64url(json.dumps(header).encode()),
        "signature": jws.b64url(bytes(256)),
    }
    verdict = signing.verify(STATE, "s.json", document, CA_TRUST, at=NOW)
    assert not verdict.valid
    assert verdict.signature is None


def test_a_header_with_two_rules_is_refused() -> None:
    header = (
        '{"alg":"RS256","pvs":{"include":["web/**"],"exclude":[]},"typ":"PVS","pvs":{"include":["x"],"exclude":[]}}'
    )
    document: dict[str, JsonValue] = {
        "#spec": "pvs@2",
        "protected": jws.b64url(header.encode()),
        "signature": jws.b64url(bytes(256)),
    }
    assert "twice" in signing.verify(STATE, "s.json", document, CA_TRUST, at=NOW).reason


def test_a_state_that_two_readers_read_differently_is_refused() -> None:
    with pytest.raises(HostileInputError, match="twice"):
        signing.read_state(b'{"#spec":"x","a/run.json":{},"a/run.json":{"roles":["mgmt"]}}')


# Making


def test_a_rule_that_covers_nothing_is_not_signed() -> None:
    with pytest.raises(UserError) as caught:
        signing.sign(STATE, signing.part_rule("wbe"), FileSigner(RSA))
    assert caught.value.id == "signature-covers-nothing"


def test_a_chain_of_another_key_is_not_put_into_the_header() -> None:
    with pytest.raises(UserError) as caught:
        signing.sign(STATE, signing.part_rule("web"), FileSigner(P256), chain=[LEAF])
    assert caught.value.id == "signing-chain-foreign"


def test_an_answer_that_does_not_verify_is_not_written() -> None:
    class Liar(FileSigner):
        def sign(self, data: bytes) -> bytes:
            return bytes(256)

    with pytest.raises(UserError) as caught:
        signing.sign(STATE, signing.part_rule("web"), Liar(RSA))
    assert caught.value.id == "signer-answer-wrong"


def test_entries_that_devices_select_otherwise_are_named() -> None:
    assert signing.device_hazards(STATE, signing.part_rule("web")) == ()
    assert signing.device_hazards(STATE, signing.raw_rule("all")) == tuple(sorted(STATE.keys() - {"src.json"}))
    assert signing.device_hazards(STATE, Rule(("{web,web2}/run.json",), ())) == ("web/run.json", "web2/run.json")


def test_a_state_that_is_not_canonical_is_other_bytes_to_a_device() -> None:
    signature = signing.verify(STATE, "s.json", signed()[1], CA_TRUST, at=NOW).signature
    assert signature is not None
    assert not signing.text_differs(canonical.dumps(STATE), STATE, signature)
    assert signing.text_differs(json.dumps(STATE).encode(), STATE, signature)


# Real signatures


@pytest.mark.needs("shared")
def test_real_signatures_verify_except_the_one_that_was_edited(shared_fixtures: Path) -> None:
    good, bad = set(), set()
    for path in sorted(shared_fixtures.glob("*.json")):
        entries = signing.read_state(path.read_bytes())
        for name, document in signing.signatures_of(entries).items():
            signature = parse_signature(name, document)
            chain = jws.parse_x5c([base64.b64encode(der).decode() for der in signature.x5c or ()])
            leaf = chain[0]
            # The developer CA is not among the fixtures: the leaf stands in, at a time when it was valid.
            verdict = signing.verify(
                entries, name, document, Trust(roots=(leaf,)), at=leaf.not_valid_before_utc + timedelta(days=1)
            )
            (good if verdict.valid else bad).add((name, signature.protected, signature.signature))
            rebuilt = signing.header_bytes(leaf.public_key(), signature.rule, chain)  # type: ignore[arg-type]  # plain values that the test knows
            assert jws.b64url(rebuilt) == signature.protected, "our header is not theirs, byte for byte"
    assert {name for name, *_ in bad} == {"_sigs/_hostconfig.json"}
    assert len(good) == 11


# Properties

NAMES = st.sampled_from(["web", "web2", "bsp", "_config", "a", "run.json", "src.json", "x.img"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STATES = st.dictionaries(PATHS, st.one_of(st.just(SHA), st.integers(), st.text(max_size=4)), min_size=1, max_size=8)
PATTERNS = st.lists(st.one_of(PATHS, PATHS.map(lambda p: p + "/**"), st.just("**"), st.just("*/run.json")), max_size=3)


@given(STATES, PATTERNS, PATTERNS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_signature_holds_exactly_as_long_as_the_covered_entries_stay(
    entries: dict[str, JsonValue], include: list[str], exclude: list[str], data: st.DataObject
) -> None:
    rule = Rule(tuple(include), tuple(exclude))
    if not covered(entries, rule):
        return
    document = signing.sign(entries, rule, FileSigner(P256), chain=None)
    path = data.draw(st.sampled_from(sorted(entries)))
    changed = entries | {path: "changed " + str(entries[path])}
    verdict = signing.verify(changed, "s.json", document, Trust(keys=(P256.public_key(),)), at=NOW)
    assert verdict.valid is (path not in covered(entries, rule))
    found = signing.cover(entries, [verdict])
    assert sorted([*found.protected, *found.excluded, *found.notseen]) == sorted(entries)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_the_reader_fail_or_pass(data: st.DataObject) -> None:
    _, document = SIGNED
    key = data.draw(st.sampled_from(["protected", "signature"]))
    raw = bytearray(str(document[key]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    text = raw.decode("latin-1")
    verdict = signing.verify(STATE, "s.json", document | {key: text}, CA_TRUST, at=NOW)
    assert verdict.valid is (text == document[key])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["alg", "jwk", "pvs", "typ", "x5c", "crit"]), JSON), JSON)
@settings(max_examples=150, deadline=None)
def test_no_header_makes_the_reader_fail_or_pass(header: dict[str, JsonValue], payload: JsonValue) -> None:
    document: dict[str, JsonValue] = {
        "#spec": "pvs@2",
        "protected": jws.b64url(json.dumps(header | {"typ": "PVS"}).encode()),
        "signature": "",
        "payload": payload,
    }
    assert not signing.verify(STATE, "s.json", document, CA_TRUST, at=NOW).valid


SIGNED = signed()


def test_the_tree_of_an_unsigned_state_is_all_unseen() -> None:
    assert signing.cover(STATE, []).notseen == tuple(sorted(STATE))
