"""The hub's rules, without a server: named good and bad inputs."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.hub.domain import filters, jsontext, metas, objects, petnames, prn, progress, scopes
from brickless.hub.domain.errors import Conflict, Malformed, ScopeMissing, TooLarge, Unprocessable
from brickless.hub.domain.identity import from_claims
from brickless.hub.domain.state import check, parse_body

SPEC = "pantavisor-service-system@1"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class TestPrn:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("prn:::devices:/abc", ("api.pantahub.com", "devices", "abc")),
            ("prn:pantahub.com:auth:/user1", ("pantahub.com", "auth", "user1")),
        ],
    )
    def test_good(self, text: str, expected: tuple[str, str, str]) -> None:
        assert prn.parse(text) == expected

    @pytest.mark.parametrize(
        "text", ["", "prn", "prn:::devices", "prn:::devices:abc", "urn:::devices:/a", "prn:a:b:c:/d"]
    )
    def test_bad(self, text: str) -> None:
        with pytest.raises(Malformed):
            prn.parse(text)

    @pytest.mark.parametrize("text", ["0" * 24, "0123456789abcdef01234567"])
    def test_ids(self, text: str) -> None:
        assert prn.device_id(prn.device(text)) == text

    @pytest.mark.parametrize("text", ["", "0" * 23, "0" * 25, "A" * 24, "g" * 24, "0" * 24 + "\n"])
    def test_bad_ids(self, text: str) -> None:
        assert not prn.is_id(text)
        assert prn.device_id(f"prn:::devices:/{text}") is None


class TestScopes:
    def test_words_get_the_base_prefix_once(self) -> None:
        assert scopes.expand(f"devices {scopes.ALL}") == (scopes.PREFIX + "devices", scopes.ALL)

    def test_anonymous_keeps_what_only_reads(self) -> None:
        kept = scopes.anonymous("devices.readonly all devices.readonly.x objects.write")
        assert kept == (scopes.PREFIX + "devices.readonly",)

    def test_require(self) -> None:
        scopes.require(frozenset({scopes.ALL}), scopes.TRAILS_WRITE)
        scopes.require(frozenset(), scopes.ANY)
        with pytest.raises(ScopeMissing) as caught:
            scopes.require(scopes.split(f"{scopes.PREFIX}trails.readonly,x"), scopes.TRAILS_WRITE)
        assert caught.value.accepted == scopes.TRAILS_WRITE


class TestStates:
    def test_the_empty_state(self) -> None:
        assert parse_body(b" \n", max_bytes=10) == check({})
        assert check({}).sha == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

    def test_objects_are_named_once_and_sorted(self) -> None:
        value: dict[str, Any] = {"#spec": SPEC, "b": "b" * 64, "a": "a" * 64, "c": "b" * 64, "x.json": "text"}
        assert check(value).objects == ("a" * 64, "b" * 64)

    @pytest.mark.parametrize("older", ["pantavisor-multi-platform@1", "pantavisor-service-embed@1"])
    def test_older_formats_are_stored_for_the_devices_that_read_them(self, older: str) -> None:
        assert check({"#spec": older, "a": "a" * 64}).objects == ("a" * 64,)

    @pytest.mark.parametrize(
        "value",
        [{"a": "b"}, {"#spec": "x"}, {"#spec": None}, {"#spec": SPEC, "/a": "a" * 64}, {"#spec": SPEC, "a": "A" * 64}],
    )
    def test_refused(self, value: Any) -> None:
        with pytest.raises(Unprocessable):
            check(value)


class TestStatusFilters:
    @pytest.mark.parametrize(
        ("text", "accepted", "refused"),
        [
            ("DONE", "DONE", "NEW"),
            ('{"$in":["NEW","QUEUED"]}', "QUEUED", "DONE"),
            ('{"$nin":["NEW"]}', "DONE", "NEW"),
            ('{"$ne":"DONE"}', "NEW", "DONE"),
            ('{"$eq":"DONE"}', "DONE", "NEW"),
        ],
    )
    def test_good(self, text: str, accepted: str, refused: str) -> None:
        found = filters.parse_status(text)
        assert (found.accepts(accepted), found.accepts(refused)) == (True, False)

    @pytest.mark.parametrize("text", ["{", "{}", '{"$in":"x"}', '{"$in":[1]}', '{"$regex":"x"}', '{"a":1,"$in":[]}'])
    def test_bad(self, text: str) -> None:
        with pytest.raises(Malformed):
            filters.parse_status(text)

    @pytest.mark.parametrize("text", ["-1", "x", "1.5", "٣", "9" * 20])
    def test_bad_page_numbers(self, text: str) -> None:
        with pytest.raises(Malformed):
            filters.page_number(text, "page", default=1, maximum=10)

    def test_page_numbers_are_clamped(self) -> None:
        assert filters.page_number("3000", "page", default=1, maximum=500) == 500


class TestRanges:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-", (0, 10)), ("bytes=3-", (3, 7)), ("bytes=0-0", (0, 1)), ("bytes=2-99", (2, 8)),
            ("bytes=-4", (6, 4)), ("bytes=-99", (0, 10)), ("Bytes = 1-2", (1, 2)),
            (None, None), ("bytes=1-2,4-5", None), ("bytes=5-2", None), ("items=0-1", None), ("bytes=a-b", None),
            ("bytes=-", None),
        ],
    )  # fmt: skip
    def test_ten_bytes(self, header: str | None, expected: tuple[int, int] | None) -> None:
        assert objects.parse_range(header, 10) == expected

    @pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
    def test_behind_the_end(self, header: str) -> None:
        with pytest.raises(ValueError, match="range"):
            objects.parse_range(header, 10)

    @given(st.text(max_size=30), st.integers(0, 1000))
    def test_no_text_leads_outside(self, text: str, size_bytes: int) -> None:
        try:
            found = objects.parse_range(f"bytes={text}", size_bytes)
        except ValueError:
            return
        if found is not None:
            assert 0 <= found.start < found.start + found.length <= size_bytes


class TestProgress:
    def test_what_is_unknown_is_kept_and_what_is_known_is_typed(self) -> None:
        body: dict[str, Any] = {"status": "DONE", "progress": Decimal("100"), "retries": 3, "extra": {"a": 1}}
        stored = progress.normalise(body)
        assert (stored["progress"], stored["retries"], stored["extra"]) == (100, 3, {"a": 1})
        assert stored["downloads"] == progress.fresh("NEW")["downloads"]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"status": ""},
            {"status": 1},
            {"status": "x" * 65},
            {"status": "A", "progress": "5"},
            {"status": "A", "retries": True},
        ],
    )
    def test_refused(self, body: Any) -> None:
        with pytest.raises(Malformed):
            progress.normalise(body)

    def test_logs_are_cut(self) -> None:
        assert len(str(progress.normalise({"status": "ERROR", "logs": "x" * 200_000})["logs"])) == 64 * 1024

    @pytest.mark.parametrize(("action", "current"), [("cancel", "DONE"), ("wontgo", "NEW")])
    def test_too_late(self, action: str, current: str) -> None:
        with pytest.raises(Conflict):
            progress.by_owner(action, current)


class TestJson:
    def test_struct_style_escapes_as_the_reference(self) -> None:
        value = {"b": '<a href="x">&\u2028\u00e9', "a": [1, Decimal("1.5"), Decimal("1E+2"), True, None]}
        expected = r'{"b":"\u003ca href=\"x\"\u003e\u0026\u2028é","a":[1,1.5,100,true,null]}'
        assert jsontext.struct(value).decode() == expected

    @given(st.dictionaries(st.text(), JSON))
    def test_stored_text_survives(self, value: dict[str, Any]) -> None:
        text = jsontext.stored(value)
        assert jsontext.load_stored(text) == canonical.loads(canonical.dumps(value))
        assert json.loads(jsontext.struct_from_stored(text)) == json.loads(jsontext.struct_map(value))

    @given(st.dictionaries(st.text(), JSON))
    def test_canonical_objects_are_canonical(self, value: dict[str, Any]) -> None:
        assert jsontext.canonical_object(value.items()) == canonical.dumps(value)

    def test_limits(self) -> None:
        with pytest.raises(TooLarge):
            jsontext.parse(b"[1,2,3]", max_bytes=3)
        with pytest.raises(Malformed):
            jsontext.parse(b"[" * 40 + b"]" * 40, max_bytes=100)


class TestMetas:
    def test_null_deletes(self) -> None:
        assert metas.patched({"a": 1, "b": 2}, {"a": None, "c": 3}) == {"b": 2, "c": 3}

    def test_the_device_wins(self) -> None:
        assert metas.merged_user_meta({"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}

    def test_bounds(self) -> None:
        with pytest.raises(TooLarge):
            metas.bounded({str(number): 1 for number in range(2001)})
        with pytest.raises(TooLarge):
            metas.bounded({"a": "x" * (512 * 1024)})


@given(st.integers(min_value=0))
def test_pet_names_are_three_words(number: int) -> None:
    words = petnames.words(number)
    assert len(words) == 3
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_pet_names_differ() -> None:
    assert petnames.COUNT > 1_000_000
    assert len({petnames.words(number) for number in range(0, petnames.COUNT, 997)}) == len(
        range(0, petnames.COUNT, 997)
    )


def test_impersonation_keeps_the_outer_name() -> None:
    inner = {"prn": "p", "type": "USER", "nick": "b", "id": "x", "scopes": ""}
    found = from_claims({"prn": "q", "type": "USER", "nick": "a", "exp": 5, "orig_iat": 1, "call-as": inner})
    assert (found.prn, found.nick, found.expires_s) == ("p", "a==>b", 5)
