"""Names that the hub gives: two that are the same must not cost anybody a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from brickless.hub.adapters.runtime import SystemEntropy


def test_a_claim_survives_a_pet_name_that_the_owner_has_already(
    in_hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemEntropy, "pet_name", lambda _self, separator: separator.join(("only", "one", "name")))

    async def scenario(here: Any) -> list[str]:
        token = await here.login("user1", "user1")
        nicks = []
        for _ in range(3):
            record = (await here.call("POST", "/devices/")).json()
            claimed = await here.call("PUT", f"/devices/{record['id']}?challenge={record['challenge']}", token=token)
            assert claimed.status_code == 200, claimed.text
            nicks.append(claimed.json()["nick"])
        return nicks

    nicks = in_hub(scenario)
    assert nicks[0] == "only_one_name"
    assert len(set(nicks)) == 3
