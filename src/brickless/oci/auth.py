"""Who we are to a registry: explicit names, `~/.docker/config.json`, credential helpers. Secrets stay out of `repr`.

Source: Docker's `config.json` (auths, credHelpers, credsStore) and the docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from brickless.core.errors import UserError
from brickless.linux import process

HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
HELPER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
HELPER_TIMEOUT_S = 60.0
MAX_CONFIG_BYTES = 1 << 20
# What a helper answers when it has nothing: an ordinary answer, no failure (client/credentials of docker's helpers).
NOT_FOUND = "credentials not found"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name with its secret; `identity_token` instead of a password when a registry issued one."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """Credentials by registry, as docker and podman keep them. `environment` is for the helpers (their HOME)."""

    auths: Mapping[str, object] = field(default_factory=dict, repr=False)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path, environment: Mapping[str, str] | None = None) -> DockerConfig:
        """Read a config file; an absent one is empty. Raises `UserError` for one that is damaged."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls(environment=environment or {})
        try:
            if len(data) > MAX_CONFIG_BYTES:
                raise ValueError(f"{len(data)} bytes")
            document = json.loads(data)
            auths, helpers = document.get("auths", {}), document.get("credHelpers", {})
            store = document.get("credsStore") or ""
            if not isinstance(auths, dict) or not isinstance(helpers, dict) or not isinstance(store, str):
                raise ValueError("its members have other types than docker's")
        except (ValueError, AttributeError) as error:
            raise UserError("docker-config", f"{path} is no docker configuration: {error}") from error
        return cls(auths, {str(k): str(v) for k, v in helpers.items()}, store, environment or {})

    def find(self, registry: str) -> Credentials | None:
        """The credentials for a registry (`docker.io`, `host:port`), None for an anonymous visit."""
        keys = HUB_KEYS if registry == "docker.io" else (registry, f"https://{registry}", f"http://{registry}")
        for key in keys:
            if key in self.helpers:
                return self._ask(self.helpers[key], key)
        for key in keys:
            entry = self.auths.get(key) or self.auths.get(key + "/v1/") or self.auths.get(key + "/v2/")
            if isinstance(entry, dict) and (found := _decode(entry, registry)) is not None:
                return found
        if self.store:
            for key in keys[:1]:
                return self._ask(self.store, key)
        return None

    def _ask(self, helper: str, key: str) -> Credentials | None:
        if not HELPER_NAME.fullmatch(helper):
            raise UserError("docker-config", f"{helper!r} is no name of a credential helper")
        program = f"docker-credential-{helper}"
        purpose = f"ask {program} for the credentials of {key}"
        done = process.run(
            [program, "get"],
            purpose=purpose,
            timeout_s=HELPER_TIMEOUT_S,
            input=key.encode(),
            env=self.environment,
            check=False,
        )
        answer = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            if NOT_FOUND in answer:
                return None
            raise UserError(
                "credential-helper", f"cannot {purpose}: {answer or done.stderr.decode('utf-8', 'replace')}"
            )
        try:
            document = json.loads(answer)
            name, secret = str(document["Username"]), str(document["Secret"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("credential-helper", f"{program} answered something that is no credential") from error
        return Credentials("", "", secret) if name == "<token>" else Credentials(name, secret)


def _decode(entry: Mapping[str, object], registry: str) -> Credentials | None:
    token = str(entry.get("identitytoken") or "")
    name, secret = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            name, _, secret = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UserError("docker-config", f"the credentials of {registry} in config.json are not base64") from error
    if not (name or token):
        return None
    return Credentials(name, secret.rstrip("\0"), token)
