"""Bytes of objects in a bucket of any S3-compatible server, named by their SHA-256.

<prefix>/objects/<sha>     published: size and hash were right

An upload streams into the bucket while it is hashed. It gets its name only when the last part is confirmed, and that is
done only when size and hash are right: until then it is an unfinished multipart upload, which nobody can read and which
the bucket's own rule for those removes. See docs/adr/0040-objects-in-s3.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from brickless.core.errors import UserError
from brickless.hub.adapters.blobs import fault_of, gathered
from brickless.hub.domain.errors import Malformed, Unavailable

_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
_READ_BYTES = 1024 * 1024
_TIMEOUT = timedelta(seconds=30)
_RETRY_FOR = timedelta(seconds=8)
_FOLDER = "objects/"


class Bucket(NamedTuple):
    """Where the objects lie. `endpoint` is empty for Amazon's own service in `region`.

    Credentials are found as Amazon's own tools find them: in the environment, or from the machine's or the pod's role.
    """

    name: str
    prefix: str
    endpoint: str
    region: str


def parse_bucket(url: str) -> Bucket:
    """`s3://bucket[/prefix][?endpoint=URL&region=NAME]`. Raises UserError for anything else."""
    hint = "It looks like s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-central-1."
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    endpoint, region = options.pop("endpoint", ""), options.pop("region", "us-east-1")
    if parts.scheme != "s3" or not parts.hostname or parts.port is not None or parts.username is not None or options:
        raise UserError("objects-url", f"{url!r} does not name a bucket", hint=hint)
    if endpoint and urlsplit(endpoint).scheme not in {"http", "https"}:
        raise UserError("objects-url", f"the endpoint {endpoint!r} is no http or https address", hint=hint)
    return Bucket(parts.netloc, parts.path.strip("/"), endpoint, region)


class S3Blobs:
    """`services.ports.Blobs`."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._store = S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            config={
                "region": bucket.region,
                # Servers other than Amazon's rarely have a name for each bucket.
                "virtual_hosted_style_request": not bucket.endpoint,
                **({"endpoint": bucket.endpoint} if bucket.endpoint else {}),
            },
            client_options={"allow_http": True, "connect_timeout": _TIMEOUT, "timeout": _TIMEOUT},
            retry_config={"max_retries": 4, "retry_timeout": _RETRY_FOR},
        )

    @staticmethod
    def _key(sha: str) -> str:
        if len(sha) != 64 or not all(character in "0123456789abcdef" for character in sha):
            raise ValueError("not a SHA-256")
        return _FOLDER + sha

    def start(self) -> None:
        """Ask the bucket. Raises UserError when it does not answer or refuses."""
        try:
            next(iter(obstore.list(self._store, _FOLDER, chunk_size=1)), None)
        except (BaseError, OSError) as error:
            raise UserError(
                "bucket",
                f"The bucket {self.bucket.name!r} cannot be used: {_first_line(error)}",
                hint="Check --objects-url, that the bucket exists, and the credentials (AWS_ACCESS_KEY_ID and so on).",
            ) from error

    async def has(self, sha: str) -> bool:
        """See `services.ports.Blobs.has`."""
        return await self.size_bytes(sha) is not None

    async def size_bytes(self, sha: str) -> int | None:
        """See `services.ports.Blobs.size_bytes`."""
        try:
            return (await obstore.head_async(self._store, self._key(sha)))["size"]
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unavailable(error) from error

    async def put(self, sha: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """See `services.ports.Blobs.put`."""
        try:
            await obstore.put_async(
                self._store,
                self._key(sha),
                _checked(sha, size_bytes, chunks),
                use_multipart=size_bytes > _PART_BYTES,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
        except BaseError as error:
            raise _unavailable(error) from error

    async def names(self, *, older_than_s: float) -> AsyncIterator[str]:
        """See `services.ports.Blobs.names`."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        try:
            async for batch in obstore.list(self._store, _FOLDER, chunk_size=1000):
                for found in batch:
                    name = found["path"].removeprefix(_FOLDER)
                    if found["last_modified"] <= before and len(name) == 64:
                        yield name
        except BaseError as error:
            raise _unavailable(error) from error

    async def remove(self, sha: str, *, older_than_s: float) -> int | None:
        """See `services.ports.Blobs.remove`."""
        key = self._key(sha)
        try:
            found = await obstore.head_async(self._store, key)
            if found["last_modified"] > datetime.now(UTC) - timedelta(seconds=older_than_s):
                return None
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return None  # another replica's collection was faster
        except BaseError as error:
            raise _unavailable(error) from error
        return found["size"]

    async def fault(self, sha: str, size_bytes: int) -> str:
        """See `services.ports.Blobs.fault`."""
        return await fault_of(self, sha, size_bytes)

    async def read(self, sha: str, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See `services.ports.Blobs.read`. Raises OSError when the bucket breaks off."""
        if length == 0:
            return
        try:
            found = await obstore.get_async(self._store, self._key(sha), options={"range": (start, start + length)})
            async for chunk in found.stream(min_chunk_size=_READ_BYTES):
                length -= len(chunk)
                yield bytes(chunk)
        except BaseError as error:
            raise OSError(f"object {sha} cannot be read from the bucket: {_first_line(error)}") from error
        if length:
            raise OSError(f"object {sha} is shorter than its size")


async def _checked(sha: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks, hashed on their way. Raises Malformed instead of ending when size or hash are wrong."""
    digest, taken = hashlib.sha256(), 0
    async for chunk in gathered(chunks):
        taken += len(chunk)
        if taken > size_bytes:
            raise Malformed(f"The upload is larger than the {size_bytes} bytes announced")
        await asyncio.to_thread(digest.update, chunk)
        yield chunk
    if taken != size_bytes:
        raise Malformed(f"The upload has {taken} bytes; {size_bytes} were announced")
    if digest.hexdigest() != sha:
        raise Malformed("The SHA-256 of the upload differs from the one announced")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable("The storage of objects does not answer; try again", detail=_first_line(error))
