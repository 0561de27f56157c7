"""Images of a local Docker or Podman: over its socket, by the Engine API that both speak.

The daemon hands out an archive (`docker save`), which is checked as any other: layers against the digests of the
configuration.
Source: Docker Engine API 1.41, `/images/{name}/json` and `/images/{name}/get`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from brickless.core.errors import HostileInputError, UserError
from brickless.oci.image import Image
from brickless.oci.layout import Archive, open_docker_archive
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import Platform, load
from brickless.oci.reference import DIGEST, Reference

SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
TIMEOUT_S = 300.0
CONNECT_TIMEOUT_S = 5.0
MAX_INSPECT_BYTES = 8 << 20
REPO_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def find(docker_host: str = "") -> str | None:
    """Where the daemon listens: `docker_host` (as DOCKER_HOST: `unix://…`, `tcp://…`), else the first usual socket."""
    if docker_host:
        return docker_host
    return next((f"unix://{path}" for path in SOCKETS if Path(path).is_socket()), None)


@contextmanager
def open_local(
    reference: Reference, *, docker_host: str, platforms: Sequence[Platform] = (), limits: Limits = DEFAULT
) -> Iterator[Image]:
    """The image of a local daemon; readable until the context ends. Its digest is that of its registry if it has one.

    Raises `UserError` (id image-missing) if the daemon has no such image, daemon-unreachable, `HostileInputError`.
    """
    name = str(reference)
    path = f"/images/{quote(name, safe='/:@')}"
    with _client(docker_host) as http, tempfile.TemporaryFile(prefix="brickless-daemon-") as copy:
        document = load(_small(http, f"{path}/json", name), f"what the daemon says of {name}", limits)
        size = 0
        for chunk in _stream(http, f"{path}/get", name):
            size += len(chunk)
            if size > limits.unpacked_bytes:
                raise HostileInputError(f"the daemon's archive of {name} has more than {limits.unpacked_bytes} bytes")
            copy.write(chunk)
        copy.flush()
        archive = Archive(copy, f"the daemon's archive of {name}", limits)
        image = open_docker_archive(archive, name, platforms=platforms, limits=limits)
        config = document.get("Config")
        yield replace(
            image,
            digest=_digest(document, image.digest),
            config=config if isinstance(config, dict) else image.config,
        )


def _digest(document: dict[str, Any], image_id: str) -> str:
    """The first registry digest (`name@sha256:…` without its name), else the image's id."""
    listed = document.get("RepoDigests")
    for text in listed if isinstance(listed, list) else []:
        if isinstance(text, str) and REPO_DIGEST.fullmatch(text):
            return text.partition("@")[2]
    known = document.get("Id")
    if isinstance(known, str) and DIGEST.fullmatch(known) and known != image_id:
        raise HostileInputError(f"the daemon says that the image is {known}, but hands out {image_id}")
    return image_id


def _client(docker_host: str) -> httpx.Client:
    parts = urlsplit(docker_host)
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    if parts.scheme == "unix":
        if not Path(parts.path).is_socket():
            raise UserError("daemon-unreachable", f"cannot reach the local daemon: {parts.path} is no socket")
        transport = httpx.HTTPTransport(uds=parts.path)
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=timeout, trust_env=False)
    if parts.scheme in ("tcp", "http", "https") and parts.netloc:
        scheme = "https" if parts.scheme == "https" else "http"
        return httpx.Client(base_url=f"{scheme}://{parts.netloc}", timeout=timeout, trust_env=False)
    hint = "Use unix:///path/to/socket or tcp://host:port."
    raise UserError("docker-host", f"{docker_host!r} is no address of a daemon", hint=hint)


def _stream(http: httpx.Client, path: str, name: str) -> Iterator[bytes]:
    try:
        with http.stream("GET", path, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status_code == 404:
                raise UserError("image-missing", f"the local daemon has no image {name}")
            if answer.status_code != 200:
                raise UserError("daemon-failed", f"the local daemon answered {answer.status_code} for {name}")
            yield from answer.iter_raw()
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise UserError("daemon-unreachable", f"cannot reach the local daemon for {name}: {reason}") from error


def _small(http: httpx.Client, path: str, name: str) -> bytes:
    data = bytearray()
    for chunk in _stream(http, path, name):
        data += chunk
        if len(data) > MAX_INSPECT_BYTES:
            raise HostileInputError(f"the daemon says more than {MAX_INSPECT_BYTES} bytes of {name}")
    return bytes(data)
