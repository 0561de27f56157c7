"""SIGKILL of the hub at random moments while clients write: what was acknowledged is there, and no half of anything."""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from brickless.testkit import s3
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, sha256
from brickless.testkit.postgres import cluster

# Made once: loading the system's certificates costs more than a request.
TLS = ssl.create_default_context()
WRITES = 1000
WRITERS = 4
KILLS = 8


class Writer:
    """One client: writes of every kind, and a record of those that the hub acknowledged."""

    def __init__(self, hub: HubProcess, up: threading.Event, token: str, device: DeviceCaller, seed: int) -> None:
        self.hub = hub
        self.hub_is_up = up
        self.token = token
        self.device_token = device.token
        self.device_id = device.id
        self.random = random.Random(seed)
        self.seed = seed
        self.registered: list[str] = []
        self.metas: dict[str, int] = {}
        self.steps: dict[int, str] = {}
        self.progress: dict[int, str] = {}
        self.objects: dict[str, bytes] = {}
        self.lines: list[str] = []
        self.number = 0

    def acknowledged(self) -> int:
        return sum(map(len, (self.registered, self.metas, self.steps, self.progress, self.objects, self.lines)))

    def write(self) -> None:
        """One write; a hub that dies in the middle leaves it unknown, which is not recorded."""
        self.number += 1
        kinds: list[Callable[[Caller, Caller], None]] = [
            self._register, self._meta, self._step, self._progress, self._object, self._log,
        ]  # fmt: skip
        kind = self.random.choice(kinds)
        try:
            with httpx.Client(base_url=self.hub.url, timeout=30, verify=TLS) as client:
                kind(Caller(client, self.token), Caller(client, self.device_token))
        except httpx.TransportError:
            self.hub_is_up.wait(60)

    def _register(self, user: Caller, _: Caller) -> None:
        answer = user.post("/devices/", {"nick": f"w{self.seed}-{self.number}"})
        if answer.status_code == 200:
            self.registered.append(answer.json()["id"])

    def _meta(self, user: Caller, _: Caller) -> None:
        key = f"k{self.number}"
        if user.patch(f"/devices/{self.device_id}/user-meta", {key: self.number}).status_code == 200:
            self.metas[key] = self.number

    def _step(self, user: Caller, _: Caller) -> None:
        body = {"rev": -1, "commit-msg": str(self.number), "state": {"#spec": SPEC, "n.json": self.number}}
        answer = user.post(f"/trails/{self.device_id}/steps", body)
        if answer.status_code == 200:
            self.steps[answer.json()["rev"]] = answer.json()["state-sha"]

    def _progress(self, _: Caller, device: Caller) -> None:
        if self.steps:
            rev = self.random.choice(list(self.steps))
            self.progress.pop(rev, None)
            report = {"status": "ERROR", "status-msg": f"m{self.number}"}
            if device.put(f"/trails/{self.device_id}/steps/{rev}/progress", report).status_code == 200:
                self.progress[rev] = report["status-msg"]

    def _object(self, user: Caller, _: Caller) -> None:
        data = self.random.randbytes(self.random.randrange(200_000))
        self.objects[user.upload(data)] = data

    def _log(self, _: Caller, device: Caller) -> None:
        line = f"writer {self.seed} line {self.number}"
        if device.post("/logs/", [{"msg": line}, {"msg": f"{line} again"}]).status_code == 200:
            self.lines.append(line)


def check(writer: Writer, user: Caller) -> None:
    """Everything acknowledged is there; every step is whole and no number is missing."""
    assert set(writer.registered) <= {device["id"] for device in user.get("/devices/").json()}
    meta = user.get(f"/devices/{writer.device_id}/user-meta").json()
    assert writer.metas.items() <= meta.items()
    everything = user.get(f"/trails/{writer.device_id}/steps?progress.status={{%22$nin%22:[]}}").json()
    assert [step["rev"] for step in everything] == list(range(len(everything)))
    by_rev = {step["rev"]: step for step in everything}
    for rev, sha in writer.steps.items():
        assert by_rev[rev]["state-sha"] == sha
    for rev, message in writer.progress.items():
        assert by_rev[rev]["progress"]["status-msg"] == message
    for sha, data in writer.objects.items():
        assert user.client.get(user.get(f"/objects/{sha}").json()["signed-geturl"]).content == data
    lines = log_lines(user, writer.device_id)
    assert set(writer.lines) <= set(lines)
    assert {f"{line} again" for line in lines if not line.endswith("again")} <= set(lines)


