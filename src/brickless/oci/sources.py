"""Where an image may come from, behind one door: `open_image`.

nginx:1.27, host:5000/team/app@sha256:…    a registry
oci:FOLDER[:TAG]                            an OCI layout folder
oci-archive:FILE[:TAG]                      the same in a tar file (skopeo, podman, buildah, buildx)
docker-archive:FILE[:TAG]                   `docker save`
-                                           either archive on stdin
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from brickless.core.errors import UserError
from brickless.oci import compression
from brickless.oci.image import Image, verified
from brickless.oci.layout import Archive, Folder, open_docker_archive, open_layout
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import (
    OCI_INDEX,
    Descriptor,
    ManifestError,
    Platform,
    check_bytes,
    load,
    media_type_of,
    parse_index,
    parse_manifest,
)
from brickless.oci.reference import Reference
from brickless.oci.registry import Access, RegistryClient
from brickless.store.objects import ObjectStore

PREFIXES = ("oci", "oci-archive", "docker-archive")
STDIN = "-"


def is_local(source: str) -> bool:
    """Whether a source is a file or folder rather than a name in a registry."""
    return source == STDIN or source.partition(":")[0] in PREFIXES


@contextmanager
def open_image(
    source: str,
    *,
    cache: str | Path,
    platforms: Sequence[Platform] = (),
    access: Access | None = None,
    stdin: BinaryIO | None = None,
    limits: Limits = DEFAULT,
) -> Iterator[Image]:
    """The image that `source` names, for the first of `platforms` that is there; readable until the context ends.

    `cache` is a folder for verified blobs of registries; `stdin` is what `-` reads. Raises `UserError` for what cannot
    be found, `HostileInputError` for broken or lying images, `OSError` for files that cannot be read.
    """
    with ExitStack() as stack:
        if is_local(source):
            yield _open_local(source, stack, platforms, stdin, limits)
        else:
            client = RegistryClient(Reference.parse(source), ObjectStore(str(cache)), access=access, limits=limits)
            yield stack.enter_context(client).image(platforms)


def _open_local(
    source: str, stack: ExitStack, platforms: Sequence[Platform], stdin: BinaryIO | None, limits: Limits
) -> Image:
    kind, path, tag = _split(source)
    if kind == "oci":
        if not Path(path).is_dir():
            raise UserError("image-missing", f"{path} is no folder")
        return open_layout(Folder(Path(path)), path, tag=tag, platforms=platforms, limits=limits)
    if kind == STDIN and stdin is None:
        raise UserError("image-missing", "there is no standard input to read an image from")
    name = "the image on standard input" if kind == STDIN else path
    handle = stdin if kind == STDIN and stdin is not None else stack.enter_context(_open_file(path))
    archive = Archive(stack.enter_context(_seekable(handle, name, limits)), name, limits)
    if kind != "docker-archive" and archive.find("index.json") is not None:
        return open_layout(archive, name, tag=tag, platforms=platforms, limits=limits)
    if kind == "oci-archive":
        raise ManifestError(f"{name} is no OCI archive: it lacks index.json")
    return open_docker_archive(archive, name, tag=tag, platforms=platforms, limits=limits)


def _split(source: str) -> tuple[str, str, str]:
    """Kind, path and tag; a tag is what follows a colon if no file has the whole name."""
    if source == STDIN:
        return STDIN, "", ""
    kind, _, rest = source.partition(":")
    head, colon, tail = rest.partition(":")
    if not colon or Path(rest).exists():
        return kind, rest, ""
    return kind, head, tail


def _open_file(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError("image-missing", f"cannot read the image {path}: {error.strerror}") from error


@contextmanager
def _seekable(handle: IO[bytes], what: str, limits: Limits) -> Iterator[IO[bytes]]:
    """The archive uncompressed and seekable: itself if it is, else a copy in an unnamed temporary file."""
    if handle.seekable():
        start = handle.read(4)
        handle.seek(0)
        if not start.startswith((compression.GZIP_MAGIC, compression.ZSTD_MAGIC)):
            yield handle
            return
    with tempfile.TemporaryFile(prefix="brickless-archive-") as copy:
        size = 0
        for chunk in compression.decompress(compression.chunks_of(handle), what=what):
            size += len(chunk)
            if size > limits.unpacked_bytes:
                raise ManifestError(f"{what} unpacks to more than {limits.unpacked_bytes} bytes")
            copy.write(chunk)
        copy.flush()
        yield copy


def push_layout(folder: Path, reference: Reference, client: RegistryClient, *, limits: Limits = DEFAULT) -> str:
    """Upload the images of an OCI layout (one, or all platforms as an index) under the reference's tag; the digest.

    Every byte is checked on its way out. Raises `RegistryError`, `HostileInputError`.
    """
    files = Folder(folder)
    index = files.read("index.json", limits.manifest_bytes)
    if index is None:
        raise ManifestError(f"{folder} is no OCI layout: it lacks index.json")
    listed = parse_index(load(index, "index.json", limits))
    if not listed:
        raise ManifestError(f"{folder} holds no image")
    digest = ""
    for descriptor in listed:
        data = files.read(f"blobs/sha256/{descriptor.sha}", limits.manifest_bytes)
        if data is None:
            raise ManifestError(f"{folder} lacks the manifest {descriptor.digest}")
        check_bytes(data, descriptor.digest, descriptor.size, f"the manifest {descriptor.digest}")
        document = load(data, "manifest", limits)
        manifest = parse_manifest(document, limits)
        for blob in (manifest.config, *manifest.layers):
            _push_blob(files, blob, client)
        tag = reference.tag if len(listed) == 1 else ""
        digest = client.push_manifest(data, media_type_of(document, descriptor.media_type), tag)
    return digest if len(listed) == 1 else client.push_manifest(index, OCI_INDEX, reference.tag)


def _push_blob(files: Folder, blob: Descriptor, client: RegistryClient) -> None:
    what = f"the blob {blob.digest}"
    client.push_blob(blob, verified(files.file(f"blobs/sha256/{blob.sha}"), blob, what))
