"""Every route, by every role, on what is the organisation's own and on what is another's: each cell is tried.

What a cell must say is computed from two reviewed tables: `hub_permissions.txt` (what the owner of a thing and a
stranger get) and `brickless.hub.domain.access` (which role opens which route). A role without the permission gets 403
whatever the target; one that has it gets what the owner gets on its own things and what a stranger gets on others'.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.hub.domain.access import GRANTS, ROUTES, Permission, Role
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision
from brickless.testkit.hub_world import Target, World, status, table

TABLE = table(Path(__file__).with_name("hub_permissions.txt"))
READ_DEVICES = "prn:pantahub.com:apis:/base/devices.readonly"
#: Routes that nobody needs a token for: there is no role to look at.
PUBLIC = {
    "POST /auth/login", "POST /auth/accounts", "GET /auth/verify", "POST /auth/recover", "POST /auth/password",
    "POST /auth/sessions", "GET /apps/scopes", "POST /auth/token", "GET /auth/oauth/authorize",
    "POST /auth/oauth/token", "POST /auth/x509/login", "GET /features/",
}  # fmt: skip
#: Cells that differ from the rule, each for a reason.
ON_OWN: dict[tuple[str, str], int] = {
    ("DELETE /orgs/{org}", "owner"): 409,  # it owns devices
    **{("DELETE /orgs/{org}/members/{member}", role): 403 for role in Role if role != Role.OWNER},  # not themselves
}
ON_OTHERS: dict[tuple[str, str], int] = {("GET /profiles/config/meta", role): 200 for role in Role}


class OrgWorld(World):
    """An organisation with one member a role, and targets of its own."""

    def __init__(self, client: httpx.Client, nick: str) -> None:
        nobody = Caller(client)
        self.nick = nick
        self.people: dict[str, Caller] = {}
        founder = self.account(nobody, f"{nick}-owner")
        self.prn = founder.post("/orgs/", {"nick": nick}).json()["prn"]
        for role in Role:
            person = founder if role == Role.OWNER else self.account(nobody, f"{nick}-{role[:9]}")
            if role != Role.OWNER:
                offer = founder.post(f"/orgs/{nick}/invitations", {"email": "x@example.com", "role": role.value})
                person.post("/orgs/accept", {"token": offer.json()["token"]}).raise_for_status()
            self.people[role] = person
        self.callers = {role: self.acting(person) for role, person in self.people.items()}
        self.owner = self.callers[Role.OWNER]
        self.sha = self.owner.upload(f"in a state of {nick}".encode())
        self.guests = 0
        self.invitation_id = ""
        self.member = self.guest()

    @staticmethod
    def account(nobody: Caller, nick: str) -> Caller:
        account = {"email": f"{nick}@example.com", "nick": nick, "password": "password"}
        nobody.post("/auth/accounts", account).raise_for_status()
        return nobody.login(nick, "password")

    def acting(self, person: Caller) -> Caller:
        return Caller(person.client, person.post(f"/orgs/{self.nick}/token").json()["token"])

    def named(self, target: Target) -> Target:
        return target._replace(owner_nick=self.nick, owner_prn=self.prn, member=self.member)

    def organisation(self) -> tuple[str, str]:
        offer = {"email": "guest@example.com", "role": "viewer"}
        self.owner.delete(f"/orgs/{self.nick}/invitations/{self.invitation_id}")
        self.invitation_id = self.owner.post(f"/orgs/{self.nick}/invitations", offer).json()["id"]
        members = {member["nick"] for member in self.owner.get(f"/orgs/{self.nick}/members").json()}
        if self.member not in members:
            self.member = self.guest()
        return self.nick, self.invitation_id

    def guest(self) -> str:
        self.guests += 1
        nick = f"{self.nick}-guest{self.guests}"
        guest = self.account(Caller(self.owner.client), nick)
        offer = {"email": "guest@example.com", "role": "viewer"}
        token = self.owner.post(f"/orgs/{self.nick}/invitations", offer).json()["token"]
        guest.post("/orgs/accept", {"token": token}).raise_for_status()
        return nick


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def acme(client: httpx.Client) -> OrgWorld:
    return OrgWorld(client, "acme")


@pytest.fixture(scope="module")
def rival(client: httpx.Client) -> OrgWorld:
    return OrgWorld(client, "rival")


#: They never end by themselves; test_hub_events asks them for what is another's.
STREAMS = {"GET /events/", "GET /logs/live"}


def keys() -> list[str]:
    return [key for key in TABLE if key not in PUBLIC]


def granted(role: str, key: str) -> bool:
    return not GRANTS[Role(role)].isdisjoint(ROUTES.get(key, ()))


def test_every_route_has_a_permission_or_is_a_devices_own() -> None:
    devices_own = {key for key in keys() if key not in ROUTES}
    assert devices_own == {
        "PUT /devices/{id}/device-meta",
        "PATCH /devices/{id}/device-meta",
        "POST /trails/",
        "PUT /trails/{id}/steps/{rev}/progress",
        "POST /logs/",
        "PUT /subscriptions/admin/subscription",
    }
    assert set(ROUTES) <= set(TABLE) | {key for key in ROUTES if key.startswith("GET /{user}/")}


@pytest.mark.parametrize("role", list(Role))
def test_on_what_is_the_organisations_own(acme: OrgWorld, role: Role) -> None:
    expected = {key: ON_OWN.get((key, role), TABLE[key]["owner"]) if granted(role, key) else 403 for key in keys()}
    found = {key: status(acme, key, role, changes=expected[key] < 400) for key in keys()}
    assert found == expected


@pytest.mark.parametrize("role", list(Role))
def test_on_what_is_another_organisations(acme: OrgWorld, rival: OrgWorld, role: Role) -> None:
    rival.callers[f"acme {role}"] = acme.callers[role]
    expected = {key: ON_OTHERS.get((key, role), TABLE[key]["other"]) if granted(role, key) else 403 for key in keys()}
    found = {key: status(rival, key, f"acme {role}", changes=expected[key] < 400) for key in keys()}
    assert found == expected


@pytest.mark.parametrize("role", list(Role))
def test_no_list_shows_what_is_another_organisations(acme: OrgWorld, rival: OrgWorld, role: Role) -> None:
    theirs, device = rival.target()
    device.post("/logs/", [{"msg": "secret of the rival", "src": "x", "lvl": "INFO"}])
    lists = [key for key in keys() if key.startswith("GET ") and "{" not in key and key not in STREAMS]
    assert len(lists) > 10
    for key in lists:
        answer = acme.callers[role].get(f"{key[4:]}?page[after]=2000-01-01T00:00:00Z", headers={"X-Once": "1"})
        for word in (theirs.id, theirs.nick, theirs.token_id, theirs.api_token_id, rival.prn, "secret of the rival"):
            assert word not in answer.text, key


def test_a_role_counts_from_the_next_call_on(acme: OrgWorld, client: httpx.Client) -> None:
    nick = acme.guest()
    guest = acme.acting(Caller(client).login(nick, "password"))
    target, _ = acme.target()
    assert guest.get(f"/devices/{target.id}").status_code == 200
    assert guest.patch(f"/devices/{target.id}/user-meta", {"a": 1}).status_code == 403
    acme.owner.put(f"/orgs/acme/members/{nick}", {"role": "operator"}).raise_for_status()
    assert guest.patch(f"/devices/{target.id}/user-meta", {"a": 1}).status_code == 200
    acme.owner.delete(f"/orgs/acme/members/{nick}").raise_for_status()
    assert guest.get(f"/devices/{target.id}").status_code == 403
    assert guest.get("/auth/login").status_code == 403


def test_the_last_owner_stays(acme: OrgWorld) -> None:
    assert acme.owner.delete("/orgs/acme/members/acme-owner").status_code == 409
    assert acme.owner.put("/orgs/acme/members/acme-owner", {"role": "viewer"}).status_code == 409


def test_everybody_may_leave(acme: OrgWorld, client: httpx.Client) -> None:
    nick = acme.guest()
    guest = acme.acting(Caller(client).login(nick, "password"))
    assert guest.delete(f"/orgs/acme/members/{nick}").status_code == 200
    assert guest.get("/devices/").status_code == 403


def test_logins_in_an_organisations_name(acme: OrgWorld, client: httpx.Client) -> None:
    nobody = Caller(client)
    operator = nobody.login("acme-operator==>acme", "password")
    assert operator.claims["prn"] == acme.prn
    assert nobody.post("/auth/login", {"username": "rival-owner==>acme", "password": "password"}).status_code == 200
    stranger = nobody.login("rival-owner==>acme", "password")
    assert stranger.claims["prn"] != acme.prn
    assert nobody.post("/auth/login", {"username": "acme", "password": ""}).status_code == 401
    assert nobody.post("/auth/login", {"username": "acme", "password": "password"}).status_code == 401


def test_a_members_api_token_acts_with_its_scopes_only(acme: OrgWorld, client: httpx.Client) -> None:
    secret = acme.people[Role.OPERATOR].post("/tokens/", {"name": "ci", "scopes": [READ_DEVICES]}).json()["secret"]
    program = Caller(client).login("acme-operator==>acme", secret)
    target, _ = acme.target()
    assert program.get(f"/devices/{target.id}").status_code == 200
    assert program.patch(f"/devices/{target.id}", {"nick": "renamed"}).status_code == 403
    assert Caller(client).post("/auth/login", {"username": "ci==>rival", "password": secret}).status_code == 401


def test_an_organisations_own_token_ends_when_it_is_deleted(acme: OrgWorld, client: httpx.Client) -> None:
    made = acme.owner.post("/tokens/", {"name": "robot", "scopes": [READ_DEVICES]}).json()
    program = Caller(client).login("robot", made["secret"])
    assert program.get("/devices/").status_code == 200
    assert program.post("/orgs/", {"nick": "of-a-robot"}).status_code == 403
    acme.owner.delete(f"/tokens/{made['id']}").raise_for_status()
    assert program.get("/devices/").status_code == 403


def test_a_device_given_to_the_organisation_keeps_its_history(acme: OrgWorld) -> None:
    installer, owner = acme.people[Role.INSTALLER], acme.owner
    device = claimed_device(installer).start_trail()
    sha = installer.upload(b"before the organisation")
    post_revision(installer, device.id, {"#spec": SPEC, "a": sha})
    assert acme.people[Role.VIEWER].put(f"/orgs/acme/devices/{device.id}").status_code == 403
    installer.put(f"/orgs/acme/devices/{device.id}").raise_for_status()
    assert installer.get(f"/devices/{device.id}").status_code == 403
    assert owner.get(f"/devices/{device.id}").json()["owner"] == acme.prn
    assert owner.get(f"/trails/{device.id}/steps/1/objects/{sha}/blob").status_code == 302
    again = post_revision(owner, device.id, {"#spec": SPEC, "a": sha, "b": sha})
    assert again["rev"] == 2
    fresh = device.logged_in()
    assert fresh.get(f"/trails/{device.id}/steps/2").status_code == 200
    report = fresh.put(f"/trails/{device.id}/steps/1/progress", {"status": "DONE", "progress": 100})
    assert report.status_code == 200


def test_an_invitation_is_accepted_once(acme: OrgWorld, client: httpx.Client) -> None:
    offer = acme.owner.post("/orgs/acme/invitations", {"email": "x@example.com", "role": "viewer"}).json()
    first, second = (acme.account(Caller(client), nick) for nick in ("first-guest", "second-guest"))
    assert first.post("/orgs/accept", {"token": offer["token"]}).status_code == 200
    assert second.post("/orgs/accept", {"token": offer["token"]}).status_code == 404
    assert first.get("/orgs/").json() == [{"nick": "acme", "prn": acme.prn, "role": "viewer"}]


@pytest.mark.parametrize("nick", ["", "ab", "dash-ui", "with space", "x" * 24, "acme"])
def test_nicks_that_no_organisation_gets(acme: OrgWorld, nick: str) -> None:
    assert acme.people[Role.OWNER].post("/orgs/", {"nick": nick}).status_code in {400, 409}


def test_permissions_grow_with_no_surprise() -> None:
    assert GRANTS[Role.VIEWER] < GRANTS[Role.OPERATOR] < GRANTS[Role.OWNER]
    assert GRANTS[Role.VIEWER] < GRANTS[Role.DEVELOPER] < GRANTS[Role.OWNER]
    assert Permission.SELF not in frozenset().union(*GRANTS.values())
