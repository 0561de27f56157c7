"""The registry client against a registry that misbehaves on command, without a network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.core.errors import BricklessError, HostileInputError, UserError
from brickless.linux import process
from brickless.oci.auth import Credentials, DockerConfig
from brickless.oci.layout import LayoutWriter
from brickless.oci.limits import Limits
from brickless.oci.manifest import Platform
from brickless.oci.reference import Reference
from brickless.oci.registry import Access, RegistryClient, RegistryError, is_loopback
from brickless.store.objects import ObjectStore
from brickless.testkit.archives import file, tar_of
from brickless.testkit.debian_image import GZIP, write_image

HOST = "registry.example.org"
LAYER = tar_of(("a", file(b"content" * 5000)))
Answer = Callable[[httpx.Request], httpx.Response | None]


class Fake:
    """A registry of one image, `team/app:1`, as a transport; `before` may answer in its place. Requests are kept."""

    def __init__(self, folder: Path, before: Answer = lambda _: None) -> None:
        writer = LayoutWriter(folder)
        self.manifest = write_image(writer, [(LAYER, GZIP)], {"Cmd": ["/x"]})
        self.blobs = {f"sha256:{p.name}": p.read_bytes() for p in (folder / "blobs/sha256").iterdir()}
        self.layer = max(
            (d for d in self.blobs if d != self.manifest.digest), key=lambda d: self.blobs[d][:2] == b"\x1f\x8b"
        )
        self.before = before
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self.answer(request)
        if not answer.is_stream_consumed:
            return answer
        # A transport hands out streams that nobody has read yet, as the real one does.
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if (answer := self.before(request)) is not None:
            return answer
        kind, _, name = request.url.path.removeprefix("/v2/team/app/").partition("/")
        if kind == "manifests":
            digest = self.manifest.digest if name == "1" else name
            if digest in self.blobs:
                headers = {"Content-Type": self.manifest.media_type, "Docker-Content-Digest": digest}
                return httpx.Response(200, content=self.blobs[digest], headers=headers)
        if kind == "blobs" and name in self.blobs:
            return self.blob(request, self.blobs[name])
        return httpx.Response(404, json={"errors": [{"code": "X", "message": "unknown to registry"}]})

    def blob(self, request: httpx.Request, data: bytes) -> httpx.Response:
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if not found:
            return httpx.Response(200, content=data)
        start = int(found[1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return httpx.Response(206, content=data[start:], headers=headers)


@pytest.fixture
def pull(tmp_path: Path) -> Callable[..., tuple[Fake, bytes]]:
    def run(
        before: Answer = lambda _: None, *, access: Access | None = None, name: str = "1", **kw: Any
    ) -> tuple[Fake, bytes]:
        fake = Fake(tmp_path / "image", before)
        fakes.append(fake)
        reference = Reference.parse(f"{HOST}/team/app:{name}")
        store = ObjectStore(str(tmp_path / "cache"))
        transport = httpx.MockTransport(fake)
        kw.setdefault("pause", lambda _: None)
        with RegistryClient(reference, store, access=access, transport=transport, **kw) as client:
            image = client.image([Platform("linux", "amd64")])
            return fake, b"".join(image.layers[0].chunks())

    fakes: list[Fake] = []
    run.fakes = fakes  # type: ignore[attr-defined]  # for the tests that look at them
    return run


def on(pattern: str, answer: Callable[[httpx.Request], httpx.Response], times: int = 99) -> Answer:
    left = [times]

    def before(request: httpx.Request) -> httpx.Response | None:
        if re.search(pattern, str(request.url)) and left[0]:
            left[0] -= 1
            return answer(request)
        return None

    return before


def test_a_plain_pull_asks_each_thing_once_over_tls(pull: Any) -> None:
    fake, data = pull()
    assert data == LAYER
    assert [request.url.scheme for request in fake.requests] == ["https"] * 3
    assert "index" in fake.requests[0].headers["accept"]
    _, again = pull()
    assert again == LAYER
    assert len([r for r in pull.fakes[-1].requests if "/blobs/" in r.url.path]) == 0, "the blobs came from the cache"


def broken(data: bytes) -> httpx.Response:
    def stream() -> Iterator[bytes]:
        yield data
        raise httpx.ReadError("connection reset by peer")

    return httpx.Response(200, content=stream())


def test_a_broken_line_is_resumed_where_it_stopped(pull: Any) -> None:
    fakes = pull.fakes

    def half(request: httpx.Request) -> httpx.Response:
        data = fakes[-1].blobs[fakes[-1].layer]
        return broken(data[: len(data) // 2])

    def before(request: httpx.Request) -> httpx.Response | None:
        is_layer = request.url.path.endswith(fakes[-1].layer)
        return half(request) if is_layer and "range" not in request.headers else None

    fake, data = pull(before)
    assert data == LAYER
    assert any(r.headers.get("range") == f"bytes={len(fake.blobs[fake.layer]) // 2}-" for r in fake.requests)


def test_a_server_without_ranges_is_asked_from_the_start(pull: Any) -> None:
    fakes = pull.fakes
    calls: list[int] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(fakes[-1].layer):
            return None
        calls.append(1)
        data = fakes[-1].blobs[fakes[-1].layer]
        return broken(data[:100]) if len(calls) == 1 else httpx.Response(200, content=data)

    assert pull(before)[1] == LAYER
    assert len(calls) == 2


UNKNOWN = {"errors": [{"message": "manifest unknown"}]}
HUGE = b" " * 5_000_000
OTHER = {"Docker-Content-Digest": "sha256:" + "1" * 64}
PLAIN_TOKENS = {"WWW-Authenticate": 'Bearer realm="http://auth.example.org/t"'}


def redirect(target: str) -> httpx.Response:
    return httpx.Response(307, headers={"Location": target})


BAD: dict[str, tuple[Answer, str]] = {
    "401 without a challenge": (on("manifests", lambda r: httpx.Response(401)), "wants credentials"),
    "403": (on("manifests", lambda r: httpx.Response(403)), "answered 403"),
    "404": (on("manifests", lambda r: httpx.Response(404, json=UNKNOWN)), "unknown"),
    "500": (on("manifests", lambda r: httpx.Response(500, text="<html>oops")), "answered 500"),
    "500 for a layer": (on("blobs", lambda r: httpx.Response(500)), "answered 500"),
    "a manifest that is too large": (on("manifests", lambda r: httpx.Response(200, content=HUGE)), "more than"),
    "a manifest that is no JSON": (on("manifests", lambda r: httpx.Response(200, text="<html>")), "no valid JSON"),
    "a manifest with another digest": (
        on("manifests", lambda r: httpx.Response(200, text="{}", headers=OTHER)),
        "has the digest",
    ),
    "a layer of zeros": (on("blobs/", lambda r: httpx.Response(200, content=bytes(10))), "cut off|hash"),
    "an endless redirect": (on("manifests", lambda r: redirect(str(r.url))), "more than 5"),
    "a redirect to plain HTTP": (
        on("blobs", lambda r: redirect("http://cdn.example.org/x")),
        "not secure",
    ),
    "a redirect to a file": (on("blobs", lambda r: redirect("file:///etc/passwd")), "not secure"),
    "a token service without TLS": (
        on("manifests", lambda r: httpx.Response(401, headers=PLAIN_TOKENS)),
        "token service",
    ),
    "no connection": (on("manifests", lambda r: (_ for _ in ()).throw(httpx.ConnectError("refused"))), "cannot reach"),
    "a line that breaks in the manifest": (on("manifests", lambda r: broken(b'{"schema')), "connection broke"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_a_registry_that_misbehaves_gets_a_clear_error(pull: Any, tmp_path: Path, name: str) -> None:
    before, message = BAD[name]
    with pytest.raises(BricklessError, match=message):
        pull(before)
    named = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.endswith(".part")]
    for path in named:
        assert ObjectStore(str(tmp_path / "cache")).verify(path.name) or len(path.name) != 64


def test_an_overloaded_registry_is_asked_again_a_few_times(pull: Any) -> None:
    pauses: list[float] = []
    busy = on("manifests", lambda r: httpx.Response(429, headers={"Retry-After": "7"}), times=2)
    assert pull(busy, pause=pauses.append)[1] == LAYER
    assert pauses == [7, 7]
    pauses.clear()
    with pytest.raises(RegistryError, match="answered 503"):
        pull(on("manifests", lambda r: httpx.Response(503)), pause=pauses.append)
    assert pauses == [0.5, 1.0, 2.0]


def test_half_a_layer_is_kept_for_the_next_try(pull: Any) -> None:
    fakes = pull.fakes

    def before(request: httpx.Request) -> httpx.Response | None:
        data = fakes[-1].blobs[fakes[-1].layer]
        return (
            broken(data[:7])
            if request.url.path.endswith(fakes[-1].layer) and "range" not in request.headers
            else (
                httpx.Response(206, content=b"", headers={"Content-Range": "bytes 7-7/9"})
                if request.url.path.endswith(fakes[-1].layer)
                else None
            )
        )

    with pytest.raises(HostileInputError, match=r"cut off: 7 of \d+ bytes(.|\n)*what arrived is kept"):
        pull(before)
    fake, data = pull()
    assert data == LAYER
    assert any(r.headers.get("range") == "bytes=7-" for r in fake.requests)


def test_a_layer_that_never_ends_is_cut_at_its_announced_size(pull: Any) -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        def stream() -> Iterator[bytes]:
            while True:
                yield bytes(1 << 16)

        return httpx.Response(200, content=stream())

    fakes = pull.fakes
    with pytest.raises(HostileInputError, match=r"larger than|more than"):
        pull(lambda r: endless(r) if r.url.path.endswith(fakes[-1].layer) else None)


def test_limits_on_layers(pull: Any) -> None:
    with pytest.raises(HostileInputError, match="at most 10 are fetched"):
        pull(limits=Limits(layer_bytes=10))


# Who we are.

CHALLENGE = {
    "WWW-Authenticate": f'Bearer realm="https://auth.example.org/token?a=b",service="{HOST}",scope="repository:team/app:pull"'
}


def bearer(wanted: str, tokens: list[httpx.Request]) -> Answer:
    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "auth.example.org":
            tokens.append(request)
            return httpx.Response(200, json={"token": "t0ken"})
        if request.headers.get("authorization") != wanted:
            return httpx.Response(401, headers=CHALLENGE)
        return None

    return before


def test_bearer_tokens_are_fetched_once_with_what_the_challenge_asks(pull: Any) -> None:
    tokens: list[httpx.Request] = []
    access = Access(credentials=Credentials("me", "secret"))
    _, data = pull(bearer("Bearer t0ken", tokens), access=access)
    assert data == LAYER
    (request,) = tokens
    assert dict(request.url.params) == {"a": "b", "service": HOST, "scope": "repository:team/app:pull"}
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


def test_an_anonymous_token_and_an_identity_token(pull: Any) -> None:
    tokens: list[httpx.Request] = []
    assert pull(bearer("Bearer t0ken", tokens))[1] == LAYER
    assert "authorization" not in tokens[0].headers
    assert pull(bearer("Bearer t0ken", tokens), access=Access(credentials=Credentials("", "", "idt")))[1] == LAYER
    assert b"grant_type=refresh_token&refresh_token=idt" in tokens[1].content


def test_basic_and_a_wrong_password(pull: Any) -> None:
    right = "Basic " + base64.b64encode(b"me:secret").decode()

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.headers.get("authorization") == right:
            return None
        return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'}, text="no")

    assert pull(before, access=Access(credentials=Credentials("me", "secret")))[1] == LAYER
    with pytest.raises(RegistryError, match="answered 401") as caught:
        pull(before, access=Access(credentials=Credentials("me", "wrong")))
    assert "wrong" not in str(caught.value)
    assert "secret" not in repr(Access(credentials=Credentials("me", "secret")))


def test_credentials_stay_with_their_registry_when_it_redirects(pull: Any) -> None:
    tokens: list[httpx.Request] = []
    fakes = pull.fakes

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "cdn.example.org":
            return fakes[-1].blob(request, fakes[-1].blobs[request.url.path.rpartition("/")[2]])
        if (answer := bearer("Bearer t0ken", tokens)(request)) is not None:
            return answer
        if "/blobs/" in request.url.path:
            name = request.url.path.rpartition("/")[2]
            return httpx.Response(307, headers={"Location": f"https://cdn.example.org/{name}"})
        return None

    fake, data = pull(before, access=Access(credentials=Credentials("me", "secret")))
    assert data == LAYER
    elsewhere = [request for request in fake.requests if request.url.host == "cdn.example.org"]
    assert len(elsewhere) == 2
    assert all("authorization" not in request.headers for request in elsewhere)


@pytest.mark.parametrize("answer", [{}, {"token": ""}, {"token": "a\nb"}, {"token": 5}, {"token": None}])
def test_a_token_service_that_answers_nonsense(pull: Any, answer: dict[str, Any]) -> None:
    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "auth.example.org":
            return httpx.Response(200, json=answer)
        return httpx.Response(401, headers=CHALLENGE)

    with pytest.raises(HostileInputError, match="without a token"):
        pull(before)


def test_plain_http_only_when_asked_or_on_loopback(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    cases = {
        "127.0.0.1:5000/a": "http", "localhost:5000/a": "http", "[::1]:5000/a": "http", "nginx": "https",
        "127.0.0.1.example.org/a": "https", "10.0.0.1:5000/a": "https", "localhost.example.org:5000/a": "https",
    }  # fmt: skip
    for name, scheme in cases.items():
        with RegistryClient(Reference.parse(name), store) as client:
            assert client.base.startswith(f"{scheme}://"), name
    with RegistryClient(Reference.parse("10.0.0.1:5000/a"), store, access=Access(plain_http=True)) as client:
        assert client.base == "http://10.0.0.1:5000/v2/a"
    with RegistryClient(
        Reference.parse("nginx"), store, access=Access(mirrors={"docker.io": "m.example.org"})
    ) as client:
        assert client.base == "https://m.example.org/v2/library/nginx"
    assert not is_loopback("")


# Docker's configuration.


def test_docker_config(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-brick"
    encoded = base64.b64encode(b"me:pass:word").decode()
    document = {
        "auths": {
            HOST: {"auth": encoded},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "t.example.org": {"identitytoken": "idt"},
        },
        "credHelpers": {"h.example.org": "no-such-helper", "e.example.org": "../evil"},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    config = DockerConfig.load(path)
    assert config.find(HOST) == Credentials("me", "pass:word")
    assert config.find("docker.io") == Credentials("hub", "p")
    assert config.find("t.example.org") == Credentials("", "", "idt")
    assert config.find("other.example.org") is None
    assert "pass" not in repr(config)
    with pytest.raises(process.ToolMissingError, match="docker-credential-no-such-helper"):
        config.find("h.example.org")
    with pytest.raises(UserError, match="no name of a credential helper"):
        config.find("e.example.org")
    assert DockerConfig.load(tmp_path / "none").find(HOST) is None
    helper.write_text("""#!/bin/sh