def log_lines(user: Caller, device_id: str) -> list[str]:
    page = user.get(f"/logs/?cursor=true&page=500&sort=time-created&dev={device_id}").json()
    lines: list[str] = []
    while page.get("entries"):
        lines += [entry["msg"] for entry in page["entries"]]
        page = user.post("/logs/cursor", {"next-cursor": page["next-cursor"]}).json()
    return lines


@pytest.fixture(params=["sqlite-folder", pytest.param("postgresql-s3", marks=pytest.mark.needs("postgresql", "s3"))])
def storage(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Arguments and environment that give the hub its storage."""
    if request.param == "sqlite-folder":
        yield [], {}
        return
    with cluster() as database, s3.server() as bucket:
        yield ["--database-url", database.url("hub"), "--objects-url", bucket.url("hub-test")], s3.ENVIRONMENT


def test_what_was_acknowledged_survives_being_killed(tmp_path: Path, storage: tuple[list[str], dict[str, str]]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    arguments = [*storage[0], "--no-rate-limits"]
    with running_hub(str(tmp_path / "data"), arguments=arguments, environment=storage[1]) as hub:
        with httpx.Client(base_url=hub.url) as client:
            user = Caller(client).login("user1", "user1")
            devices = [claimed_device(user).start_trail() for _ in range(WRITERS)]
        up = threading.Event()
        up.set()
        writers = [Writer(hub, up, user.token, device, number) for number, device in enumerate(devices)]
        finished = threading.Event()

        def work(writer: Writer) -> None:
            while not finished.is_set():
                writer.write()

        threads = [threading.Thread(target=work, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        try:
            for kill in range(1, KILLS + 1):
                enough = WRITES * kill // KILLS + moments.randrange(40)
                while sum(writer.acknowledged() for writer in writers) < enough:
                    assert any(thread.is_alive() for thread in threads)
                    finished.wait(moments.uniform(0.001, 0.02))
                up.clear()
                hub.kill()
                hub.start()
                up.set()
        finally:
            finished.set()
            up.set()
            for thread in threads:
                thread.join()
        hub.kill()
        hub.start()
        with httpx.Client(base_url=hub.url, timeout=60) as client:
            for writer in writers:
                check(writer, Caller(client, user.token))
        total = sum(writer.acknowledged() for writer in writers)
        print(f"{total} acknowledged writes, {KILLS + 1} kills: all there")
        assert total >= WRITES


def test_the_objects_folder_holds_only_what_its_names_say(tmp_path: Path) -> None:
    with running_hub(str(tmp_path / "data"), arguments=["--no-rate-limits"]) as hub:
        with httpx.Client(base_url=hub.url) as client:
            user = Caller(client).login("user1", "user1")
        for number in range(5):
            data = random.randbytes(3_000_000)
            with httpx.Client(base_url=hub.url, timeout=30) as client:
                caller = Caller(client, user.token)
                body = {"objectname": "x", "size": str(len(data)), "sha256sum": sha256(data)}
                url = caller.post("/objects/", body).json()["signed-puturl"]
                thread = threading.Thread(target=swallow, args=(url, data))
                thread.start()
                thread.join(number * 0.02)
                hub.kill()
                thread.join()
                hub.start()
        assert not list(Path(hub.data_dir, "objects", "incoming").iterdir())
        for path in Path(hub.data_dir, "objects").glob("??/*"):
            assert sha256(path.read_bytes()) == path.parent.name + path.name


def swallow(url: str, data: bytes) -> None:
    """Upload to a hub that may die meanwhile: either outcome is fine, the files are what is checked."""
    try:
        httpx.put(url, content=data, timeout=30)
    except httpx.TransportError as error:
        print(f"cut: {type(error).__name__}")
