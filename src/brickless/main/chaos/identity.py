"""A device that was claimed knows who it is, after any power cut: without its secret its owner would lose it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brickless.testkit.crashlab import inspect

FILES = ("config/pantahub.config", "config/unclaimed.config")
KEYS = (b"PH_CREDS_PRN=", b"PH_CREDS_SECRET=", b"PH_CREDS_ID=")
SITE_KEY = b"PH_CREDS_HOST="


def check_identity(image: Path) -> Sequence[str]:
    """What is missing of the device's credentials, or of what its installation gave it."""
    found = inspect.contents(image, FILES)
    if not any(SITE_KEY in content for content in found.values()):
        return ["the address of the hub is gone from the configuration"]
    whole = [content for content in found.values() if all(key in content for key in KEYS)]
    return [] if whole else [f"the device's credentials are gone: {sorted(found)} do not have all of them"]
