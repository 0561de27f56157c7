"""The audit log: every route that changes something leaves an entry, and nothing that is served changes the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.hub.domain import audit
from brickless.hub.services.audit import UNRECORDED
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision
from brickless.testkit.hub_world import READ_DEVICES, World, registration, routes, status, table

TABLE = table(Path(__file__).with_name("hub_permissions.txt"))
#: Who makes the change, where it is not the owner; and whose log tells it.
BY_DEVICE = {"POST /trails/"}
IN_THE_HUBS_OWN = {"POST /devices/"}
#: Refused to everybody in that table (unknown tokens, wrong states); `test_the_rest` makes them succeed.
NEEDS_MORE = {
    "POST /auth/password", "POST /orgs/accept", "PUT /trails/{id}/steps/{rev}/wontgo", "DELETE /objects/{sha}",
    "POST /fleets/rollouts/{rollout}/resume", "PUT /subscriptions/admin/subscription", "POST /auth/token",
    "POST /auth/oauth/token", "PATCH /fleets/devices", "POST /devices/{id}/ownership/validate",
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("hub") / "data")


@pytest.fixture(scope="module")
def hub(data_dir: str) -> Iterator[HubProcess]:
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def world(hub: HubProcess) -> Iterator[World]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield World(client)


def log_of(caller: Caller, query: str = "") -> list[dict[str, object]]:
    found = caller.get(f"/audit/?limit=20{query}")
    found.raise_for_status()
    entries: list[dict[str, object]] = found.json()
    return entries


def named(entries: list[dict[str, object]]) -> list[dict[str, object]]:
    """The entries, each of which must say what was changed."""
    for entry in entries:
        assert "=" in str(entry["target"]), f"{entry['action']} does not say what it changed"
    return entries


def test_each_change_leaves_an_entry(world: World) -> None:
    owner = world.owner
    changing = [key for key in routes(owner.client) if not key.startswith(("GET ", "HEAD "))]
    assert len(changing) > 30
    for key in changing:
        if key in UNRECORDED or key in NEEDS_MORE | BY_DEVICE:
            continue
        before = log_of(owner)[0]["seq"]
        answer = status(world, key, "owner")
        assert answer == TABLE[key]["owner"]
        assert 200 <= answer < 300, f"{key} is refused: it belongs to NEEDS_MORE"
        if key == "POST /auth/accounts" or (" /orgs/" in key and key != "DELETE /orgs/{org}"):
            continue  # in the new account's own log, and in the organisation's: see below
        newest = [entry for entry in log_of(owner) if entry["seq"] > before and entry["action"] == key]  # type: ignore[operator]  # plain values that the test knows
        assert len(newest) >= 1, f"{key} left no entry"
        assert newest[0]["actor"] == "prn:pantahub.com:auth:/user1"
        assert "=" in str(newest[0]["target"]), f"{key} does not say what it changed"


def test_the_rest(world: World) -> None:
    owner, client = world.owner, world.owner.client
    target, device = world.target()
    invitation = owner.post(f"/orgs/{target.org}/invitations", {"email": "x@example.com", "role": "viewer"}).json()
    other = world.callers["other"]
    other.post("/orgs/accept", {"token": invitation["token"]}).raise_for_status()
    acting = Caller(client, owner.post(f"/orgs/{target.org}/token").json()["token"])
    owner.put(f"/orgs/{target.org}/members/user2", {"role": "operator"}).raise_for_status()
    owner.delete(f"/orgs/{target.org}/members/user2").raise_for_status()
    owner.put(f"/orgs/{target.org}/devices/{target.id}").raise_for_status()
    owner.delete(f"/orgs/{target.org}/invitations/{target.invitation_id}").raise_for_status()
    told = [entry["action"] for entry in named(log_of(acting))]
    organisation = {key for key in routes(client) if " /orgs/" in key and not key.startswith("GET ")}
    assert set(told) == organisation - {"DELETE /orgs/{org}", "POST /orgs/{org}/token"}

    owner.post(f"/fleets/rollouts/{target.rollout}/pause").raise_for_status()
    owner.post(f"/fleets/rollouts/{target.rollout}/resume").raise_for_status()
    assert log_of(owner)[0]["action"] == "POST /fleets/rollouts/{rollout}/resume"
    plan = {"subject": owner.claims["prn"], "plan": "UNLIMITED"}
    world.callers["admin"].put("/subscriptions/admin/subscription", plan).raise_for_status()
    changed = named(log_of(world.callers["admin"]))[0]
    assert changed["action"] == "PUT /subscriptions/admin/subscription"
    assert changed["target"] == f"subject={owner.claims['prn']} plan=UNLIMITED"
    app = owner.post("/apps/", registration(f"audited-{target.id[-8:]}")).json()
    code = owner.post("/auth/code", {"service": app["prn"], "scopes": READ_DEVICES}).json()["code"]
    Caller(client).login(app["prn"], app["secret"]).post("/auth/token", {"access-code": code}).raise_for_status()

    target, device = world.target()
    owner.patch(f"/fleets/devices/{target.id}/labels", {"audited": target.nick}).raise_for_status()
    bulk = {"selector": f"audited={target.nick}", "labels": {"a": "b"}}
    owner.patch("/fleets/devices", bulk).raise_for_status()
    assert log_of(owner)[0]["action"] == "PATCH /fleets/devices"

    fresh = owner.upload(b"nobody needs it")
    owner.delete(f"/objects/{fresh}").raise_for_status()
    assert log_of(owner)[0]["action"] == "DELETE /objects/{sha}"

    record = Caller(client).post("/devices/").json()
    owner.put(f"/devices/{record['id']}?challenge={record['challenge']}").raise_for_status()
    assert (log_of(owner)[0]["action"], log_of(owner)[0]["target"]) == ("PUT /devices/{id}", f"id={record['id']}")
    DeviceCaller(client, record).logged_in().start_trail()
    assert log_of(owner)[0]["action"] == "POST /trails/"
    assert log_of(owner)[0]["actor"] == record["prn"]

    factory = owner.post("/devices/tokens", {"ovmode": {"mode": "manual"}}).json()["token"]
    made = Caller(client).post("/devices/", headers={"Pantahub-Devices-Auto-Token-V1": factory}).json()
    owner.post(f"/devices/{made['id']}/ownership/validate").raise_for_status()
    assert log_of(owner)[0]["action"] == "POST /devices/{id}/ownership/validate"

    nick = f"new-{target.id[-8:]}"
    account = {"email": f"{nick}@example.com", "nick": nick, "password": "password"}
    Caller(client).post("/auth/accounts", account).raise_for_status()
    newcomer = Caller(client).login(nick, "password")
    assert [entry["action"] for entry in named(log_of(newcomer))] == ["POST /auth/accounts"]
    assert [entry["target"] for entry in log_of(newcomer)] == [f"account={nick}"]
    hubs_own = named(log_of(world.callers["admin"], "&hub=1"))
    named(owner.get("/audit/?limit=500").json())
    assert "POST /devices/" in {entry["action"] for entry in hubs_own}
    assert owner.get("/audit/?hub=1").status_code == 403
    assert device.get("/audit/").status_code == 403


def test_what_is_refused_or_changes_nothing_leaves_none(world: World) -> None:
    target, device = world.target()
    before = log_of(world.owner)[0]
    assert world.owner.patch(f"/devices/{target.id}", {"nick": "no spaces here"}).status_code == 400
    assert world.callers["other"].delete(f"/devices/{target.id}").status_code == 403
    device.put(f"/trails/{target.id}/steps/1/progress", {"status": "DONE"}).raise_for_status()
    assert log_of(world.owner)[0] == before


def test_the_unrecorded_routes_exist(world: World) -> None:
    known = set(routes(world.owner.client)) | {"PUT /local-s3/{id}", "PUT /s3/{id}"}
    assert set(UNRECORDED) <= known | {key for key in UNRECORDED if "s3" in key}


def test_a_chain_proves_itself(world: World) -> None:
    post_revision(world.owner, world.target()[0].id, {"#spec": SPEC})
    verdict = world.owner.get("/audit/verify").json()
    assert verdict["whole"]
    assert verdict["entries"] == log_of(world.owner)[0]["seq"]
    assert verdict["hash"] == log_of(world.owner)[0]["hash"]


def test_no_endpoint_touches_the_log(world: World) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/audit/", "/audit/1", "/audit/verify"):
            for name in ("owner", "admin"):
                assert world.callers[name].call(method, path, {}).status_code in {404, 405}


def test_the_database_refuses_to_change_it_and_a_forced_change_shows(world: World, data_dir: str) -> None:
    owner = world.callers["other"]
    for number in range(3):
        owner.post("/devices/tokens", {"nick": f"token{number}"}).raise_for_status()
    account = owner.claims["prn"]
    assert owner.get("/audit/verify").json()["whole"]
    database = sqlite3.connect(f"{data_dir}/hub.sqlite", timeout=30)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.rollback()
    database.execute("DROP TRIGGER audit_no_delete")
    database.execute(
        "DELETE FROM audit WHERE account = ? AND seq = (SELECT max(seq) FROM audit WHERE account = ?)", (account,) * 2
    )
    database.commit()
    database.close()
    verdict = owner.get("/audit/verify").json()
    assert not verdict["whole"]
    assert "newest entries are missing" in verdict["fault"]


def chain(count: int) -> list[audit.Entry]:
    entries: list[audit.Entry] = []
    for seq in range(1, count + 1):
        previous = entries[-1].hash if entries else audit.GENESIS
        entry = audit.Entry("a", seq, seq, "b", "c", "d", "e", "f", previous)
        entries.append(audit.Entry(**{**_fields(entry), "hash": audit.digest(entry)}))
    return entries


def _fields(entry: audit.Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__slots__}


@pytest.mark.parametrize("name", ["account", "actor", "actor_nick", "address", "action", "target", "previous", "hash"])
def test_each_field_is_bound(name: str) -> None:
    entries = chain(3)
    assert audit.fault(entries) == ""
    entries[1] = audit.Entry(**{**_fields(entries[1]), name: "changed"})  # type: ignore[arg-type]  # plain values that the test knows
    assert audit.fault(entries).startswith("entry 2 was changed")


def test_a_missing_entry_shows() -> None:
    entries = chain(3)
    assert audit.fault([entries[0], entries[2]]) == "entry 2 is missing"


def test_a_device_claimed_from_a_join_token_is_in_its_owners_log(world: World) -> None:
    text = world.owner.post("/devices/tokens", {}).json()["token"]
    answer = Caller(world.owner.client).post("/devices/", headers={"Pantahub-Devices-Auto-Token-V1": text})
    answer.raise_for_status()
    newest = log_of(world.owner)[0]
    assert (newest["action"], newest["actor"]) == ("POST /devices/", "")
    assert answer.json()["id"] in str(newest["target"])


def test_an_organisations_log_names_the_member(world: World) -> None:
    target, _ = world.target()
    acting = Caller(world.owner.client, world.owner.post(f"/orgs/{target.org}/token").json()["token"])
    device = claimed_device(acting)
    acting.patch(f"/devices/{device.id}", {"nick": "renamed"}).raise_for_status()
    newest = log_of(acting)[0]
    assert newest["action"] == "PATCH /devices/{id}"
    assert newest["actor"] == world.owner.claims["prn"]
