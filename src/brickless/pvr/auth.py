"""Tokens: the cache file that the field's client shares, and what a server's challenge says (pvr.md 2.2, 7.1)."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.store import atomic
from brickless.store.jsontext import escaped_text
from brickless.store.lock import lock
from brickless.store.repo import RepositoryError

_MAX_BYTES = 4 << 20
_LOCK_TIMEOUT_S = 10.0
_PARAMETER = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"([^"]*)"|([^",\s]+))')


class Challenge(NamedTuple):
    """A 401's demand: where to log in, and for which realm. `error` means that the token itself was refused."""

    endpoint: str
    realm: str
    error: str

    @property
    def key(self) -> str:
        """The name of the token in the cache."""
        return f"{self.endpoint} realm={self.realm}"


def parse_challenge(header: str | None) -> Challenge | None:
    """Read `WWW-Authenticate`; None when it is not the hub's kind (`JWT` or `Bearer` with `ph-aeps`)."""
    if header is None or header.partition(" ")[0].lower() not in {"jwt", "bearer"}:
        return None
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(header)}
    endpoint = found.get("ph-aeps", "").split(",")[0].strip().rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return None
    return Challenge(endpoint, found.get("realm", ""), found.get("error", ""))


class Token(NamedTuple):
    """An access token and what refreshes it. Its text form shows neither."""

    access: str
    refresh: str

    def __repr__(self) -> str:
        """Secrets do not get into tracebacks and logs."""
        return "Token(***)"


class TokenCache:
    """`<config-dir>/auth.json`, 0600; entries of other endpoints and unknown members stay as they are."""

    def __init__(self, config_dir: str) -> None:
        """Use the file below this folder; nothing is read or made yet."""
        self._dir = config_dir
        self._path = os.path.join(config_dir, "auth.json")
        self._guard = threading.Lock()

    def _load(self) -> dict[str, JsonValue]:
        try:
            with open(self._path, "rb") as file:
                document = canonical.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return {"spec": "1", "tokens": {}}
        except HostileInputError as error:
            raise RepositoryError(
                f"{self._path} is damaged: {error}", hint="Remove it and run `pvr login` again."
            ) from error
        if not isinstance(document, dict) or not isinstance(document.get("tokens", {}), dict):
            raise RepositoryError(f"{self._path} holds no tokens.", hint="Remove it and run `pvr login` again.")
        document.setdefault("tokens", {})
        return document

    def endpoints(self) -> dict[str, Token]:
        """Every cached token by its key."""
        tokens = self._load()["tokens"]
        assert isinstance(tokens, dict)  # noqa: S101 - `_load` sees to it
        return {key: _token(value) for key, value in tokens.items() if isinstance(value, dict)}

    def get(self, key: str) -> Token | None:
        """The token for a key."""
        token = self.endpoints().get(key)
        return token if token is not None and token.access else None

    def put(self, key: str, token: Token) -> None:
        """Store a token, atomically and readable by its owner only."""
        value: JsonValue = {"Name": "", "access-token": token.access, "refresh-token": token.refresh}
        with self._changing() as tokens:
            tokens[key] = value

    def forget(self, which: Callable[[str], bool]) -> list[str]:
        """Remove the tokens of the endpoints for which `which` holds; their keys."""
        if not self.endpoints():
            return []
        with self._changing() as tokens:
            gone = sorted(key for key in tokens if which(key.partition(" realm=")[0]))
            for key in gone:
                del tokens[key]
        return gone

    @contextmanager
    def _changing(self) -> Iterator[dict[str, JsonValue]]:
        """The tokens, to be changed: written back at the end, in one step."""
        with self._guard:
            atomic.make_dirs(self._dir, mode=0o700)
            with lock(os.path.join(self._dir, "auth.lock"), timeout_s=_LOCK_TIMEOUT_S):
                document = self._load()
                tokens = document["tokens"]
                assert isinstance(tokens, dict)  # noqa: S101 - `_load` sees to it
                yield tokens
                data = escaped_text(document, indent="    ").encode()
                atomic.write_file(self._path, data, mode=0o600)


def _token(value: dict[str, JsonValue]) -> Token:
    access, refresh = value.get("access-token"), value.get("refresh-token")
    return Token(access if isinstance(access, str) else "", refresh if isinstance(refresh, str) else "")
