"""Scopes: what a token may do (contract section 1.10). Pure."""

from __future__ import annotations

from functools import lru_cache

from brickless.hub.domain.errors import ScopeMissing

PREFIX = "prn:pantahub.com:apis:/base/"
ALL = PREFIX + "all"

# (id, description) in the order in which GET /apps/scopes lists them.
BASE: tuple[tuple[str, str], ...] = (
    ("all", "Complete access"),
    ("profile", "Read and write the profile"),
    ("profile.readonly", "Read the profile"),
    ("user.readonly", "Read the account"),
    ("user.write", "Write the account"),
    ("devices", "Read and write devices"),
    ("devices.readonly", "Read devices"),
    ("devices.write", "Write devices"),
    ("devices.change", "Change devices"),
    ("objects", "Read and write objects"),
    ("objects.readonly", "Read objects"),
    ("objects.write", "Write objects"),
    ("objects.change", "Change objects"),
    ("trails", "Read and write trails"),
    ("trails.readonly", "Read trails"),
    ("trails.write", "Write trails"),
    ("trails.change", "Change trails"),
    ("metrics", "Read and write metrics"),
    ("metrics.readonly", "Read metrics"),
    ("metrics.write", "Write metrics"),
    ("metrics.change", "Change metrics"),
)


def _accepted(*words: str) -> tuple[str, ...]:
    return tuple(PREFIX + word for word in ("all", *words))


DEVICES_READ = _accepted("devices", "devices.readonly", "all.readonly")
DEVICES_WRITE = _accepted("devices", "devices.write")
DEVICES_CHANGE = _accepted("devices", "devices.change")
DEVICES_VALIDATE = _accepted("devices", "devices.change", "devices.validate")
TRAILS_READ = _accepted("trails", "trails.readonly")
TRAILS_WRITE = _accepted("trails", "trails.write")
OBJECTS_READ = _accepted("devices", "objects", "objects.readonly")
OBJECTS_WRITE = _accepted("devices", "objects", "objects.write")
PROFILE_READ = _accepted("profile", "profile.readonly")
PROFILE_WRITE = _accepted("profile")
ANY: tuple[str, ...] = ()


def expand(words: str) -> tuple[str, ...]:
    """The scopes of a login's `scope` field: a word without the base prefix gets it."""
    return tuple(word if PREFIX in word else PREFIX + word for word in words.split())


def anonymous(words: str) -> tuple[str, ...]:
    """The scopes that an anonymous visitor keeps of those asked for: read-only ones."""
    return tuple(scope for scope in expand(words) if scope.endswith(".readonly"))


@lru_cache(maxsize=1024)
def split(claim: str) -> frozenset[str]:
    """The scopes of a token's claim; older tokens of applications join them with commas."""
    return frozenset(claim.replace(",", " ").split())


def require(held: frozenset[str], accepted: tuple[str, ...]) -> None:
    """Raise ScopeMissing when none of the accepted scopes is held; an empty `accepted` means no check."""
    if accepted and held.isdisjoint(accepted):
        raise ScopeMissing(accepted)
