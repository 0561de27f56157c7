"""How a token is come by, in order: the cache, a refresh, --user and --password, the guest account, a question."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from brickless.core.canonical import JsonValue
from brickless.pvr.auth import Challenge, Token, TokenCache
from brickless.pvr.env import Env
from brickless.pvr.errors import RefusedError, TransferError

if TYPE_CHECKING:
    from brickless.pvr.http import Answer

_ANONYMOUS = "prn:pantahub.com:auth:/anon"
_ANONYMOUS_SCOPE = "devices.readonly objects.readonly trails.readonly"
_QUESTIONS = 3


class Login:
    """Finds tokens for challenges. The guest's token is kept in memory only: it must not take a user's place."""

    def __init__(self, env: Env, cache: TokenCache, send: Callable[..., Answer]) -> None:
        """`send(method, url, body=, token=)` makes one request without further logins."""
        self._env = env
        self._cache = cache
        self._send = send
        self._guests: dict[str, str] = {}

    def offers(self, challenge: Challenge, *, refused: str, anonymous: bool) -> Iterator[str]:
        """Tokens to try, best first; stop when one works. `refused` is the one that just failed."""
        cached = self._cache.get(challenge.key)
        if cached is not None:
            if cached.access != refused:
                yield cached.access
            fresh = self._refresh(challenge, cached)
            if fresh:
                yield fresh
        if self._env.user and self._env.password:
            yield self.with_password(challenge, self._env.user, self._env.password)
            return
        guest = self._guest(challenge) if anonymous else ""
        if guest:
            yield guest
        if sys.stdin.isatty():
            yield from self._ask(challenge)

    def anew(self, challenge: Challenge) -> Iterator[str]:
        """Tokens of a new login only: --user and --password, else a question on a terminal."""
        if self._env.user and self._env.password:
            yield self.with_password(challenge, self._env.user, self._env.password)
        elif sys.stdin.isatty():
            yield from self._ask(challenge)

    def _refresh(self, challenge: Challenge, token: Token) -> str:
        answer = self._send("GET", f"{challenge.endpoint}/login", token=token.refresh or token.access)
        if answer.status != 200:
            return ""
        fresh = _token_of(answer)
        self._cache.put(challenge.key, Token(fresh, fresh))
        return fresh

    def with_password(self, challenge: Challenge, user: str, password: str) -> str:
        """Log in and cache the token. Raises RefusedError when the hub says no."""
        body: JsonValue = {"username": user, "password": password, "scope": ""}
        answer = self._send("POST", f"{challenge.endpoint}/login", body=body)
        if answer.status != 200:
            raise RefusedError(
                f"failed to Login: {challenge.endpoint} refused user {user!r}",
                status=answer.status,
                context=answer.body[:500].decode(errors="replace").strip(),
                hint="Check user and password.",
            )
        token = _token_of(answer)
        self._cache.put(challenge.key, Token(token, token))
        return token

    def _guest(self, challenge: Challenge) -> str:
        if challenge.key not in self._guests:
            body: JsonValue = {"username": _ANONYMOUS, "password": _ANONYMOUS, "scope": _ANONYMOUS_SCOPE}
            answer = self._send("POST", f"{challenge.endpoint}/login", body=body)
            self._guests[challenge.key] = _token_of(answer) if answer.status == 200 else ""
        return self._guests[challenge.key]

    def _ask(self, challenge: Challenge) -> Iterator[str]:
        import getpass

        for _ in range(_QUESTIONS):
            title = f"*** Login @ {challenge.endpoint} (realm={challenge.realm}) ***"
            print(title, file=sys.stderr)
            print("Username: ", end="", file=sys.stderr, flush=True)
            user = sys.stdin.readline().strip()
            if not user:
                return
            password = getpass.getpass("Password: ", stream=sys.stderr)
            try:
                yield self.with_password(challenge, user, password)
            except RefusedError as error:
                print(error, file=sys.stderr)


def _token_of(answer: Answer) -> str:
    token = answer.object().get("token")
    if not isinstance(token, str) or not token:
        raise TransferError(f"{answer.url} answered a login without a token.")
    return token
