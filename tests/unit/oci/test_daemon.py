"""A local daemon over a real unix socket: one that helps, and ones that lie."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from brickless.core.errors import BricklessError, UserError
from brickless.oci import daemon, manifest_src
from brickless.oci.app import AppSettings, Build, add_app
from brickless.oci.flatten import Flattener
from brickless.oci.manifest import Platform
from brickless.oci.reference import Reference
from brickless.testkit.archives import file, tar_of

LAYER = tar_of(("a", file(b"1")))


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Answers the two questions; `answers` maps a path to status and body."""

    daemon_threads = True
    answers: dict[str, tuple[int, bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it so
        """Nothing."""


def saved(layer: bytes = LAYER) -> tuple[bytes, str]:
    import hashlib

    diff_id = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {"diff_ids": [diff_id]}}
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["l.tar"]}]).encode()
    archive = tar_of(("c.json", file(config)), ("manifest.json", file(manifest)), ("l.tar", file(layer)))
    return archive, f"sha256:{hashlib.sha256(config).hexdigest()}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(str(tmp_path / "docker.sock"), Handler) as running:
        archive, image_id = saved()
        digest = "sha256:" + "5" * 64
        inspect = {"Id": image_id, "RepoDigests": [f"host/web@{digest}"], "Config": {"Cmd": ["/x"], "Env": None}}
        running.answers = {
            "/images/web:1/json": (200, json.dumps(inspect).encode()),
            "/images/web:1/get": (200, archive),
        }
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def host(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/docker.sock"


def test_an_image_of_the_daemon(server: Daemon, tmp_path: Path) -> None:
    with (
        daemon.open_local(Reference.parse("web:1"), docker_host=host(tmp_path)) as image,
        Flattener() as flattener,
    ):
        flattener.add_all(image.layers)
        assert flattener.read_file("a") == b"1"
        assert image.config == {"Cmd": ["/x"], "Env": None}
        assert image.digest == "sha256:" + "5" * 64


def test_app_add_looks_where_it_is_told(server: Daemon, tmp_path: Path) -> None:
    repo, notes = tmp_path / "repo", list[str]()
    repo.mkdir()
    build = Build(cache=tmp_path / "cache", docker_host=host(tmp_path), report=notes.append)
    add_app(repo, "web", "web:1", build=build, settings=AppSettings(docker_source="local"))
    src = manifest_src.read(repo / "web")
    assert src["docker_digest"] == "web@sha256:" + "5" * 64
    assert src["docker_source"] == "local"
    # A registry that is not there, then the daemon: said, not silent.
    unreachable = "127.0.0.1:1/web:1"
    server.answers |= {path.replace("/web:1", f"/{unreachable}"): value for path, value in list(server.answers.items())}
    add_app(repo, "second", unreachable, build=build, settings=AppSettings(docker_source="remote,local"))
    assert len(notes) == 1
    assert notes[0].startswith("remote source had an error, trying with other sources: cannot reach 127.0.0.1:1")


def lie(server: Daemon, **changes: Any) -> None:
    status, body = server.answers["/images/web:1/json"]
    server.answers["/images/web:1/json"] = (status, json.dumps(json.loads(body) | changes).encode())


def test_a_daemon_that_lies_or_fails(server: Daemon, tmp_path: Path) -> None:
    def opened(name: str = "web:1", **kwargs: Any) -> None:
        with daemon.open_local(Reference.parse(name), docker_host=host(tmp_path), **kwargs) as image, Flattener() as f:
            f.add_all(image.layers)

    with pytest.raises(UserError, match="has no image other:1"):
        opened("other:1")
    with pytest.raises(UserError, match="no image for linux/arm"):
        opened(platforms=[Platform.parse("linux/arm")])
    good = dict(server.answers)
    lie(server, RepoDigests=[], Id="sha256:" + "6" * 64)
    with pytest.raises(BricklessError, match="but hands out"):
        opened()
    server.answers = dict(good)
    server.answers["/images/web:1/get"] = (200, saved(tar_of(("a", file(b"other"))))[0])
    with pytest.raises(BricklessError, match="unpacks to"):
        opened()
    server.answers["/images/web:1/get"] = (500, b"")
    with pytest.raises(UserError, match="answered 500"):
        opened()
    server.answers["/images/web:1/get"] = (200, b"nonsense" * 200)
    with pytest.raises(BricklessError):
        opened()


def test_addresses(tmp_path: Path) -> None:
    assert daemon.find("tcp://127.0.0.1:2375") == "tcp://127.0.0.1:2375"
    for address, message in ((f"unix://{tmp_path}/none", "cannot reach"), ("ftp://x", "no address of a daemon")):
        with (
            pytest.raises(UserError, match=message),
            daemon.open_local(Reference.parse("web:1"), docker_host=address),
        ):
            pass
