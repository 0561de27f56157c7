"""Revisions as tar files (contract hub.md section 6.6)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def exported(user: Caller) -> str:
    """A device's address below /exports, with a revision 1 of two applications that share an object."""
    device = claimed_device(user).start_trail()
    shas = [user.upload(data) for data in (b"first" * 1000, b"second", b"")]
    state = {
        "#spec": SPEC,
        "app/a.img": shas[0],
        "app/b.img": shas[1],
        "app2/a.img": shas[0],
        "c/empty": shas[2],
        "x.json": {},
    }
    post_revision(user, device.id, state)
    return f"/exports/user1/{user.get(f'/devices/{device.id}').json()['nick']}"


def members(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member)) is not None}


def test_the_whole_revision(user: Caller, exported: str) -> None:
    answer = user.get(f"{exported}/1/device.tar")
    found = members(answer)
    state = json.loads(found.pop("json"))
    assert answer.headers["content-disposition"] == "attachment; filename=device.tar"
    assert answer.headers["content-type"] == "application/octet-stream"
    order = [state["app/a.img"], state["app/b.img"], state["c/empty"]]
    assert list(found) == [f"objects/{sha}" for sha in order]
    assert list(found.values()) == [b"first" * 1000, b"second", b""]


@pytest.mark.parametrize("name", ["d.tgz", "d.tar.gz", "d.TGZ"])
def test_compressed_and_the_same_each_time(user: Caller, exported: str, name: str) -> None:
    first, again = (user.get(f"{exported}/latest/{name}") for _ in range(2))
    assert first.content[:2] == b"\x1f\x8b"
    assert first.content == again.content
    assert members(first) == members(user.get(f"{exported}/1/d.tar"))


@pytest.mark.parametrize(
    ("parts", "paths"),
    [
        ("app", {"app/a.img", "app/b.img", "app2/a.img"}),
        ("app/,%23spec", {"#spec", "app/a.img", "app/b.img"}),
        ("-app,-c", {"#spec", "x.json"}),
        ("app,-app/b", {"app/a.img", "app2/a.img"}),
        ("nothing", set()),
    ],
)
def test_parts(user: Caller, exported: str, parts: str, paths: set[str]) -> None:
    found = members(user.get(f"{exported}/1/d.tar?parts={parts}"))
    state = json.loads(found["json"])
    assert set(state) == paths
    assert {name for name in found if name != "json"} == {
        f"objects/{sha}" for path, sha in state.items() if path not in {"#spec", "x.json"}
    }


def test_who_gets_it(user: Caller, exported: str) -> None:
    nobody, other = Caller(user.client), Caller(user.client).login("user2", "user2")
    for caller in (nobody, other):
        answer = caller.get(f"{exported}/1/d.tar")
        assert (answer.status_code, answer.json()["msg"]) == (404, "No Access")
    nick = exported.rpartition("/")[2]
    device_id = user.get(f"/devices/{nick}").json()["id"]
    user.put(f"/devices/{device_id}/public")
    for caller in (nobody, other):
        assert caller.get(f"{exported}/1/d.tar").status_code == 200
    assert Caller(user.client, "garbage").get(f"{exported}/1/d.tar").status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [("/exports/nobody-here/x/1/a.tar", 403), ("/exports/user1/none/1/a.tar", 404)],
)
def test_what_is_not_there(user: Caller, path: str, status: int) -> None:
    assert user.get(path).status_code == status


def test_missing_revisions_and_bad_names(user: Caller, exported: str) -> None:
    assert user.get(f"{exported}/9/a.tar").status_code == 404
    assert user.get(f"{exported}/x/a.tar").status_code == 404
    assert user.get(f"{exported}/1/a%0d%0ab.tar").status_code == 400
