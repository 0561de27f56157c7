"""HTTP to hubs and devices: bounded answers, retries, and tokens that go to the host they belong to and nowhere else.

A token for the auth endpoint E is sent to a server S only when S is E's own host, or when both are hosts that the user
named (the base URLs). So a foreign server that claims `ph-aeps="<your hub>"` gets nothing (pvr.md 7.1, point 6, is the
reference's leak). Signed URLs of objects carry their own permission and never get a token.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from brickless.core import canonical
from brickless.core.canonical import JsonInput, JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.pvr.auth import Challenge, TokenCache, parse_challenge
from brickless.pvr.env import Env
from brickless.pvr.errors import RefusedError, TransferError
from brickless.pvr.login import Login
from brickless.pvr.pace import Pace

MAX_ANSWER_BYTES = 64 << 20
MAX_ERROR_BYTES = 4096
ATTEMPTS = 5
_BACKOFF_S = 0.5
_MAX_WAIT_S = 60.0
_AGAIN = {429, 502, 503, 504}
# Some hub endpoints refuse requests without one (pvr.md 7).
USER_AGENT = "pvr-brickless"


class Answer:
    """A whole answer: the status, the headers and at most MAX_ANSWER_BYTES of body."""

    __slots__ = ("body", "headers", "status", "url")

    def __init__(self, status: int, headers: httpx.Headers, body: bytes, url: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.url = url

    def json(self) -> JsonValue:
        """The body as JSON. Raises TransferError when it is none."""
        try:
            return canonical.loads(self.body, max_bytes=MAX_ANSWER_BYTES)
        except HostileInputError as error:
            raise TransferError(f"{self.url} answered with something that is no JSON: {error}") from error

    def object(self) -> dict[str, JsonValue]:
        """The body as a JSON object. Raises TransferError when it is none."""
        value = self.json()
        if not isinstance(value, dict):
            raise TransferError(f"{self.url} answered with JSON that is no object.")
        return value

    def expect(self, *statuses: int, what: str) -> Answer:
        """Return itself when the status is one of these; else raise RefusedError with the server's own words."""
        if self.status in statuses:
            return self
        text = self.body[:MAX_ERROR_BYTES].decode(errors="replace").strip()
        raise RefusedError(
            f"{what} failed: {self.url} answered {self.status}",
            status=self.status,
            context=text or "no explanation",
            hint=_STATUS_HINTS.get(self.status, ""),
        )


_STATUS_HINTS = {
    401: "Log in with `pvr login`, or give --user and --password, or --access-token.",
    403: "The account that you are logged in with may not do that (see `pvr whoami`).",
    404: "Check the name; a private device looks as if it did not exist.",
    413: "It is too large for this server, or your quota is used up.",
}


