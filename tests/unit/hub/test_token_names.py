"""A token that nobody named gets a name, also when the words that chance chose are taken."""

from __future__ import annotations

from typing import Any

import pytest

READ = ["prn:pantahub.com:apis:/base/devices.readonly"]


def test_words_that_are_taken_get_a_longer_name(in_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        monkeypatch.setattr(type(here.hub.parts.entropy), "pet_name", lambda _self, _separator: "the_same_words")
        made = [(await here.call("POST", "/tokens/", {"scopes": READ}, token=user)).json()["name"] for _ in range(3)]
        assert made[0] == "the_same_words"
        assert len(set(made)) == 3
        taken = await here.call("POST", "/tokens/", {"scopes": READ, "name": "the_same_words"}, token=user)
        assert taken.status_code == 409

    in_hub(scenario)
