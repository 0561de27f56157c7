"""The transcripts of contract hub.md section 8 and the extra cases of section 9.4, against the real hub."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256

POLL = 'progress.status=%7B"$in":["NEW","DOWNLOADING","INPROGRESS","TESTING","QUEUED"]%7D'
ENCODED_POLL = (
    "progress.status=%7B%22%24in%22%3A%5B%22NEW%22%2C%22DOWNLOADING%22%2C%22INPROGRESS%22%2C%22TESTING%22%2C"
    "%22QUEUED%22%5D%7D"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(
        data_dir, tls=True, arguments=[*hub_storage.arguments, "--no-rate-limits"], environment=hub_storage.environment
    ) as running:
        yield running


@pytest.fixture
def nobody(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client)


@pytest.fixture
def user(nobody: Caller) -> Caller:
    return nobody.login("user1", "user1")


class RawAnswer:
    """An answer as a client without a library sees it."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}

    def token_after(self, key: str) -> str:
        """What the C client's scanner finds: the first string equal to the key, anywhere, and the string behind it."""
        return self.body.decode().split(f'"{key}":"', 1)[1].split('"', 1)[0]


def raw(hub: HubProcess, request: bytes, *, tls: bool = False) -> RawAnswer:
    with socket.create_connection(("127.0.0.1", hub.tls_port if tls else hub.port), timeout=20) as plain:
        sock: socket.socket = hub.tls_context().wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain
        sock.sendall(request)
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
        if tls:
            sock.close()
        return RawAnswer(data)


class LegacyDevice:
    """The HTTP/1.0 stack of the C client: absolute targets, `Connection: close`, JSON by text search."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.token = ""

    def call(self, method: str, path: str, body: bytes = b"", headers: str = "") -> RawAnswer:
        head = f"{method} https://127.0.0.1:{self.hub.tls_port}{path} HTTP/1.0\r\n"
        head += (
            f"Host: 127.0.0.1:{self.hub.tls_port}\r\nUser-Agent: Pantavisor/2 (Linux; armv7l) PV/027 Date/20250101\r\n"
        )
        if self.token:
            head += f"Authorization: Bearer {self.token}\r\n"
        if body or method in {"PUT", "POST"}:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return raw(self.hub, f"{head}{headers}Connection: close\r\n\r\n".encode() + body, tls=True)


class TestChallenge:
    def test_401_bytes(self, hub: HubProcess) -> None:
        answer = raw(hub, f"GET /devices/ HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: close\r\n\r\n".encode())
        assert answer.status == 401
        assert answer.body == b'{"Error":"Not Authorized"}'
        expected = f'JWT realm="pantahub services", ph-aeps="{hub.url}/auth"'
        assert answer.headers["www-authenticate"] == expected
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["x-powered-by"] == "go-json-rest"

    @pytest.mark.parametrize("header", ["bearer x", "Bearer", "Bearer a.b.c", "Basic dTp1", "Bearer\tx", "JWT x"])
    def test_what_is_no_bearer(self, nobody: Caller, header: str) -> None:
        answer = nobody.get("/trails/", headers={"Authorization": header})
        assert (answer.status_code, answer.content) == (401, b'{"Error":"Not Authorized"}')

    def test_an_unknown_path_needs_a_token_first(self, nobody: Caller, user: Caller) -> None:
        assert nobody.get("/devices/a/b/c/d").status_code == 401
        answer = user.get("/devices/a/b/c/d")
        assert (answer.status_code, answer.content) == (404, b'{"Error":"Resource not found"}')
        assert user.get("/no-service").status_code == 404

    def test_405_has_no_allow(self, user: Caller) -> None:
        answer = user.delete("/trails/")
        assert (answer.status_code, answer.content) == (405, b'{"Error":"Method not allowed"}')
        assert "allow" not in answer.headers

    def test_login_without_user_agent(self, hub: HubProcess) -> None:
        body = b'{"username":"user1","password":"user1"}'
        head = f"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        answer = raw(hub, head.encode() + body)
        assert answer.status == 403
        assert json.loads(answer.body)["msg"] == "Incompatible Client; upgrade pantavisor"

    def test_insufficient_scope(self, hub: HubProcess, nobody: Caller) -> None:
        reader = nobody.login("user1", "user1", scope="devices.readonly")
        answer = reader.post("/devices/", {"nick": "x"})
        assert answer.status_code == 403
        fields = answer.headers["www-authenticate"].split(", ")
        assert fields[0] == 'Bearer Realm="pantahub services"'
        assert fields[1] == f'ph-aeps="{hub.url}/auth"'
        prefix = "prn:pantahub.com:apis:/base/"
        assert fields[2] == f'scope="{prefix}all {prefix}devices {prefix}devices.write"'
        assert fields[3] == 'error="insufficient_scope"'
        assert reader.get("/devices/").status_code == 200
        assert reader.get("/trails/").status_code == 403


def test_no_answer_waits_for_a_delayed_acknowledgement(user: Caller) -> None:
    """Nagle's delay on accepted sockets costs 40 ms an answer; the fastest of ten shows that it is off."""

    def once() -> float:
        before_s = time.perf_counter()
        assert user.get("/devices/").status_code == 200
        return time.perf_counter() - before_s

    assert min(once() for _ in range(10)) < 0.03


