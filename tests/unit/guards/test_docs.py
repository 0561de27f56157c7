"""The documents lead where they say: every relative link has a target, every `make` target exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    page for page in ROOT.rglob("*.md") if not {".venv", ".cache", "node_modules"} & set(page.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"`make ([a-z-]+)[ `]", page.read_text()):
        assert name in targets, f"{page.name} says `make {name}`, which is not in the Makefile"


def test_the_page_of_faults_is_made_from_the_tests() -> None:
    done = subprocess.run([ROOT / "tools" / "faults-page", "--check"], check=False)
    assert done.returncode == 0, "run tools/faults-page"
