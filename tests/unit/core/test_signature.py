"""Coverage and signing input of signatures, and headers that lie."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.core.errors import HostileInputError
from brickless.core.signature import (
    Dialect,
    Rule,
    Signature,
    coverage,
    decode_base64url,
    encode_base64url,
    find_signatures,
    match_device,
    parse_signature,
    payload,
    payload_of_text,
    select,
    signing_input,
    source_members,
)

HEADER: dict[str, Any] = {"alg": "RS256", "pvs": {"include": ["web/**"], "exclude": ["web/src.json"]}, "typ": "PVS"}
ENTRIES: dict[str, canonical.JsonValue] = {
    "#spec": "pantavisor-service-system@1",
    "_sigs/web.json": {},
    "web/root.squashfs": "a" * 64,
    "web/src.json": {},
    "web2/x.json": {},
}


def signed(header: object = HEADER, **more: object) -> dict[str, Any]:
    protected = encode_base64url(header if isinstance(header, bytes) else json.dumps(header).encode())
    return {"#spec": "pvs@2", "protected": protected, "signature": "AAAA", **more}


def test_a_signature_is_read() -> None:
    found = parse_signature("_sigs/web.json", signed())
    assert found.rule == Rule(("web/**",), ("web/src.json",))
    assert (found.alg, found.signature, found.x5c) == ("RS256", b"\0\0\0", None)
    assert signing_input(found, b"{}") == f"{found.protected}.e30".encode()
    assert find_signatures({"elsewhere/x.json": signed(), "y.json": {"#spec": "other"}}) == (
        found._replace(path="elsewhere/x.json"),
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"#spec": "pvs@1"},
        {"#spec": "pvs@2"},
        {"#spec": "pvs@2", "protected": 1, "signature": ""},
        {"#spec": "pvs@2", "protected": "!!", "signature": "AAAA"},
        {"#spec": "pvs@2", "protected": "e30=", "signature": "AAAA"},
        {"#spec": "pvs@2", "protected": "A" * 200_000, "signature": "AAAA"},
        signed(b"[]"),
        signed(b"{"),
        signed(b'{"alg":"RS256","alg":"none"}'),
        signed({**HEADER, "alg": "none"}),
        signed({**HEADER, "alg": "HS256"}),
        signed({**HEADER, "typ": "JWT"}),
        signed({**HEADER, "crit": ["x"]}),
        signed({**HEADER, "pvs": {"include": ["**"]}}),
        signed({**HEADER, "pvs": {"include": [1], "exclude": []}}),
        signed({**HEADER, "pvs": {"include": ["x"] * 300, "exclude": []}}),
        signed({**HEADER, "x5c": "MII"}),
        signed({**HEADER, "x5c": ["not base64!"]}),
        signed({**HEADER, "x5c": ["AAAA"] * 20}),
        signed(signature="#"),
        "text",
    ],
)
def test_malformed_signatures_are_refused(bad: Any) -> None:
    with pytest.raises(HostileInputError, match=r"_sigs/x\.json"):
        parse_signature("_sigs/x.json", bad)


@pytest.mark.parametrize(
    ("pattern", "path", "device", "client"),
    [
        ("**", "web/x", False, True),
        ("web/**", "web/a/b", True, True),
        ("web/**", "web", True, False),
        ("web/**", "web2/a", False, False),
        ("**/x", "a/x", True, True),
        ("**/x", "x", False, True),
        ("**/x", "a/b/x", False, True),
        ("*/**", "a/b/c", True, True),
        ("#spec", "#spec", True, True),
        ("{a,b}/x", "a/x", False, True),
        ("_sigs/*.json", "_sigs/a.json", True, True),
    ],
)
def test_the_two_dialects(pattern: str, path: str, device: bool, client: bool) -> None:
    assert match_device(pattern, path) is device
    assert bool(select([path], Rule((pattern,)), Dialect.CLIENT)[0]) is client


def test_coverage() -> None:
    web = parse_signature("_sigs/web.json", signed())
    other = Signature("_sigs/other.json", "", b"", "RS256", Rule(("web/root.squashfs", "#spec"), ()), None)
    made = coverage(ENTRIES, [web, other], Dialect.DEVICE)
    assert made.protected == ("#spec", "web/root.squashfs")
    assert made.by["web/root.squashfs"] == ("_sigs/web.json", "_sigs/other.json")
    assert made.excluded == ("web/src.json",)
    assert made.excluded_by == {"web/src.json": ("_sigs/web.json",)}
    assert made.notseen == ("_sigs/web.json", "web2/x.json")
    assert made.uncovered == ("web2/x.json",)
    assert made.unprotected == ("web/src.json", "web2/x.json")
    many = Signature("x", "", b"", "RS256", Rule(("*",) * 256, ()), None)
    with pytest.raises(HostileInputError):
        coverage({str(n): {} for n in range(2000)}, [many] * 20, Dialect.DEVICE)


def test_the_device_s_payload_is_the_text() -> None:
    raw = b'{ "b.json" : {"x": 1.50 , "y":"\\u00e9"},"a.json":[ ],"c" : "no" }'
    assert payload_of_text(raw, ["a.json", "b.json"]) == b'{"b.json":{"x": 1.50 , "y":"\\u00e9"},"a.json":[ ]}'
    assert list(source_members(b"{}")) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=6), st.data())
def test_both_payloads_agree_on_canonical_states(entries: dict[str, Any], data: st.DataObject) -> None:
    raw = canonical.dumps(entries)
    value = canonical.loads(raw)
    assert isinstance(value, dict)
    covered = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    assert payload_of_text(raw, covered) == payload(value, covered)


@given(st.binary(min_size=1, max_size=40))
def test_base64url(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data)) == data