class TestPaths:
    def test_both_forms_of_a_service(self, user: Caller) -> None:
        assert user.get("/devices").status_code == 200
        assert user.get("/devices/").status_code == 200

    @pytest.mark.parametrize(
        ("path", "location"),
        [("//devices/", "/devices/"), ("/devices//x", "/devices/x"), ("/a/../devices/?q=1", "/devices/?q=1")],
    )
    def test_unclean_paths_are_redirected(self, hub: HubProcess, path: str, location: str) -> None:
        answer = raw(hub, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert (answer.status, answer.headers["location"]) == (307, location)

    def test_a_trailing_slash_is_another_path_except_in_trails(self, user: Caller) -> None:
        device = claimed_device(user).start_trail()
        assert user.get(f"/devices/{device.id}/").status_code == 404
        assert user.get(f"/trails/{device.id}/").status_code == 200
        assert user.get(f"/trails/{device.id}/steps/0/objects/").status_code == 200

    def test_an_escaped_slash_stays_in_its_segment(self, user: Caller) -> None:
        assert user.get("/devices/a%2Fb").status_code == 400  # looked up as one nick, not as two segments

    def test_cors(self, user: Caller) -> None:
        asked = {"Origin": "https://ui.example", "Access-Control-Request-Method": "PATCH"}
        answer = user.call("OPTIONS", "/devices/x", headers=asked | {"Access-Control-Request-Headers": "Authorization"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"
        assert "PATCH" in answer.headers["access-control-allow-methods"].split(",")
        assert user.call("OPTIONS", "/logs/", headers=asked).json() == {"Error": "Invalid Preflight Request"}
        assert "access-control-allow-origin" not in user.get("/devices/").headers


class TestLegacyDevice:
    """Section 8.2, first boot to the first update, as the C client says it."""

    def test_the_whole_life(self, hub: HubProcess, user: Caller) -> None:
        device = LegacyDevice(hub)
        registered = device.call("POST", "/devices/")
        assert registered.status == 200
        identity = {key: registered.token_after(key) for key in ("id", "prn", "secret", "challenge", "owner")}
        login = json.dumps({"username": identity["prn"], "password": identity["secret"]}).encode()
        device.token = device.call("POST", "/auth/login", login).token_after("token")
        assert device.call("GET", f"/devices/{identity['id']}").token_after("challenge") == identity["challenge"]

        user.put(f"/devices/{identity['id']}?challenge={identity['challenge']}")
        assert device.call("GET", f"/devices/{identity['id']}").token_after("owner") == user.claims["prn"]
        device.token = device.call("POST", "/auth/login", login).token_after("token")
        assert device.call("GET", "/trails/").body == b"[]"

        data = b"\x00factory kernel\xff" * 1000
        body = json.dumps({"objectname": "bsp/kernel.img", "size": str(len(data)), "sha256sum": sha256(data)}).encode()
        announced = device.call("POST", "/objects/", body)
        assert announced.status == 200
        put_url = urlsplit(announced.token_after("signed-puturl"))
        assert put_url.netloc == f"127.0.0.1:{hub.tls_port}"
        assert "/local-s3" in put_url.path
        assert device.call("PUT", put_url.path, data).status == 200
        assert device.call("POST", "/objects/", body).status == 409
        state = {"#spec": SPEC, "files/kernel.img": sha256(data)}
        assert device.call("POST", "/trails/", json.dumps(state).encode()).status == 200

        idle = device.call("GET", f"/trails/{identity['id']}/steps?{POLL}")
        assert (idle.status, idle.body) == (200, b"[]")
        post_revision(user, identity["id"], {**state, "new.json": {}})
        for query in (POLL, ENCODED_POLL):
            polled = device.call("GET", f"/trails/{identity['id']}/steps?{query}")
            step = json.loads(polled.body)[0]
            assert (step["rev"], step["state"]) == (1, {**state, "new.json": {}})
        for status in ("QUEUED", "DOWNLOADING", "INPROGRESS", "TESTING", "DONE"):
            report = json.dumps({"status": status, "status-msg": status, "progress": 5}).encode()
            assert device.call("PUT", f"/trails/{identity['id']}/steps/1/progress", report).status == 200
        assert device.call("GET", f"/trails/{identity['id']}/steps?{POLL}").body == b"[]"
        got = json.loads(device.call("GET", f"/objects/{sha256(data)}").body)
        assert device.call("GET", urlsplit(got["signed-geturl"]).path).body == data
        lines = json.dumps(
            [{"tsec": 1, "tnano": 0, "plat": "pantavisor", "src": "x", "lvl": "INFO", "msg": "m"}]
        ).encode()
        assert device.call("POST", "/logs/", lines).body == b'{"status":"ok"}'

    def test_factory_claim(self, hub: HubProcess, user: Caller) -> None:
        token = user.post("/devices/tokens", {"default-user-meta": {"factory": "yes"}}).json()
        header = f"Pantahub-Devices-Auto-Token-V1: {token['token']}\r\n"
        answer = LegacyDevice(hub).call("POST", "/devices/", headers=header)
        assert answer.token_after("owner") == user.claims["prn"]
        assert b"challenge" not in answer.body
        assert json.loads(answer.body)["user-meta"] == {"factory": "yes"}
        assert "token" not in user.get("/devices/tokens").json()[0]
        assert user.delete(f"/devices/tokens/{token['id']}").json() == {"status": "OK"}
        assert LegacyDevice(hub).call("POST", "/devices/", headers=header).status == 400
        assert LegacyDevice(hub).call("POST", "/devices/", headers=header.replace(": ", ": !")).status == 400

    def test_modern_stack_over_tls(self, hub: HubProcess, user: Caller) -> None:
        with httpx.Client(base_url=hub.tls_url, verify=hub.tls_context()) as client:
            device = claimed_device(Caller(client, user.token)).start_trail()
            data = b"x" * 3_000_000
            sha = user.upload(data)
            post_revision(user, device.id, {"#spec": SPEC, "big.img": sha})
            access = device.get(f"/objects/{sha}").json()
            assert access["signed-geturl"].startswith(hub.tls_url)
            assert client.get(access["signed-geturl"]).content == data
            resumed = client.get(access["signed-geturl"], headers={"Range": f"bytes={len(data) - 5}-"})
            assert (resumed.status_code, resumed.content) == (206, b"xxxxx")
            assert resumed.headers["content-range"] == f"bytes {len(data) - 5}-{len(data) - 1}/{len(data)}"
            past = client.get(access["signed-geturl"], headers={"Range": f"bytes={len(data)}-"})
            assert past.status_code == 416


class TestPvr:
    """Section 8.1."""

    def test_clone_change_post(self, hub: HubProcess, nobody: Caller, user: Caller) -> None:
        device = claimed_device(user).start_trail()
        nick = user.get(f"/devices/{device.id}").json()["nick"]
        remote = user.get(f"/trails/{device.id}/.pvrremote")
        by_name = user.get(f"/user1/{nick}/.pvrremote")
        assert by_name.content == remote.content
        base = f"{hub.url}/trails/{device.id}"
        assert remote.json() == {
            "json-get-url": f"{base}/steps/0/state",
            "json-key": "state",
            "objects-endpoint": f"{base}/steps/0/objects",
            "post-fields": ["commit-msg"],
            "post-fields-opt": ["rev"],
            "post-url": f"{base}/steps",
            "pvr-spec": "pvr-pantahub-1",
            "step-get-url": f"{base}/steps/0",
        }
        state = user.get(remote.json()["json-get-url"]).json()
        data = b"an application"
        sha = sha256(data)
        full = {
            "id": sha,
            "objectname": "web/root.squashfs",
            "size": str(len(data)),
            "sha256sum": sha,
            "mime-type": "x/y",
        }
        announced = user.post(remote.json()["objects-endpoint"] + "/", full)
        assert (announced.status_code, announced.headers["pantahub-object-type"]) == (200, "object")
        assert nobody.client.put(announced.json()["signed-puturl"], content=data).status_code == 200
        again = user.post(remote.json()["objects-endpoint"] + "/", full)
        assert (again.status_code, again.headers["pantahub-object-type"]) == (409, "object")
        assert set(again.json()) == set(announced.json())
        new_state = {**state, "web/root.squashfs": sha}
        posted = user.post(remote.json()["post-url"], {"commit-msg": "add web", "rev": -1, "state": new_state}).json()
        assert (posted["rev"], posted["trail-id"]) == (1, device.id)
        remote_1 = user.get(f"/trails/{device.id}/steps/1/.pvrremote").json()
        assert (remote_1["post-fields"], remote_1["post-fields-opt"]) == (["msg"], [])
        one = user.get(f"{remote_1['objects-endpoint']}/{sha}").json()
        assert user.client.get(one["signed-geturl"]).content == data
        blob = user.get(f"{remote_1['objects-endpoint']}/{sha}/blob")
        assert (blob.status_code, blob.content) == (302, b"")
        row = next(row for row in user.get("/trails/summary").json() if row["deviceid"] == device.id)
        assert (row["revision"], row["progress-revision"], row["status"]) == (1, 0, "DONE")
        replaced = user.put(f"{base}/steps/1/state", {**new_state, "x.json": 1})
        assert replaced.json() == {**new_state, "x.json": 1}

    def test_clone_of_a_public_device_by_nobody(self, nobody: Caller, user: Caller) -> None:
        device = claimed_device(user)
        sha = device.upload(b"public bytes")
        device.start_trail({"#spec": SPEC, "a.bin": sha})
        scope = "devices.readonly objects.readonly trails.readonly"
        anonymous = nobody.login("prn:pantahub.com:auth:/anon", "x", scope=scope)
        assert anonymous.get(f"/trails/{device.id}/.pvrremote").status_code == 403
        user.put(f"/devices/{device.id}/public")
        remote = anonymous.get(f"/trails/{device.id}/.pvrremote").json()
        got = anonymous.get(f"{remote['objects-endpoint']}/{sha}").json()
        assert got["signed-puturl"] == ""
        assert nobody.client.get(got["signed-geturl"]).content == b"public bytes"
        assert anonymous.post(remote["post-url"], {"rev": -1, "state": {}}).status_code == 403

    def test_logs_by_cursor(self, user: Caller) -> None:
        device = claimed_device(user)
        device.post("/logs/", [{"tsec": number, "msg": f"line {number}"} for number in range(7)])
        page = user.get(f"/logs/?cursor=true&page=3&sort=time-created&dev={device.id}").json()
        seen = [entry["msg"] for entry in page["entries"]]
        while page.get("entries"):
            page = user.post("/logs/cursor", {"next-cursor": page["next-cursor"]}).json()
            seen += [entry["msg"] for entry in page.get("entries", [])]
        assert seen == [f"line {number}" for number in range(7)]
        device.post("/logs/", {"msg": "later"})
        page = user.post("/logs/cursor", {"next-cursor": page["next-cursor"]}).json()
        assert [entry["msg"] for entry in page["entries"]] == ["later"]
        other = Caller(user.client).login("user2", "user2")
        assert other.post("/logs/cursor", {"next-cursor": page["next-cursor"]}).status_code == 403
        assert user.post("/logs/cursor").status_code == 400
        assert user.get("/logs/?page=3000").status_code == 200


class TestMocker:
    """Section 8.3: judges by the body alone."""

    def test_a_cycle(self, user: Caller) -> None:
        nobody = Caller(user.client)
        record = nobody.post("/devices/", {}).json()
        device = DeviceCaller(user.client, record).logged_in()
        assert device.get(f"/devices/{device.id}").json()["owner"] == ""
        user.put(f"/devices/{device.id}?challenge={device.challenge}")
        assert device.get(f"/devices/{device.id}").json()["owner"]
        device.logged_in().start_trail()
        device.put(f"/trails/{device.id}/steps/0/progress", {"status": "DONE", "progress": 100})
        assert device.get(f"/devices/{device.id}/user-meta").json() == {}
        assert device.patch(f"/devices/{device.id}/device-meta", {"a": None, "b": "c"}).json() == {"status": "ok"}
        nothing = device.get(f"/trails/{device.id}/steps/1").json()
        assert not {"id", "rev"} & set(nothing)
        sha = user.upload(b"for the mocker")
        post_revision(user, device.id, {"#spec": SPEC, "f.bin": sha})
        step = device.get(f"/trails/{device.id}/steps/1").json()
        for key, kind in (("id", str), ("rev", int), ("device", str), ("owner", str), ("trail-id", str)):
            assert type(step[key]) is kind
        assert type(step["progress"]["progress"]) is int
        (found,) = device.get(f"/trails/{device.id}/steps/1/objects").json()
        assert found.pop("sizeint") == 14
        assert {type(value) for value in found.values()} == {str}
        assert (found["objectname"], found["signed-puturl"]) == ("f.bin", "")
        invite = '{"type":"INVITE","protocol":"fleet-update-proto@v1"}'
        user.patch(f"/devices/{device.id}/user-meta", {"fleet.update-proto.token": invite})
        assert device.get(f"/devices/{device.id}/user-meta").json()["fleet.update-proto.token"] == invite


class TestStepsInDetail:
    @pytest.fixture
    def trail(self, user: Caller) -> DeviceCaller:
        return claimed_device(user).start_trail()

    def test_revisions_posted_at_once_get_distinct_numbers(
        self, hub: HubProcess, user: Caller, trail: DeviceCaller
    ) -> None:
        revisions: list[int] = []

        def post() -> None:
            with httpx.Client(base_url=hub.url) as client:
                revisions.append(post_revision(Caller(client, user.token), trail.id, {"#spec": SPEC})["rev"])

        threads = [threading.Thread(target=post) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(revisions) == list(range(1, 13))

    def test_duplicate_trail_and_revision(self, user: Caller, trail: DeviceCaller) -> None:
        assert trail.post("/trails/", {"#spec": SPEC}).status_code == 409
        post_revision(user, trail.id, {"#spec": SPEC}, rev=1)
        assert user.post(f"/trails/{trail.id}/steps", {"rev": 1, "state": {}}).status_code == 409
        assert user.post(f"/trails/{trail.id}/steps", {"rev": 5, "state": {}}).status_code == 422
        assert user.post(f"/trails/{trail.id}/steps", {"state": {}}).status_code == 409
        assert user.post(f"/trails/{trail.id}/steps", {"rev": "1", "state": {}}).status_code == 400

    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ({"a": "b"}, 422),
            ({"#spec": "other@1"}, 422),
            ({"#spec": SPEC, "../etc/passwd": "0" * 64}, 422),
            ({"#spec": SPEC, "a.bin": "xyz"}, 422),
            ({"#spec": SPEC, "a.bin": "0" * 64}, 422),
            ({"#spec": SPEC, "web/run.json": {"#spec": 5}}, 422),
            ([], 400),
            ("text", 400),
        ],
        ids=["no spec", "unknown spec", "path escapes", "no sha", "missing object", "broken manifest", "list", "text"],
    )
    def test_a_state_that_would_fail_on_a_device_is_refused(
        self, user: Caller, trail: DeviceCaller, state: Any, status: int
    ) -> None:
        answer = user.post(f"/trails/{trail.id}/steps", {"rev": -1, "state": state})
        assert (answer.status_code, bool(answer.json()["msg"])) == (status, True)
        assert list(answer.json()) == ["code", "error", "msg"]
        assert trail.get(f"/trails/{trail.id}/steps").json() == []

    def test_too_large_and_broken_bodies(self, user: Caller, trail: DeviceCaller) -> None:
        path = f"/trails/{trail.id}/steps"
        large = {"rev": -1, "state": {"#spec": SPEC, "a.json": "x" * 1_100_000}}
        assert user.post(path, large).status_code in {400, 413}
        assert user.post(path, content=b"{" + b" " * 3_000_000 + b"}").status_code == 413
        for broken in (b"{", b"[1,", b'{"rev":NaN}', b'{"a":1}{', b"\xff\xfe", b"[" * 5000):
            assert user.post(path, content=broken).status_code == 400, broken
        empty = user.post(path, {"rev": -1, "state": {}})
        assert empty.json()["state-sha"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

    def test_state_sha_vectors_and_numbers(self, user: Caller, trail: DeviceCaller) -> None:
        step = post_revision(user, trail.id, {"#spec": SPEC})
        assert step["state-sha"] == "fd138f7751b12a533d8b0e60c32bfae17be25a4206166973135cd7fa1d8b3760"
        content = b'{"rev":-1,"state":{"#spec":"pantavisor-service-system@1","n.json":[1.5e0,1E2,-0.0,1e-6]}}'
        answer = user.post(f"/trails/{trail.id}/steps", content=content)
        assert b'"n.json":[1.5E0,100,0,1.0E-6]' in answer.content

    def test_status_filters(self, user: Caller, trail: DeviceCaller) -> None:
        for _ in range(3):
            post_revision(user, trail.id, {"#spec": SPEC})
        trail.put(f"/trails/{trail.id}/steps/2/progress", {"status": "DONE"})
        path = f"/trails/{trail.id}/steps"

        def revisions(query: str) -> list[int]:
            return [step["rev"] for step in user.get(f"{path}?{query}").json()]

        assert revisions("") == [1, 3]
        assert revisions("progress.status=DONE") == [0, 2]
        assert revisions('progress.status={"$ne":"DONE"}') == [1, 3]
        assert revisions('progress.status={"$nin":["NEW"]}') == [0, 2]
        assert revisions('progress.status={"$in":["NEW","DONE"]}&page[size]=2&page[offset]=1') == [1, 2]
        for refused in ('{"$regex":".*"}', '{"$where":"1"}', '{"$in":"NEW"}', '{"$in":["a"],"$ne":"b"}', "{broken"):
            assert user.get(f"{path}?progress.status={refused}").status_code == 400

    def test_projection(self, user: Caller, trail: DeviceCaller) -> None:
        post_revision(user, trail.id, {"#spec": SPEC})
        (without,) = user.get(f"/trails/{trail.id}/steps?fields=-state").json()
        assert (without["state"], without["rev"]) == (None, 1)
        (only,) = user.get(f"/trails/{trail.id}/steps?fields=%2Brev,%2Bstate-sha").json()
        assert (only["rev"], only["state"], bool(only["owner"]), bool(only["state-sha"])) == (1, None, True, True)

    def test_cancel_and_wontgo(self, user: Caller, trail: DeviceCaller) -> None:
        post_revision(user, trail.id, {"#spec": SPEC})
        path = f"/trails/{trail.id}/steps/1"
        assert trail.put(f"{path}/cancel").status_code == 403
        assert user.put(f"{path}/wontgo").status_code == 400
        cancelled = user.put(f"{path}/cancel").json()
        assert (cancelled["status"], cancelled["progress"]) == ("CANCEL", 100)
        assert cancelled["status-msg"] == "Cancel as requested by owner"
        assert user.put(f"{path}/cancel").status_code == 400
        assert trail.get(f"/trails/{trail.id}/steps?{POLL}").json() == []
        post_revision(user, trail.id, {"#spec": SPEC})
        trail.put(f"/trails/{trail.id}/steps/2/progress", {"status": "INPROGRESS"})
        assert user.put(f"/trails/{trail.id}/steps/2/wontgo").json()["status"] == "WONTGO"
        assert user.put(f"/trails/{trail.id}/steps/2/state", {}).status_code == 409

    def test_a_step_keeps_what_was_reported(self, user: Caller, trail: DeviceCaller) -> None:
        rev = post_revision(user, trail.id, {"#spec": SPEC})["rev"]
        path = f"/trails/{trail.id}/steps/{rev}"
        assert "progress-log" not in user.get(path).json()
        for status in ("QUEUED", "INPROGRESS", "INPROGRESS"):
            trail.put(f"{path}/progress", {"status": status, "progress": 50}).raise_for_status()
        user.put(f"{path}/wontgo").raise_for_status()
        log = user.get(path).json()["progress-log"]
        assert [(entry["source"], entry["status"], entry["progress"]) for entry in log] == [
            ("device", "QUEUED", 50), ("device", "INPROGRESS", 50), ("owner", "WONTGO", 100),
        ]  # fmt: skip

    def test_what_devices_may_not_do(self, user: Caller, trail: DeviceCaller) -> None:
        post_revision(user, trail.id, {"#spec": SPEC})
        assert user.put(f"/trails/{trail.id}/steps/1/progress", {"status": "DONE"}).status_code == 403
        assert trail.put(f"/trails/{trail.id}/steps/9/progress", {"status": "DONE"}).status_code == 400
        assert trail.put(f"/trails/{trail.id}/steps/1/progress", {"status": 5}).status_code == 400
        assert trail.put(f"/trails/{trail.id}/steps/1/state", {}).status_code == 403
        assert user.get(f"/trails/{trail.id}/steps/1/progress").status_code == 405
        assert user.put(f"/trails/{trail.id}/steps/1/meta", {"k": [1]}).json() == {"k": [1]}
        assert user.get(f"/trails/{trail.id}/steps/1/meta").json() == {"k": [1]}


class TestUploads:
    def announce(self, user: Caller, data: bytes, size: int | None = None) -> str:
        body = {"objectname": "n", "size": str(len(data) if size is None else size), "sha256sum": sha256(data)}
        url: str = user.post("/objects/", body).json()["signed-puturl"]
        return url

    def test_a_zero_byte_object(self, user: Caller) -> None:
        sha = user.upload(b"", "empty")
        got = user.get(f"/objects/{sha}").json()
        answer = user.client.get(got["signed-geturl"])
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")

    @pytest.mark.parametrize("sent", [b"wrong bytes here", b"right bytes her", b"right bytes here!"])
    def test_what_differs_is_not_kept(self, user: Caller, sent: bytes) -> None:
        url = self.announce(user, b"right bytes here")
        answer = user.client.put(url, content=sent)
        assert (answer.status_code, answer.content) == (400, b"")
        get_url = user.get(f"/objects/{sha256(b'right bytes here')}").json()["signed-geturl"]
        assert user.client.get(get_url).status_code == 404

    def test_a_short_upload_without_a_length_is_not_kept(self, user: Caller) -> None:
        url = self.announce(user, b"chunked bytes here")
        assert user.client.put(url, content=iter([b"chunked ", b"bytes"])).status_code == 400
        assert user.client.put(url, content=iter([b"chunked ", b"bytes here"])).status_code == 200

    def test_urls_are_for_one_method_and_cannot_be_changed(self, user: Caller) -> None:
        url = self.announce(user, b"one method")
        assert user.client.get(url).status_code == 403
        assert user.client.put(url[:-3] + "AAA", content=b"one method").status_code == 403
        assert user.client.get("/local-s3/not-a-token").status_code == 403
        assert user.client.put(url.replace("/local-s3/", "/s3/"), content=b"one method").status_code == 200

    @pytest.mark.parametrize(
        "body", [{}, {"sha256sum": "xyz"}, {"sha256sum": "0" * 64, "id": "1" * 64}, {"sha256sum": "0" * 64, "size": 5}]
    )
    def test_broken_announcements(self, user: Caller, body: dict[str, Any]) -> None:
        assert user.post("/objects/", body).status_code == 400

    def test_rename_and_delete(self, user: Caller) -> None:
        device = claimed_device(user).start_trail()
        sha = user.upload(b"to be renamed")
        owner = user.claims["prn"]
        renamed = user.put(f"/objects/{sha}", {"objectname": "new", "owner": owner, "sha256sum": sha})
        assert (renamed.json()["objectname"], "signed-geturl" in renamed.json()) == ("new", False)
        assert user.put(f"/objects/{sha}", {"objectname": "new", "owner": "x", "sha256sum": sha}).status_code == 400
        post_revision(user, device.id, {"#spec": SPEC, "a": sha})
        assert user.delete(f"/objects/{sha}").status_code == 409
        user.delete(f"/devices/{device.id}")
        assert user.delete(f"/objects/{sha}").status_code == 200
        assert user.get(f"/objects/{sha}").status_code == 403
        assert user.get("/objects/xyz").status_code == 400


def test_the_devices_port_speaks_tls_only_with_its_certificate(hub: HubProcess) -> None:
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", hub.tls_port)) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")