read host
case "$host" in
  h.example.org) echo '{"Username":"u","Secret":"s"}';;
  t2.example.org) echo '{"Username":"<token>","Secret":"idt2"}';;
  bad.example.org) echo 'nonsense';;
  sad.example.org) echo 'the store is locked'; exit 1;;
  *) echo 'credentials not found in native keychain'; exit 1;;
esac
""")
    helper.chmod(0o755)
    path.write_text(json.dumps({"credHelpers": {"h.example.org": "brick"}, "credsStore": "brick"}))
    config = DockerConfig.load(path, {"PATH": f"{tmp_path}:{process.SEARCH_PATH}"})
    assert config.find("h.example.org") == Credentials("u", "s")
    assert config.find("t2.example.org") == Credentials("", "", "idt2")
    assert config.find("unknown.example.org") is None
    with pytest.raises(UserError, match="no credential"):
        config.find("bad.example.org")
    with pytest.raises(UserError, match="the store is locked"):
        config.find("sad.example.org")


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"x": {"auth": "%%"}}}', '{"credsStore": 5}'])
def test_a_damaged_docker_config_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        DockerConfig.load(path).find("x")


GOOD = {
    "nginx": ("docker.io", "library/nginx", "latest", "registry-1.docker.io"),
    "me/app:v1": ("docker.io", "me/app", "v1", "registry-1.docker.io"),
    "docker.io/me/app": ("docker.io", "me/app", "latest", "registry-1.docker.io"),
    "index.docker.io/nginx": ("docker.io", "library/nginx", "latest", "registry-1.docker.io"),
    "host:5000/img": ("host:5000", "img", "latest", "host:5000"),
    "localhost/img:x": ("localhost", "img", "x", "localhost"),
    "a.b.c/d/e_f/g--h:T.1-2": ("a.b.c", "d/e_f/g--h", "T.1-2", "a.b.c"),
    "[::1]:5000/img": ("[::1]:5000", "img", "latest", "[::1]:5000"),
}  # fmt: skip
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize("text", list(GOOD))
def test_good_references(text: str) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.host) == GOOD[text]
    pinned = Reference.parse(f"{text}@{DIGEST}")
    assert pinned.wanted == DIGEST
    assert pinned.repository == found.repository
    assert Reference.parse(str(pinned)) == pinned


def test_a_digest_alone_needs_no_tag() -> None:
    found = Reference.parse(f"host:5000/img@{DIGEST}")
    assert (found.tag, found.wanted, str(found)) == ("", DIGEST, f"host:5000/img@{DIGEST}")


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "@", "/", "UPPER/x:1/", "a//b", "../etc/passwd", "a/../b", "host:5000/", "host:port/img",
        "img:", "img:a b",
        "img:" + "t" * 200,
        "img@sha256:short", "img@md5:" + "0" * 64, f"img@{DIGEST}@{DIGEST}", "a" * 2000, "http://host/img",
        "host.x/Img", "img\n", "img?x=1", "img#x",
        "user@host/img", "-img", "img:../x",
    ],
)  # fmt: skip
def test_bad_references(text: str) -> None:
    with pytest.raises(UserError, match="image reference"):
        Reference.parse(text)