class Client:
    """One run's connections. Thread-safe: parallel transfers share it."""

    def __init__(self, env: Env) -> None:
        """Prepare for the run's settings; connects to nobody yet."""
        self.env = env
        self.stop = threading.Event()
        self.pace = Pace(env.limit_rate, self.stop.wait)
        self._cache = TokenCache(env.config_dir)
        self._login = Login(env, self._cache, self._send)
        self._tokens: dict[str, tuple[Challenge, str]] = {}
        self._named_hosts = {_host(env.api_base), _host(env.repo_base)}
        self._guard = threading.RLock()
        proxy = proxy_of(env)
        self._http = httpx.Client(
            verify=not env.insecure,
            trust_env=env.http_proxy == "system",
            proxy=proxy,
            timeout=httpx.Timeout(env.timeout_s, connect=min(20.0, env.timeout_s)),
            follow_redirects=True,
            max_redirects=10,
            headers={"User-Agent": USER_AGENT},
            limits=httpx.Limits(max_connections=2 * env.parallel),
        )

    def __enter__(self) -> Client:
        """Close the connections at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is still running and close."""
        self.stop.set()
        self._http.close()

    def name_host(self, url: str) -> None:
        """The user named this server on the command line: an --access-token is meant for it."""
        self._named_hosts.add(_host(url))

    # With a token

    def call(
        self,
        method: str,
        url: str,
        *,
        body: JsonInput | bytes = None,
        anonymous: bool = False,
        retry: bool = True,
    ) -> Answer:
        """One API call: first with the token that this host is known to want, then as its challenge demands.

        `anonymous` calls fall back to the hub's guest account. `retry` false: for what must not happen twice.
        """
        token = self._known_token(url)
        answer = self._send(method, url, body=body, token=token, retry=retry)
        if answer.status not in {401, 403} or self.env.access_token:
            return answer
        challenge = parse_challenge(answer.headers.get("www-authenticate"))
        if challenge is None or (answer.status == 403 and token and not challenge.error):
            return answer
        if not self._may_have(url, challenge.endpoint):
            raise _foreign(url, challenge.endpoint, answer.status)
        with self._guard:
            for offer in self._login.offers(challenge, refused=token, anonymous=anonymous):
                answer = self._send(method, url, body=body, token=offer, retry=retry)
                if answer.status not in {401, 403}:
                    self._tokens[_host(url)] = (challenge, offer)
                    return answer
                if answer.status == 403 and parse_challenge(answer.headers.get("www-authenticate")) is None:
                    return answer
        return answer

    def login(self, url: str) -> Answer:
        """Log in anew at `url`'s auth endpoint, whatever is cached; a login that fails leaves the old token alone."""
        first = self._send("GET", url, token="")
        challenge = parse_challenge(first.headers.get("www-authenticate"))
        if challenge is None:
            return first
        if not self._may_have(url, challenge.endpoint):
            raise _foreign(url, challenge.endpoint, first.status)
        answer = first
        for token in self._login.anew(challenge):
            answer = self._send("GET", url, token=token)
            if answer.status == 200:
                break
        return answer

    def call_as(self, user: str, password: str, method: str, url: str, *, body: JsonInput) -> Answer:
        """One call by another account (a device that was just made); its token is not kept anywhere."""
        credentials: JsonInput = {"username": user, "password": password}
        login = self._send("POST", f"{self.env.api_base}/auth/login", body=credentials)
        token = login.expect(200, what=f"Logging in as {user}").object().get("token")
        return self._send(method, url, body=body, token=token if isinstance(token, str) else "", retry=False)

    def _known_token(self, url: str) -> str:
        if self.env.access_token:
            return self.env.access_token if _host(url) in self._named_hosts else ""
        with self._guard:
            challenge, token = self._tokens.get(_host(url), (None, ""))
        return token if challenge is not None and self._may_have(url, challenge.endpoint) else ""

    def _may_have(self, url: str, endpoint: str) -> bool:
        if urlsplit(endpoint).scheme == "https" and urlsplit(url).scheme != "https":
            return False
        both = {_host(url), _host(endpoint)}
        return len(both) == 1 or both <= self._named_hosts

    # Without

    def _send(
        self,
        method: str,
        url: str,
        *,
        body: JsonInput | bytes = None,
        token: str = "",
        retry: bool = True,
    ) -> Answer:
        content, headers = _content(body)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        for attempt in range(ATTEMPTS):
            last = attempt + 1 == ATTEMPTS
            try:
                with self.stream(method, url, headers=headers, content=content) as response:
                    data = _bounded(response, url)
                    answer = Answer(response.status_code, response.headers, data, url)
            except httpx.ConnectError as error:
                if last:
                    raise _unreachable(url, error) from error
            except httpx.HTTPError as error:
                if last or not retry:
                    raise _unreachable(url, error) from error
            else:
                again = answer.status in _AGAIN and (retry or answer.status in {429, 503})
                if last or not again:
                    return answer
                self.pause(attempt, answer.headers.get("retry-after"))
                continue
            self.pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: Any = None
    ) -> Iterator[httpx.Response]:
        """One request whose answer is read piece by piece. No token, no retry. Raises httpx.HTTPError."""
        self.env.trace(f"{method} {url.partition('/local-s3/')[0]}")
        with self._http.stream(method, url, headers=headers, content=content) as response:
            self.env.trace(f"{response.status_code} {response.reason_phrase}")
            yield response

    def pause(self, attempt: int, retry_after: str | None = None) -> None:
        """Wait before the next attempt: longer each time, with jitter; as long as the server says. Ctrl-C ends it."""
        wait_s = min(_BACKOFF_S * 2**attempt, _MAX_WAIT_S) * (0.5 + random.random())  # noqa: S311 - jitter, no secret
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            wait_s = min(float(retry_after), _MAX_WAIT_S)
            self.env.say(f'Endpoint reported "Not ready"; retry in: {retry_after} seconds')
        if self.stop.wait(wait_s):
            raise KeyboardInterrupt


def proxy_of(env: Env) -> str | None:
    """The proxy that --http-proxy names, None for `system` and `no`. Raises UserError when it is none of them."""
    if env.http_proxy in {"system", "no", ""}:
        return None
    parts = urlsplit(env.http_proxy)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            "http-proxy",
            f"--http-proxy {env.http_proxy!r} is no proxy.",
            hint="Use system, no, or a URL as in http://proxy.example.org:3128.",
        )
    return env.http_proxy


def _foreign(url: str, endpoint: str, status: int) -> RefusedError:
    return RefusedError(
        f"{url} asks for your token of {endpoint}, which is another host: it was not sent.",
        status=status,
        hint="If both belong to one hub, name it with --baseurl (PVR_BASEURL).",
    )


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _content(body: JsonInput | bytes) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    data = body if isinstance(body, bytes) else canonical.dumps(body)
    return data, {"Content-Type": "application/json"}


def _bounded(response: httpx.Response, url: str) -> bytes:
    parts: list[bytes] = []
    total = 0
    for chunk in response.iter_bytes():
        total += len(chunk)
        if total > MAX_ANSWER_BYTES:
            raise TransferError(f"{url} answered with more than {MAX_ANSWER_BYTES} bytes.")
        parts.append(chunk)
    return b"".join(parts)


def _unreachable(url: str, error: httpx.HTTPError) -> TransferError:
    host = urlsplit(url).netloc
    return TransferError(
        f"{host} could not be reached: {error or type(error).__name__}",
        context=f"after {ATTEMPTS} attempts",
        hint="Check the address, the network and --http-proxy; run the same command again to go on.",
    )
