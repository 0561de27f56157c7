"""`pvr` and a hub that lies and breaks off: nothing wrong is stored, no token goes where it does not belong."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brickless.pvr import http
from brickless.pvr.main import run
from brickless.testkit.certificates import Authority

BIG = bytes(range(256)) * 20_000
SHA = hashlib.sha256(BIG).hexdigest()
STATE = {"#spec": "pantavisor-service-system@1", "web/big": SHA, "web/run.json": {"name": "web"}}
REALM = "pantahub services"


class FakeHub(ThreadingHTTPServer):
    """One repository at /me/dev. `rules` are asked first; they answer (True) or leave it to the ordinary answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.state: Any = dict(STATE)
        self.objects = {SHA: BIG}
        self.rules: list[Callable[[Handler], bool]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.posted: list[Any] = []
        self.tokens: set[str] = set()
        self.refreshable: set[str] = set()

    def count(self, method: str, part: str) -> int:
        return sum(1 for seen, path, _ in self.seen if seen == method and part in path)


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, cut: int | None = None
    ) -> bool:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
        return True

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> bool:
        return self.reply(status, json.dumps(value).encode(), headers)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        for rule in list(self.server.rules):
            if rule(self):
                return
        self.ordinary()

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names that http.server looks for

    def ordinary(self) -> None:
        hub, path = self.server, self.path
        if path == "/me/dev/.pvrremote":
            base = f"{hub.url}/steps/1"
            self.json({"json-get-url": f"{base}/state", "objects-endpoint": f"{base}/objects",
                       "post-url": f"{hub.url}/steps", "json-key": "state"})  # fmt: skip
        elif path == "/steps/1/state":
            self.json(hub.state)
        elif path.startswith("/steps/1/objects/") and self.command == "GET":
            sha = path.rpartition("/")[2]
            self.json({"sha256sum": sha, "size": str(len(hub.objects[sha])), "signed-geturl": f"{hub.url}/s3/{sha}"})
        elif path == "/steps/1/objects/":
            body = json.loads(self.body)
            known = body["sha256sum"] in hub.objects
            self.json(body | {"signed-puturl": f"{hub.url}/s3/{body['sha256sum']}"}, 409 if known else 200)
        elif path.startswith("/s3/"):
            self.blob(path.rpartition("/")[2])
        elif path == "/steps":
            hub.posted.append(json.loads(self.body))
            self.json({"rev": len(hub.posted), "state-sha": "ab" * 32, "trail-id": "t"})
        elif path == "/auth/login":
            self.refresh()
        else:
            self.reply(404, b'{"error":"none"}')

    def blob(self, sha: str) -> None:
        hub = self.server
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != sha:
                self.reply(400)
                return
            hub.objects[sha] = self.body
            self.reply(200)
            return
        data = hub.objects[sha]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start:
            self.reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self.reply(200, data)

    def refresh(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token in self.server.refreshable:
            self.server.tokens.add("fresh")
            self.json({"token": "fresh"})
        else:
            self.reply(401, b'{"Error":"no"}')


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pvr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: FakeHub) -> Any:
    """`pvr` in an empty repository, whose bases name the hub."""
    for name in list(os.environ):
        if name.startswith(("PVR_", "http_proxy", "HTTP_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(http, "_BACKOFF_S", 0.001)
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")

    def call(*args: str, code: int = 0) -> Any:
        capsys.readouterr()
        found = run(["-b", hub.url, "-r", hub.url, *args])
        captured = capsys.readouterr()
        assert found == code, (args, found, captured)
        return captured

    call("init")
    return call


def pool() -> list[str]:
    return sorted(os.listdir(Path(os.environ["HOME"], ".pvr/objects")))


def state_bytes() -> bytes:
    return Path(".pvr/json").read_bytes()


def once(rule: Callable[[Handler], bool], times: int = 1) -> Callable[[Handler], bool]:
    left = [times]

    def limited(handler: Handler) -> bool:
        if left[0] and rule(handler):
            left[0] -= 1
            return True
        return False

    return limited


def on(method: str, part: str, answer: Callable[[Handler], bool]) -> Callable[[Handler], bool]:
    return lambda handler: handler.command == method and part in handler.path and answer(handler)


# Downloads


def test_a_get_brings_the_objects_and_the_state(pvr: Any, hub: FakeHub) -> None:
    pvr("get", "me/dev")
    assert pool() == [SHA]
    assert json.loads(state_bytes()) == STATE
    pvr("get", "me/dev")
    assert hub.count("GET", "/s3/") == 1, "what is here is not fetched again"


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (b"x" + BIG[1:], "wrong bytes"),
        (BIG + b"more", "too much"),
        (b"", "ended after"),
    ],
    ids=["bit-flip", "too-long", "empty"],
)
def test_wrong_bytes_are_never_stored(lie: bytes, words: str, pvr: Any, hub: FakeHub) -> None:
    before = state_bytes()
    hub.rules.append(on("GET", "/s3/", lambda handler: handler.reply(200, lie)))
    assert words in pvr("get", "me/dev", code=3).err
    assert state_bytes() == before
    assert SHA not in pool()
    hub.rules.clear()
    pvr("get", "me/dev")
    assert pool() == [SHA]


