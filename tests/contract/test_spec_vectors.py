"""The golden vectors of spec/vectors against core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brickless.core import canonical, glob, merge

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"


def vectors(name: str) -> list[Any]:
    lines = (VECTORS / f"{name}.jsonl").read_text().split("\n")
    return [pytest.param(line, id=str(number)) for number, line in enumerate(lines, 1) if line]


@pytest.mark.parametrize("line", vectors("canonical-json"))
def test_canonical_json(line: str) -> None:
    vector = json.loads(line)
    made = canonical.dumps(canonical.loads(vector["input"]))
    assert made.decode() == vector["canonical"]
    assert canonical.dumps(canonical.loads(made)) == made


@pytest.mark.parametrize("line", vectors("merge-patch"))
def test_merge_patch(line: str) -> None:
    vector = canonical.loads(line)
    assert isinstance(vector, dict)
    base, target = vector["base"], vector["target"]
    patch = merge.diff(base, target)
    assert canonical.equal(patch, vector["diff"])
    assert canonical.equal(merge.apply(base, patch), vector["base_plus_diff"])
    assert canonical.equal(merge.apply(base, target), vector["base_plus_target"])


@pytest.mark.parametrize("line", vectors("glob"))
def test_glob(line: str) -> None:
    vector = json.loads(line)
    assert vector["error"] is None
    assert glob.match(vector["pattern"], vector["path"]) is vector["match"]
