"""The route of /exports (contract section 6.6)."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.values import Identity
from brickless.hub.http.messages import Body, Request, Response
from brickless.hub.http.router import PATCH_METHODS, Route, Service
from brickless.hub.services.exports import Exports

_FILE_NAME = re.compile(r"[A-Za-z0-9._+@=-]{1,200}\Z")
_MAX_PARTS = 100


class ExportRoutes:
    """Handler of /exports. Nobody needs a token for what is public."""

    def __init__(self, exports: Exports, optional_identity: Callable[[Request], Awaitable[Identity | None]]) -> None:
        self._exports = exports
        self._optional_identity = optional_identity

    def service(self) -> Service:
        """The route."""
        route = Route(
            "GET", "{owner}/{device}/{rev}/{filename}", self.export, public=True, summary="A revision as a tar file"
        )
        return Service("/exports/", (route,), methods=PATCH_METHODS)

    async def export(self, request: Request) -> Response:
        """GET /exports/{owner}/{device}/{rev}/{filename}: compressed when the file's name says so."""
        caller = await self._optional_identity(request)
        name = request.params["filename"]
        if not _FILE_NAME.match(name):
            raise Malformed("A file name has letters, digits and any of . _ + @ = -")
        parts = tuple(filter(None, (request.field("parts") or "").split(",")))
        if len(parts) > _MAX_PARTS:
            raise Malformed(f"'parts' lists more than {_MAX_PARTS}")
        params = request.params
        export = await self._exports.find(caller, params["owner"], params["device"], params["rev"], parts)
        stream = self._exports.stream(export)
        if name.lower().endswith((".gz", ".tgz")):
            stream = _compressed(stream)
        headers = (
            ("Content-Disposition", f"attachment; filename={name}"),
            ("Pragma", "no-cache"),
            ("Expires", "0"),
        )
        return Response(stream, headers=headers, content_type="application/octet-stream")


async def _compressed(stream: Body) -> AsyncGenerator[bytes, None]:
    """gzip without a time or a name in its head: the same revision gives the same bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    async for chunk in stream:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()
