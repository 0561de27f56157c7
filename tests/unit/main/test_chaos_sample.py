"""A sample of crash states has some of each case, and is the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from brickless.main.chaos import campaign
from brickless.main.chaos.record import Case, Recording
from brickless.testkit.crashlab.writelog import Entry

LONG, SHORT = 300, 4


class Small(Recording):
    """A long case and a short one behind it; each entry is a write of its own sector, and a flush."""

    def entries(self) -> list[Entry]:
        return [Entry(number, bytes([number % 255 + 1]) * 512, True) for number in range(LONG + SHORT)]

    def sector(self, number: int) -> bytes:
        return bytes(512)

    def cases(self) -> list[Case]:
        long, short = Case("long", 0, LONG, ("0",), {}, ()), Case("short", LONG, LONG + SHORT, ("0",), {}, ())
        return [long, short]


def test_a_sample_has_some_of_each_case(tmp_path: Path) -> None:
    recording = Small(tmp_path)
    whole = campaign.plan(recording, sample=None, seed=1)
    assert Counter(case.name for case, _ in whole) == {"long": LONG + 1, "short": SHORT}
    drawn = campaign.plan(recording, sample=40, seed=1)
    assert Counter(case.name for case, _ in drawn)["short"] == SHORT
    assert len(drawn) == 40
    assert drawn == sorted(drawn, key=lambda one: one[1])
    assert drawn == campaign.plan(recording, sample=40, seed=1) != campaign.plan(recording, sample=40, seed=2)
    assert {state for _, state in drawn} <= {state for _, state in whole}
