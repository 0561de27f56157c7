"""Names of images: `registry:port/path/name:tag@sha256:…`, short names of Docker Hub, and nothing that could be a path.

Source: the grammar of the distribution project's reference package, and contract pvr.md 4.2 (where the reference client
splits at any colon, we split a tag only behind the last slash).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from brickless.core.errors import UserError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_BYTES = 1024
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One image in one registry. `tag` is empty when only a digest was given; `familiar` is the name as typed."""

    registry: str
    repository: str
    tag: str
    digest: str
    familiar: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference. Raises `UserError` that says which part is wrong."""
        if len(text) > MAX_BYTES:
            raise UserError("image-reference", f"an image reference of {len(text)} characters is too long")
        name, at, digest = text.partition("@")
        if at and not DIGEST.fullmatch(digest):
            raise _wrong(text, f"{digest!r} is no digest (sha256: and 64 hexadecimal digits)")
        name, tag = _split_tag(name)
        if tag is not None and not TAG.fullmatch(tag):
            raise _wrong(text, f"{tag!r} is no tag")
        registry, repository = _split_registry(name)
        if not REGISTRY.fullmatch(registry):
            raise _wrong(text, f"{registry!r} is no registry host")
        if not REPOSITORY.fullmatch(repository):
            raise _wrong(text, f"{repository!r} is no repository name (lower case letters, digits, '.', '_', '-', '/')")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, repository, tag if tag is not None else ("" if digest else DEFAULT_TAG), digest, name)

    @property
    def host(self) -> str:
        """Where the registry answers: Docker Hub's is not its name."""
        return "registry-1.docker.io" if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Reference:
        """The same image, pinned."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        """The reference in its familiar spelling."""
        text = self.familiar + (f":{self.tag}" if self.tag else "")
        return f"{text}@{self.digest}" if self.digest else text


def _wrong(text: str, reason: str) -> UserError:
    hint = "A reference looks like nginx:1.27, host:5000/team/app:v2 or name@sha256:…"
    return UserError("image-reference", f"{text!r} is no image reference: {reason}", hint=hint)


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail:
        return name, None  # the colon belongs to a port
    return head, tail


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
        if first in ("index.docker.io", "registry-1.docker.io"):
            first = DEFAULT_REGISTRY
        return first, rest
    return DEFAULT_REGISTRY, name
