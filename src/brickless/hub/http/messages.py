"""Requests and answers as the handlers see them: bounded bodies, parsed queries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_plus

from brickless.hub.domain import jsontext
from brickless.hub.domain.errors import Malformed, TooLarge
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.values import Identity

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: The pieces of an answer that is not one piece.
Body = AsyncGenerator[bytes | bytearray, None] | AsyncGenerator[bytes, None]

MAX_JSON_BYTES = 1024 * 1024
_MAX_QUERY_FIELDS = 100


class ClientGone(Exception):  # noqa: N818 - the ordinary end of a connection
    """The client closed the connection before its body was complete; there is nobody to answer."""


class Request:
    """One request. `path` is still percent-encoded; `params` are decoded except for `%2F`, which stays what it is."""

    __slots__ = (
        "_fields", "_receive", "address", "from_trusted_proxy", "headers", "host", "http_version", "identity",
        "method", "params", "path", "query_string", "route", "scheme", "token",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.method: str = scope["method"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.path = raw_path.decode("latin-1")
        self.query_string: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.http_version: str = scope["http_version"]
        self.scheme: str = scope["scheme"]
        #: Whether the connection comes from one of `--trusted-proxies`; `address` is the client's behind it.
        self.from_trusted_proxy: bool = scope.get("trusted_proxy", False)
        client, server = scope.get("client"), scope.get("server")
        self.address: str = client[0] if client else "local"
        host = self.headers.get(b"host", b"").decode("latin-1")
        self.host = host or (f"{server[0]}:{server[1]}" if server else "localhost")
        self.params: dict[str, str] = {}
        self.identity: Identity | None = None
        self.token = ""
        self.route = ""
        self._receive = receive
        self._fields: list[tuple[str, str]] | None = None

    @property
    def caller(self) -> Identity:
        """Who calls; only for routes that demand a token."""
        if self.identity is None:
            raise RuntimeError(f"the route {self.route} asks for its caller but does not demand a token")
        return self.identity

    def header(self, name: str) -> str | None:
        """A header's value."""
        value = self.headers.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The query's fields in order. Raw characters that should have been escaped are taken as they are."""
        if self._fields is None:
            self._fields = parse_query(self.query_string)
        return self._fields

    def field(self, name: str) -> str | None:
        """The first query field of this name."""
        return next((value for key, value in self.fields if key == name), None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ClientGone when the client leaves in the middle."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body = message.get("body", b"")
            if body:
                yield body
            if not message.get("more_body", False):
                return

    async def gone(self) -> None:
        """Returns when the client has closed the connection; for answers that never end by themselves."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def body(self, max_bytes: int = MAX_JSON_BYTES) -> bytes:
        """The whole body. Raises TooLarge beyond `max_bytes`, before reading it when the client announced its size."""
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > max_bytes:
            raise TooLarge(f"The body is larger than {max_bytes} bytes")
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(f"The body is larger than {max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def json_object(self, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Value]:
        """The body as a JSON object; nothing at all counts as `{}`."""
        return jsontext.parse_object(await self.body(max_bytes), max_bytes=max_bytes)


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Fields of a query string. Raises Malformed beyond a hundred fields."""
    if not raw:
        return []
    pairs = raw.decode("utf-8", "replace").split("&")
    if len(pairs) > _MAX_QUERY_FIELDS:
        raise Malformed(f"The query has more than {_MAX_QUERY_FIELDS} fields")
    fields = (pair.partition("=") for pair in pairs if pair)
    return [(unquote_plus(key, errors="replace"), unquote_plus(value, errors="replace")) for key, _, value in fields]


class Response:
    """An answer. `body` is bytes, or a stream with its exact length in `length`."""

    __slots__ = ("body", "content_type", "headers", "length", "poll", "status")

    def __init__(
        self,
        body: bytes | Body = b"",
        *,
        status: int = 200,
        headers: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/json; charset=utf-8",
        length: int | None = None,
        poll: tuple[str, str, str] | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers
        self.content_type = content_type
        self.length = length
        #: Device, kind and variant of the remembered answer that this is (services.polls).
        self.poll = poll


def ok(value: object) -> Response:
    """An answer in struct JSON: keys as they come, values escaped as the reference does."""
    return Response(jsontext.struct(value))


Handler = Callable[[Request], Awaitable[Response]]
