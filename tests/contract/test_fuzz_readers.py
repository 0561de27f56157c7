"""A short campaign of foreign bytes against every reader; `make bench B=fuzz-readers` runs long ones."""

from __future__ import annotations

import pytest

from brickless.testkit.fuzz_readers import campaign, targets

# They start from files of which not all are what the reader wants.
NOT_ALL_WHOLE = ("pem", "state", "config", "manifest")


@pytest.mark.parametrize("seed", [1, 2026])
def test_no_bytes_break_a_reader(seed: int) -> None:
    outcome = campaign(seed, inputs=2500)
    assert [(finding.target, finding.reason) for finding in outcome.findings] == []
    assert len(outcome.by_target) == 11
    assert outcome.accepted > 100
    assert outcome.refused > 100


def test_what_the_mutations_start_from_is_good() -> None:
    with targets() as readers:
        for target in readers:
            if target.name not in NOT_ALL_WHOLE:
                for data in target.good:
                    target.read(data)
