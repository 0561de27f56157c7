"""The routes of /objects, and the signed URLs below /local-s3 and /s3 (contract section 4)."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from brickless.hub.domain import jsontext, scopes
from brickless.hub.domain.errors import Refusal, Unavailable
from brickless.hub.domain.jsontext import text_field
from brickless.hub.domain.objects import parse_range, parse_request
from brickless.hub.http import encoding
from brickless.hub.http.errors import STATUS
from brickless.hub.http.messages import ClientGone, Handler, Request, Response
from brickless.hub.http.router import Route, Service
from brickless.hub.services.objects import Access, Objects


def access_response(access: Access, base_url: str, *, canonical: bool = False, status: int = 200) -> Response:
    """An object with its URLs and the header that says whether it is linked."""
    body = encoding.object_access(access, base_url, canonical=canonical)
    return Response(body, status=status, headers=(("Pantahub-Object-Type", access.kind),))


class ObjectRoutes:
    """Handlers of /objects."""

    def __init__(self, objects: Objects, base_url: Callable[[Request], str], auth_status: Handler) -> None:
        self._auth_status = auth_status
        self._objects = objects
        self._base_url = base_url

    def service(self) -> Service:
        """The routes."""
        read, write = scopes.OBJECTS_READ, scopes.OBJECTS_WRITE
        routes = (
            Route("GET", "", self.list, read, summary="The caller's objects"),
            Route("POST", "", self.register, write, summary="Announce an object: 200 upload it, 409 it is there"),
            Route("GET", "auth_status", self._auth_status, summary="The claims of the token"),
            Route("GET", "{sha}", self.get, read, summary="One object with signed URLs"),
            Route("GET", "{sha}/blob", self.blob, read, summary="A redirect to the bytes"),
            Route("PUT", "{sha}", self.rename, write, summary="Rename an object"),
            Route("DELETE", "{sha}", self.delete, write, summary="Forget an object that no revision names"),
        )
        return Service("/objects/", routes)

    def _access(self, request: Request, record: object) -> Access:
        return self._objects.access(request.caller, record, f"{self._base_url(request)}/objects")  # type: ignore[arg-type]  # callers give an object's record

    async def list(self, request: Request) -> Response:
        """GET /objects/."""
        found = await self._objects.of(request.caller)
        return Response(jsontext.canonical_array(map(encoding.stored_object, found)))

    async def register(self, request: Request) -> Response:
        """POST /objects/."""
        wanted = parse_request(await request.json_object())
        autolink = request.field("autolink") != "no"
        record, there = await self._objects.register(request.caller, wanted, autolink=autolink)
        access = self._access(request, record)
        return access_response(access, self._base_url(request), status=409 if there else 200)

    async def get(self, request: Request) -> Response:
        """GET /objects/{sha}."""
        record = await self._objects.get(request.caller, request.params["sha"])
        return access_response(self._access(request, record), self._base_url(request))

    async def blob(self, request: Request) -> Response:
        """GET /objects/{sha}/blob."""
        access = self._access(request, await self._objects.get(request.caller, request.params["sha"]))
        return Response(status=302, headers=(("Location", f"{self._base_url(request)}/local-s3/{access.get}"),))

    async def rename(self, request: Request) -> Response:
        """PUT /objects/{sha}."""
        body = await request.json_object()
        record = await self._objects.rename(
            request.caller,
            request.params["sha"],
            text_field(body, "objectname", max_chars=4096),
            owner=text_field(body, "owner"),
            body_sha=text_field(body, "sha256sum"),
        )
        return Response(encoding.stored_object(record))

    async def delete(self, request: Request) -> Response:
        """DELETE /objects/{sha}."""
        return Response(encoding.stored_object(await self._objects.delete(request.caller, request.params["sha"])))


_SAFE_NAME = re.compile(r"[^A-Za-z0-9._/ +@,=-]")


def _disposition(name: str) -> str:
    """RFC 6266: a plain name for everybody, the exact one beside it when it differs."""
    plain = _SAFE_NAME.sub("_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return f'attachment; filename="{plain}"{exact}'


def _refused(error: Refusal) -> Response:
    """Errors of signed URLs have no body."""
    again = (("Retry-After", "5"),) if isinstance(error, Unavailable) else ()
    return Response(status=STATUS[type(error)], headers=again)


class BlobRoutes:
    """Handlers of signed URLs: the token in the path is the permission, no header is looked at."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def services(self) -> tuple[Service, ...]:
        """The same routes below both prefixes."""
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        routes = (
            Route("GET", "{token}", self.download, public=True, summary="The bytes of an object, whole or a range"),
            *(
                Route(method, "{token}", self.upload, public=True, summary="Upload the bytes of an object")
                for method in ("PUT", "POST", "HEAD")
            ),
        )
        return tuple(Service(prefix, routes, bearer=False, methods=methods) for prefix in ("/local-s3/", "/s3/"))

    async def download(self, request: Request) -> Response:
        """GET: 200, 206 for a range, 416 for one behind the end; errors have an empty body."""
        try:
            claims = await self._objects.opened(request.params["token"], "GET")
            size_bytes = await self._objects.stored_size(claims)
        except Refusal as error:
            return _refused(error)
        headers = [
            ("Accept-Ranges", "bytes"),
            ("Content-Disposition", _disposition(claims.name)),
            ("ETag", f'"{claims.sha}"'),
        ]
        try:
            wanted = parse_range(request.header("range"), size_bytes)
        except ValueError:
            return Response(status=416, headers=(*headers, ("Content-Range", f"bytes */{size_bytes}")))
        start, length, status = 0, size_bytes, 200
        if wanted is not None and request.header("if-range") in {None, f'"{claims.sha}"'}:
            start, length, status = wanted.start, wanted.length, 206
            headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{size_bytes}"))
        return Response(
            self._objects.read(claims, start, length),
            status=status,
            headers=tuple(headers),
            content_type="application/octet-stream",
            length=length,
        )

    async def upload(self, request: Request) -> Response:
        """PUT: exactly the announced bytes, verified before they get their name; errors have an empty body."""
        try:
            claims = await self._objects.opened(request.params["token"], "PUT")
            announced = request.header("content-length")
            if announced is not None and announced != str(claims.size_bytes):
                return Response(status=400)
            await self._objects.upload(claims, request.chunks())
        except ClientGone:
            raise
        except Refusal as error:
            return _refused(error)
        return Response()
