"""`pvr app add` on images and registries that are broken or hostile: a clear error, the repository as it was."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brickless.linux import process
from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, folder, hardlink, symlink, tar_of
from brickless.testkit.debian_image import GZIP, write_image

PVR = Path(sys.executable).with_name("pvr")
TIMEOUT_S = 120.0
GOOD = tar_of(("bin", folder()), ("bin/app", file(b"#!/bin/sh\n", mode=0o755)))


class Desk:
    """A repository with one commit, and everything that pvr may touch, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "repository"
        self.repository.mkdir()
        self.environment = {"HOME": str(root), "PVR_CONFIG_DIR": str(root / "config")}
        assert self.pvr("init").returncode == 0
        (self.repository / "kept.json").write_text('{"kept":true}')
        assert self.pvr("add", ".").returncode == 0
        assert self.pvr("commit", "-m", "before").returncode == 0

    def pvr(self, *words: str, before: tuple[str, ...] = ()) -> process.Completed:
        return process.run(
            [*before, str(PVR), *words],
            purpose="pvr",
            timeout_s=TIMEOUT_S,
            env=self.environment,
            cwd=str(self.repository),
            check=False,
        )

    def content(self) -> dict[str, str]:
        """Every file of the repository and its hash; the root's neighbours, to see an escape."""
        inside = {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.repository.rglob("*"))
            if path.is_file() and path.name not in {"lock", "stat-cache", "statcache"}
        }
        return inside | {f"/{path.name}": "neighbour" for path in self.root.iterdir() if path.name != "config"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    root = tmp_path / "desk"
    root.mkdir()
    return Desk(root)


def refused(desk: Desk, source: str, words: str) -> None:
    """`pvr app add` of this source fails, says `words`, and changes nothing."""
    before = desk.content()
    done = desk.pvr("app", "add", "web", "--from", source)
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode != 0, said
    assert "Traceback" not in said, said
    assert words.lower() in said.lower(), said
    assert desk.content() == before
    assert desk.pvr("status").stdout == b""


HOSTILE = {
    "dot-dot": tar_of(("../evil", file(b"x"))),
    "dot-dot-inside": tar_of(("a", folder()), ("a/../../evil", file(b"x"))),
    "hard-link-outside": tar_of(("evil", hardlink("../../etc/passwd"))),
    "hard-link-to-nothing": tar_of(("evil", hardlink("not/there"))),
    "file-through-a-symlink-outside": tar_of(("a", symlink("../../..")), ("a/evil", file(b"x"))),
    "truncated": GOOD[:700],
    "garbage": b"this is no tar archive at all" * 40,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_layer_writes_nothing_outside(desk: Desk, tmp_path: Path, name: str) -> None:
    layout = LayoutWriter(tmp_path / "image")
    layout.finish([(write_image(layout, [(GOOD, GZIP), (HOSTILE[name], GZIP)], {"Cmd": ["/bin/app"]}), "latest")])
    before = desk.content()
    done = desk.pvr("app", "add", "web", "--from", f"oci:{tmp_path / 'image'}")
    said = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("evil")), "something was written outside"
    if done.returncode == 0:
        # Kept inside the root as a container runtime would: allowed for links only, never for names with `..`.
        assert name in {"file-through-a-symlink-outside"}, said
        return
    assert said.strip(), "no reason was given"
    assert desk.content() == before


def test_an_image_whose_manifest_lies_about_a_digest(desk: Desk, tmp_path: Path) -> None:
    root = tmp_path / "image"
    layout = LayoutWriter(root)
    layout.finish([(write_image(layout, [(GOOD, GZIP)], {"Cmd": ["/bin/app"]}), "latest")])
    index = json.loads((root / "index.json").read_text())
    manifest = json.loads((root / "blobs" / "sha256" / index["manifests"][0]["digest"][7:]).read_text())
    layer = root / "blobs" / "sha256" / manifest["layers"][0]["digest"][7:]
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.chmod(0o644)
    layer.write_bytes(bytes(data))
    refused(desk, f"oci:{root}", "")


class Answer:
    """What a registry answers to a path: status, body, and a Content-Length that may lie."""

    def __init__(self, status: int, body: bytes = b"{}", length: int | None = None) -> None:
        self.status, self.body, self.length = status, body, length


@contextmanager
def registry(answer: Callable[[str], Answer]) -> Iterator[str]:
    """A registry on loopback that answers as told; its `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answer(self.path)
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(found.body) if found.length is None else found.length))
            self.end_headers()
            self.wfile.write(found.body)

        do_HEAD = do_GET  # noqa: N815 - the standard library's name

        def log_message(self, *_: Any) -> None:
            """Not on our stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
            "size": 7,
        },
        "layers": [],
    }
).encode()
REGISTRIES: dict[str, tuple[Callable[[str], Answer], str]] = {
    "nobody may look": (lambda _: Answer(401), "credentials"),
    "there is no such image": (lambda _: Answer(404), "404"),
    "the server is broken": (lambda _: Answer(500), "500"),
    "half a body": (lambda _: Answer(200, b'{"schemaVersion"', length=4000), ""),
    "no JSON": (lambda _: Answer(200, b"<html>"), ""),
    "a size that is a lie": (lambda path: Answer(200, MANIFEST if "manifests" in path else b"{}"), ""),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(REGISTRIES))
def test_a_registry_that_misbehaves(desk: Desk, name: str) -> None:
    answer, words = REGISTRIES[name]
    with registry(answer) as host:
        refused(desk, f"{host}/web:1", words)


@pytest.mark.needs("userns")
def test_a_full_disk(desk: Desk, tmp_path: Path) -> None:
    """The image does not fit on the disk of the repository: it says so, and the repository is as before."""
    noise = hashlib.shake_128(b"noise").digest(3 << 20)
    layout = LayoutWriter(tmp_path / "image")
    large = tar_of(("large", file(noise)))
    layout.finish([(write_image(layout, [(GOOD, GZIP), (large, GZIP)], {"Cmd": ["/bin/app"]}), "latest")])
    script = (
        'mount -t tmpfs -o size=1m none "$1" && cp -a "$2"/. "$1" && cd "$1" && '
        '"$3" app add web --from "oci:$4"; code=$?; "$3" status; ls -A "$1"; exit $code'
    )
    small = tmp_path / "small"
    small.mkdir()
    ran = process.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            script,
            "sh",
            str(small),
            str(desk.repository),
            str(PVR),
            str(tmp_path / "image"),
        ],
        purpose="pvr on a full disk",
        timeout_s=TIMEOUT_S,
        env=desk.environment,
        check=False,
    )
    said = ran.stderr.decode("utf-8", "replace")
    assert desk.pvr("status").stdout == b""
    assert ran.returncode != 0, said
    assert "Traceback" not in said, said
    assert "space" in said.lower(), said
    assert sorted(ran.stdout.decode().split()) == [".pvr", "kept.json"], ran.stdout
