"""One cache of artefacts for all tests in machines, and one booted device that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickless.main.artefacts import Artefacts
from brickless.main.lab import Lab, LabDevice
from brickless.main.story import Story
from brickless.main.talk import Talk
from brickless.testkit.registry import Registry

CACHE = Path(__file__).parents[2] / ".cache"


@pytest.fixture(scope="session")
def artefacts() -> Artefacts:
    """What devices boot, made once."""
    return Artefacts(CACHE)


@pytest.fixture(scope="session")
def lab(artefacts: Artefacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A hub that lives as long as the tests."""
    with Lab(tmp_path_factory.mktemp("lab") / "state", artefacts, Talk()) as one:
        yield one


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A registry that lives as long as the tests."""
    with Registry() as one:
        yield one


@pytest.fixture(scope="session")
def device(lab: Lab) -> LabDevice:
    """A registered device that runs its factory revision, shared: a test leaves it running and with its hub."""
    one = lab.add("shared")
    lab.register(one)
    return one


@pytest.fixture(scope="session")
def story(lab: Lab, registry: Registry, device: LabDevice) -> Story:
    """The device's working copy; the images web:1 to web:3 are pushed, web:1 runs."""
    one = Story(lab, registry, lab.talk)
    one.build_images()
    one.clone(device)
    one.add_app(device)
    return one


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print past pytest's capture: for figures that people read."""

    def write(text: str) -> None:
        with capfd.disabled():
            print(text, flush=True)

    return write