def test_a_broken_download_goes_on_where_it_stopped(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(once(on("GET", "/s3/", lambda handler: handler.reply(200, BIG, cut=2_000_000))))
    pvr("get", "me/dev")
    ranges = [headers.get("Range") for method, path, headers in hub.seen if "/s3/" in path]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) > 0
    assert pool() == [SHA]


def test_a_download_goes_on_in_the_next_run(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(on("GET", "/s3/", lambda handler: handler.reply(200, BIG, cut=2_000_000) if not handler.headers.get("Range") else handler.reply(500)))  # fmt: skip  # noqa: E501 one table-like line
    pvr("get", "me/dev", code=3)
    assert pool() == [f"{SHA}.part"]
    hub.rules.clear()
    pvr("get", "me/dev")
    assert any(headers.get("Range") for _, path, headers in hub.seen[-3:] if "/s3/" in path)
    assert pool() == [SHA]


def test_a_server_that_cannot_resume_is_read_from_the_start(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(once(on("GET", "/s3/", lambda handler: handler.reply(200, BIG, cut=1_000_000))))
    hub.rules.append(on("GET", "/s3/", lambda handler: handler.reply(200, BIG)))
    pvr("get", "me/dev")
    assert pool() == [SHA]


def test_an_expired_address_is_asked_for_again(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(once(on("GET", "/s3/", lambda handler: handler.reply(403)), times=2))
    pvr("get", "me/dev")
    assert hub.count("GET", "/objects/") == 3


def test_passing_errors_are_retried_and_final_ones_are_not(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(
        once(on("GET", ".pvrremote", lambda handler: handler.reply(503, b"", {"Retry-After": "0"})), times=2)
    )
    pvr("get", "me/dev")
    assert hub.count("GET", ".pvrremote") == 3
    hub.rules[:] = [on("GET", ".pvrremote", lambda handler: handler.reply(404, b'{"msg":"no such device"}'))]
    err = pvr("get", "me/dev", code=3).err
    assert "404" in err
    assert "no such device" in err
    assert hub.count("GET", ".pvrremote") == 4


@pytest.mark.parametrize(
    "state",
    [{"error": "REST-ERR", "code": 500}, [], {"../escape": SHA}, {"a": "short"}, {"a": SHA, "a/b": SHA}, "text"],
    ids=str,
)
def test_what_is_no_state_never_becomes_one(state: Any, pvr: Any, hub: FakeHub) -> None:
    before = state_bytes()
    hub.state = state
    pvr("get", "me/dev", code=3)
    assert state_bytes() == before
    assert not Path("../escape").exists()


def test_a_state_answered_with_an_error_status_is_refused(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(on("GET", "/state", lambda handler: handler.json({}, 500)))
    before = state_bytes()
    pvr("get", "me/dev", code=3)
    assert state_bytes() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"json-get-url":"file:///etc/passwd"}', b"\xff"], ids=repr)
def test_a_broken_pvrremote_is_an_error(body: bytes, pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(on("GET", ".pvrremote", lambda handler: handler.reply(200, body)))
    pvr("get", "me/dev", code=3)


def test_a_clone_that_fails_leaves_no_folder(pvr: Any, hub: FakeHub, tmp_path: Path) -> None:
    hub.rules.append(on("GET", "/s3/", lambda handler: handler.reply(200, b"wrong")))
    pvr("clone", "me/dev", str(tmp_path / "copy"), code=7)
    assert not [name for name in os.listdir(tmp_path) if "clone" in name or name == "copy"]
    hub.rules.clear()
    pvr("clone", "me/dev", str(tmp_path / "copy"))
    assert (tmp_path / "copy/web/big").read_bytes() == BIG


# Tokens


def challenge(endpoint: str, realm: str = REALM) -> dict[str, str]:
    return {"WWW-Authenticate": f'JWT realm="{realm}", ph-aeps="{endpoint}"'}


def cache_token(endpoint: str, token: str, refresh: str = "") -> Path:
    path = Path(os.environ["HOME"], ".pvr/auth.json")
    path.parent.mkdir(exist_ok=True)
    entry = {"Name": "", "access-token": token, "refresh-token": refresh or token}
    path.write_text(json.dumps({"spec": "1", "tokens": {f"{endpoint} realm={REALM}": entry}, "other": [1]}))
    return path


def guarded(hub: FakeHub, endpoint: str) -> Callable[[Handler], bool]:
    """Wants one of the hub's tokens for everything but logins and blobs."""

    def rule(handler: Handler) -> bool:
        if handler.path.startswith(("/auth/", "/s3/")):
            return False
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        return token not in hub.tokens and handler.reply(401, b'{"Error":"Not Authorized"}', challenge(endpoint))

    return rule


def test_a_cached_token_is_used_and_never_sent_to_signed_addresses(pvr: Any, hub: FakeHub) -> None:
    endpoint = f"{hub.url}/auth"
    hub.tokens.add("good")
    hub.rules.append(guarded(hub, endpoint))
    cache_token(endpoint, "good")
    pvr("get", "me/dev")
    assert all("Authorization" not in headers for _, path, headers in hub.seen if "/s3/" in path)
    assert hub.count("POST", "/auth/login") == 0


def test_an_expired_token_is_refreshed_and_kept(pvr: Any, hub: FakeHub) -> None:
    endpoint = f"{hub.url}/auth"
    hub.refreshable.add("refresh-me")
    hub.rules.append(guarded(hub, endpoint))
    path = cache_token(endpoint, "expired", "refresh-me")
    pvr("get", "me/dev")
    document = json.loads(path.read_text())
    assert document["tokens"][f"{endpoint} realm={REALM}"]["access-token"] == "fresh"
    assert document["other"] == [1], "what others keep in the file stays"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir() if "tmp" in p.name] == []


def test_a_foreign_server_does_not_get_the_hubs_token(pvr: Any, hub: FakeHub) -> None:
    cache_token("https://api.example.org/auth", "precious")
    hub.rules.append(guarded(hub, "https://api.example.org/auth"))
    assert "was not sent" in pvr("get", "me/dev", code=3).err
    assert not any("precious" in str(headers) for _, _, headers in hub.seen)


def test_an_access_token_goes_to_the_named_hosts_and_asks_nothing(pvr: Any, hub: FakeHub) -> None:
    hub.tokens.add("good")
    hub.rules.append(guarded(hub, f"{hub.url}/auth"))
    pvr("--access-token", "good", "get", "me/dev")
    assert "401" in pvr("--access-token", "bad", "get", "me/dev", code=3).err
    assert hub.count("POST", "/auth/login") == 0
    assert all("Authorization" not in headers for _, path, headers in hub.seen if "/s3/" in path)


def test_a_bare_403_is_an_error_and_no_crash(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(on("GET", "/me/dev", lambda handler: handler.reply(403)))
    err = pvr("get", "me/dev", code=3).err
    assert "403" in err
    assert "Traceback" not in err


def test_a_guest_never_takes_the_place_of_a_user(pvr: Any, hub: FakeHub) -> None:
    """A user's token that has expired for good: the guest may read, but the user's entry stays the user's."""

    def guest(handler: Handler) -> bool:
        if json.loads(handler.body or b"{}").get("username", "").endswith("/anon"):
            hub.tokens.add("guest")
            return handler.json({"token": "guest"})
        return False

    endpoint = f"{hub.url}/auth"
    hub.rules += [on("POST", "/auth/login", guest), guarded(hub, endpoint)]
    path = cache_token(endpoint, "expired")
    pvr("get", "me/dev")
    assert json.loads(path.read_text())["tokens"][f"{endpoint} realm={REALM}"]["access-token"] == "expired"
    assert "guest" not in path.read_text()


# References


def test_an_empty_get_asks_where_the_last_one_asked(pvr: Any, hub: FakeHub) -> None:
    pvr("get", "me/dev")
    config = json.loads(Path(".pvr/config").read_text())
    Path(".pvr/config").write_text(json.dumps(config | {"DefaultPutUrl": f"{hub.url}/other/place"}))
    pvr("get")
    assert hub.count("GET", "/me/dev/.pvrremote") == 2
    assert hub.count("GET", "/other/place") == 0


def test_merge_knows_every_kind_of_reference(pvr: Any, hub: FakeHub) -> None:
    pvr("merge", "me/dev#web")
    assert json.loads(state_bytes())["web/big"] == SHA
    # A device that is not there: what counts is where it was looked for.
    assert "127.0.91.9:12368 could not be reached" in pvr("merge", "127.0.91.9", code=3).err


# Global flags


def test_a_proxy_is_used_as_asked(pvr: Any, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake hub plays the proxy: it sees whole URLs of a host that does not exist."""
    wanted: list[str] = []

    def through(handler: Handler) -> bool:
        if not handler.path.startswith("http://"):
            return False
        wanted.append(handler.path)
        return handler.reply(404)

    hub.rules.append(through)
    pvr("--http-proxy", hub.url, "get", "http://hub.invalid/me/dev", code=3)
    assert wanted.pop() == "http://hub.invalid/me/dev/.pvrremote"
    monkeypatch.setenv("http_proxy", hub.url)
    pvr("get", "http://hub.invalid/me/dev", code=3)
    assert wanted.pop() == "http://hub.invalid/me/dev/.pvrremote"
    # Registries as well.
    image = ("app", "add", "web", "--from", "registry.invalid/web:1", "--source", "remote", "--plain-http")
    pvr(*image, code=3)
    assert wanted.pop().startswith("http://registry.invalid/v2/web/")
    pvr("--http-proxy", "no", "get", "http://hub.invalid/me/dev", code=3)
    monkeypatch.setenv("PVR_HTTP_PROXY", "no")
    pvr("get", "http://hub.invalid/me/dev", code=3)
    assert wanted == []
    assert "is no proxy" in pvr("--http-proxy", "nonsense", "get", "http://hub.invalid/me/dev", code=3).err


def test_certificates_are_verified_unless_one_says_otherwise(
    pvr: Any, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _ = Authority(tmp_path / "ca").server()
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    plain, secure = hub.url, hub.url.replace("http://", "https://")
    hub.url = secure
    assert "certificate" in pvr("get", f"{secure}/me/dev", code=3).err.lower()
    assert hub.seen == []
    pvr("--insecure", "get", f"{secure}/me/dev")
    assert pool() == [SHA]
    monkeypatch.setenv("PVR_INSECURE", "true")
    pvr("get", f"{secure}/me/dev")
    hub.url = plain


def test_debug_shows_requests_and_no_secret(pvr: Any, hub: FakeHub) -> None:
    hub.tokens.add("secret-token")
    hub.rules.append(guarded(hub, f"{hub.url}/auth"))
    err = pvr("--debug", "--access-token", "secret-token", "get", "me/dev").err
    assert f"GET {hub.url}/me/dev/.pvrremote" in err
    assert "200" in err
    assert "secret-token" not in err
    assert "DEBUG" not in pvr("--access-token", "secret-token", "get", "me/dev").err


def test_user_and_password_need_no_terminal(pvr: Any, hub: FakeHub) -> None:
    def login(handler: Handler) -> bool:
        body = json.loads(handler.body or b"{}")
        if body.get("username") != "me" or body.get("password") != "secret":
            return handler.reply(401, b'{"error":"REST-ERR","code":401}')
        hub.tokens.add("by-password")
        return handler.json({"token": "by-password"})

    hub.rules += [on("POST", "/auth/login", login), guarded(hub, f"{hub.url}/auth")]
    pvr("--user", "me", "--password", "wrong", "get", "me/dev", code=3)
    pvr("--user", "me", "--password", "secret", "get", "me/dev")
    pvr("get", "me/dev")


# Posts


def commit(data: bytes) -> str:
    Path("web").mkdir(exist_ok=True)
    Path("web/new").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_a_post_uploads_what_is_missing_once(pvr: Any, hub: FakeHub) -> None:
    pvr("get", "me/dev")
    pvr("checkout")
    sha = commit(b"new content")
    Path("web/same").write_bytes(b"new content")
    Path("web/empty").write_bytes(b"")
    pvr("add")
    pvr("commit")
    err = pvr("post", "-m", "the message", "--envelope", '{"x":1}', "me/dev").err
    assert "Successfully posted Revision 1 (abababab) to device id t" in err
    assert hub.posted[0]["commit-msg"] == "the message"
    assert hub.posted[0]["x"] == 1
    assert hub.posted[0]["rev"] == -1
    assert hub.posted[0]["state"]["web/new"] == sha
    assert hub.count("POST", "/objects/") == 2, "each sha once, the device's own not at all"
    config = json.loads(Path(".pvr/config").read_text())
    assert config["DefaultPostUrl"] == f"{hub.url}/me/dev"
    pvr("post")
    assert len(hub.posted) == 2


def test_a_failed_upload_posts_nothing_and_is_finished_by_the_next_run(pvr: Any, hub: FakeHub) -> None:
    sha = commit(b"new content")
    pvr("add")
    pvr("commit")
    before = state_bytes()
    hub.rules.append(on("PUT", "/s3/", lambda handler: handler.reply(500)))
    assert "run the same command again" in pvr("post", "me/dev", code=3).err
    assert hub.posted == []
    assert state_bytes() == before
    hub.rules.clear()
    pvr("post", "me/dev")
    assert hub.objects[sha] == b"new content"


def test_a_post_is_not_repeated_when_its_fate_is_unknown(pvr: Any, hub: FakeHub) -> None:
    hub.rules.append(
        on("POST", "/steps", lambda handler: handler.path == "/steps" and handler.reply(500, b"who knows"))
    )
    err = pvr("post", "me/dev", code=3).err
    assert "REST call failed. 500" in err
    assert "who knows" in err
    assert sum(1 for method, path, _ in hub.seen if (method, path) == ("POST", "/steps")) == 1


def test_an_object_that_is_gone_from_the_pool_stops_a_post_before_it_begins(pvr: Any, hub: FakeHub) -> None:
    sha = commit(b"soon gone")
    pvr("add")
    pvr("commit")
    os.unlink(Path(os.environ["HOME"], ".pvr/objects", sha))
    assert "nothing was posted" in pvr("post", "me/dev", code=3).err
    assert hub.count("POST", "/") == 0


def test_force_uploads_again(pvr: Any, hub: FakeHub) -> None:
    pvr("get", "me/dev")
    hub.state = {"#spec": "x"}
    pvr("post", "me/dev")
    assert hub.count("PUT", "/s3/") == 0
    pvr("post", "--force", "me/dev")
    assert hub.count("PUT", "/s3/") == 1


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["one-word"], 2),
        (["--envelope", "[]", "me/dev"], 3),
        (["--envelope", "{", "me/dev"], 3),
        (["--rev", "x", "me/dev"], 3),
        (["locals"], 2),
    ],
    ids=str,
)
def test_bad_arguments_reach_no_server(args: list[str], code: int, pvr: Any, hub: FakeHub) -> None:
    pvr("post", *args, code=code)
    assert hub.seen == []


def test_a_local_revision_is_named_in_the_envelope(pvr: Any, hub: FakeHub) -> None:
    pvr("post", "--rev", "locals/test", "me/dev")
    assert hub.posted[0]["rev"] == "locals/test"
    pvr("post", "--rev", "7", "me/dev")
    assert hub.posted[1]["rev"] == 7
