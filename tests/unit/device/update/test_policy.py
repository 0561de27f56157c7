"""What cannot be verified is never called verified: strict refuses it, the weaker modes say so."""

from __future__ import annotations

import base64
import json

import pytest

from brickless.core.progress import Message
from brickless.core.state import State, parse_state
from brickless.device.update.policy import judge


def state(**header: object) -> State:
    """A state, with a signature when there is a header."""
    value: dict[str, object] = {"#spec": "pantavisor-service-system@1", "note.json": {"a": 1}}
    if header:
        protected = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        value["_sigs/web.json"] = {"#spec": "pvs@2", "protected": protected, "signature": "AAAA"}
    return parse_state(json.dumps(value).encode())


SIGNED = {"alg": "RS256", "typ": "PVS", "pvs": {"include": ["web/**"], "exclude": []}}


@pytest.mark.parametrize("header", [{}, SIGNED], ids=["unsigned", "signed"])
def test_strict_refuses_what_it_cannot_check(header: dict[str, object]) -> None:
    verdict = judge(state(**header), "strict")
    assert verdict.message == Message.BAD_SIGNATURE
    assert "cannot verify" in verdict.detail


@pytest.mark.parametrize("mode", ["audit", "lenient"])
def test_weaker_modes_say_what_they_carry_along(mode: str) -> None:
    assert judge(state(), mode) == ("", "")
    verdict = judge(state(**SIGNED), mode)
    assert verdict.message == ""
    assert "1 signatures (_sigs/web.json) are carried along and not verified" in verdict.detail


@pytest.mark.parametrize("mode", ["audit", "lenient"])
def test_a_malformed_signature_is_refused(mode: str) -> None:
    verdict = judge(state(alg="none", typ="PVS"), mode)
    assert verdict.message == Message.BAD_SIGNATURE
    assert "_sigs/web.json" in verdict.detail


def test_disabled_looks_at_nothing() -> None:
    assert judge(state(alg="none"), "disabled") == ("", "")
