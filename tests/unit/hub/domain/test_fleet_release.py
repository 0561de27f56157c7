"""Releases: what is taken out of a state, what a device's own state becomes, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.signature import encode_base64url
from brickless.hub.domain.errors import Malformed, Unprocessable
from brickless.hub.domain.fleet import Release
from brickless.hub.domain.fleet_release import (
    applied,
    content_id,
    covered_by,
    cut,
    fit,
    has,
    overlap,
    packed,
    taken_back,
)

SPEC = {"#spec": "pantavisor-service-system@1"}


def signed(*include: str) -> dict[str, Any]:
    header = {"typ": "PVS", "alg": "ES256", "pvs": {"include": list(include), "exclude": []}}
    return {"#spec": "pvs@2", "protected": encode_base64url(json.dumps(header).encode()), "signature": "AAAA"}


STATE: dict[str, Any] = {
    **SPEC,
    "web/a.json": {"v": 1},
    "web/b.json": {"v": 1},
    "_config/web/c.json": {"v": 1},
    "db/d.json": {"v": 1},
    "_sigs/web.json": signed("web/**", "_config/web/**"),
    "_sigs/db.json": signed("db/**"),
}


def release(state: dict[str, Any], fragment: str, **more: Any) -> Release:
    content = cut(state, fragment, **more)
    return Release(
        content_id(content, ()), "o", "n", "", content.include, content.remove, (), packed(content), 0, "", "", 0
    )


def test_signatures_of_the_parts_travel_along() -> None:
    made = release(STATE, "#web,_config/web")
    assert made.include == ("web", "_config/web", "_sigs/web.json")
    assert set(json.loads(made.state)) == {"web/a.json", "web/b.json", "_config/web/c.json", "_sigs/web.json"}


def test_a_signature_that_covers_more_is_refused_or_left_behind() -> None:
    with pytest.raises(Unprocessable, match=r"_sigs/web\.json covers _config/web"):
        cut(STATE, "web")
    assert set(cut(STATE, "web", allow_unsigned=True).entries) == {"web/a.json", "web/b.json"}


@pytest.mark.parametrize("text", ["web,,db", "web,-", ",".join(f"p{n}" for n in range(300))])
def test_fragments_that_cannot_be_read(text: str) -> None:
    with pytest.raises(Malformed):
        cut(STATE, text)


def test_a_part_that_the_state_has_not() -> None:
    with pytest.raises(Unprocessable, match="nothing at other"):
        cut(STATE, "db,other")


def test_a_release_replaces_whole_parts_and_leaves_the_rest() -> None:
    new = {**SPEC, "web/a.json": {"v": 2}, "_config/web/c.json": {"v": 2}}
    after = applied(STATE, release(new, "web,_config/web"))
    assert "web/b.json" not in after
    assert "_sigs/web.json" not in after  # it covered what is gone, and nothing else
    assert after["web/a.json"] == {"v": 2}
    assert (after["db/d.json"], after["_sigs/db.json"]) == (STATE["db/d.json"], STATE["_sigs/db.json"])


def test_an_own_signature_over_more_than_the_parts_is_not_broken() -> None:
    own = {**STATE, "_sigs/all.json": signed("web/**", "db/**")}
    with pytest.raises(Unprocessable, match=r"_sigs/all\.json covers web"):
        applied(own, release({**SPEC, "web/a.json": {"v": 2}}, "web"))


def test_parts_are_removed() -> None:
    after = applied(STATE, release(STATE, "-db"))
    assert not [path for path in after if path.startswith("db/")]
    assert after["web/a.json"] == {"v": 1}


def test_the_way_back_restores_the_former_parts_and_keeps_what_came_since() -> None:
    made = release({**SPEC, "web/a.json": {"v": 2}}, "web")
    own = {key: value for key, value in STATE.items() if key != "_sigs/web.json"}
    after = {**applied(own, made), "later.json": {"v": 1}}
    assert has(after, made)
    assert taken_back(after, own, made) == {**own, "later.json": {"v": 1}}


def test_a_signature_that_went_with_its_part_comes_back_with_it() -> None:
    made = release({**SPEC, "web/a.json": {"v": 2}, "_config/web/c.json": {"v": 2}}, "web,_config/web")
    assert taken_back(applied(STATE, made), STATE, made) == STATE


@pytest.mark.parametrize(
    ("left", "right", "overlaps", "covered"),
    [
        ("web", "web", True, True),
        ("web,_config/web", "web", True, False),
        ("web", "web,_config/web", True, True),
        ("web", "db", False, False),
        ("", "db", True, False),
        ("db", "", True, True),
    ],
)
def test_overlap(left: str, right: str, overlaps: bool, covered: bool) -> None:
    one, other = release(STATE, left, allow_unsigned=True), release(STATE, right, allow_unsigned=True)
    assert overlap(one, other) is overlap(other, one) is overlaps
    assert covered_by(one, other) is covered


def test_the_name_is_the_content() -> None:
    assert release(STATE, "db").id == release(json.loads(json.dumps(STATE)), "#db").id
    assert release(STATE, "db").id != release({**STATE, "db/d.json": {"v": 2}}, "db").id
    assert content_id(cut(STATE, "db"), ()) != content_id(cut(STATE, "db"), ("rpi4",))


def test_what_a_device_would_refuse_does_not_fit() -> None:
    assert fit({**SPEC, "a.json": {}}, max_bytes=1000).state is not None
    assert "more than" in fit({**SPEC, "a.json": {"x": "y" * 2000}}, max_bytes=1000).reason
    assert "refuse" in fit({**SPEC, "a": "no object"}, max_bytes=1000).reason
    assert "refuse" in fit({**SPEC, "web/run.json": {"type": "unheard-of"}}, max_bytes=1000).reason


_NAMES = st.sampled_from(["web/a.json", "web/b.json", "db/a.json", "_config/web/a.json", "net/a.json"])
_STATES = st.dictionaries(_NAMES, st.fixed_dictionaries({"v": st.integers(0, 3)}), min_size=1)


@given(_STATES, _STATES, st.sampled_from(["web", "web,_config/web", "db,net", "-db", "web,-net"]))
def test_there_and_back_is_where_we_were(own: dict[str, Any], new: dict[str, Any], parts: str) -> None:
    try:
        made = release({**SPEC, **new}, parts)
    except Unprocessable:
        return
    before = {**SPEC, **own}
    after = applied(before, made)
    assert has(after, made)
    assert taken_back(after, before, made) == before
    assert applied(after, made) == after
