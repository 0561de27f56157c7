"""Requests made from the hub's own description and from hostile values: whatever they say, never a 500.

BRICKLESS_FUZZ_EXAMPLES says how many; the default keeps the tier short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision

EXAMPLES = int(os.environ.get("BRICKLESS_FUZZ_EXAMPLES", "400"))
HOSTILE = [
    "", "0", "-1", "1", "x", "..", "%00", "a/b", "\u0000", "\ud7ff", "'; --", "${x}", "{}", "[]", '{"$in":[]}', "!",
    "^", "9" * 30, "1e9", "NaN", "prn:::accounts:/x", "prn:a:b:/c", "0" * 24, "0" * 64, "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01", "true", "null", "-timestamp", "+rev,-state",
    "é\u2028<&>",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    SCALARS | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


class Fuzzed:
    """The hub, its description, callers, and values that are right."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        nobody = Caller(client)
        user = nobody.login("user1", "user1")
        device = claimed_device(user).start_trail()
        sha = user.upload(b"fuzzed")
        post_revision(user, device.id, {"#spec": SPEC, "a": sha})
        self.tokens = ["", user.token, device.token, nobody.login("admin", "admin").token, "garbage"]
        self.right = [device.id, sha, "1", "user1", SPEC, user.post("/devices/tokens").json()["id"]]
        # Without what would end the fuzzing: its own device and objects must stay.
        kept = {"DELETE /devices/{id}", "PUT /devices/{id}"}
        self.operations = [
            (method.upper(), path, operation)
            for path, methods in client.get("/swagger/doc.json").json()["paths"].items()
            for method, operation in methods.items()
            if f"{method.upper()} {path}" not in kept
        ]


def fill(draw: st.DrawFn, fuzzed: Fuzzed) -> tuple[str, str, bytes | None, str]:
    """A request: method, target, body, token."""
    method, path, operation = draw(st.sampled_from(fuzzed.operations))
    values = st.sampled_from(fuzzed.right) | st.sampled_from(HOSTILE) | st.text(max_size=20)
    query = []
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(draw(values), safe=""))
        elif draw(st.booleans()):
            query.append(f"{quote(parameter['name'])}={quote(draw(values))}")
    target = path + ("?" + "&".join(query) if query else "")
    return method, target, draw(bodies(operation, values)), draw(st.sampled_from(fuzzed.tokens))


def bodies(operation: dict[str, Any], values: st.SearchStrategy[str]) -> st.SearchStrategy[bytes | None]:
    """Nothing, noise, any JSON, or the described members with any values."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    members = dict.fromkeys(content.get("properties", {}), JSON | values)
    described = st.fixed_dictionaries({}, optional=members) | st.dictionaries(values, JSON, max_size=3)
    as_json = (described | JSON).map(lambda value: json.dumps(value).encode())
    return st.none() | st.binary(max_size=40) | as_json


def test_no_request_makes_a_500(hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url, timeout=20) as client:
        fuzzed = Fuzzed(client)

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def request(data: st.DataObject) -> None:
            method, target, body, token = data.draw(st.composite(lambda draw: fill(draw, fuzzed))())
            headers = {"User-Agent": "fuzz", **({"Authorization": f"Bearer {token}"} if token else {})}
            with client.stream(method, target, content=body, headers=headers) as answer:
                # A stream of events is right and has no end.
                if answer.headers["content-type"].startswith("text/event-stream"):
                    return
                answer.read()
            # 501 is what the wire says to devices that ask for subscriptions (contracts/hub.md): an answer, no crash.
            assert answer.status_code < 500 or answer.status_code == 501, (method, target, body, answer.text)
            if answer.headers["content-type"].startswith("application/json") and answer.content:
                json.loads(answer.content)

        request()
    assert "Traceback" not in Path(f"{hub.data_dir}.log").read_text()
