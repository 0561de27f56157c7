"""How a revision stands, in the contract's words: READY only when all that should run does."""

from __future__ import annotations

from typing import Any

import pytest

from brickless.core.container import MGMT, roles_of
from brickless.core.state import parse_state
from brickless.core.update_types import Policy
from brickless.testkit.fake_linux import Behaviour, FakeDevice, World

STATE: dict[str, Any] = {
    "#spec": "pantavisor-service-system@1",
    "device.json": {
        "groups": [
            {"name": "root", "restart_policy": "system", "timeout": 30},
            {
                "name": "app",
                "auto_recovery": {
                    "policy": "always",
                    "max_retries": 3,
                    "retry_delay": 5,
                    "stable_timeout": 20,
                    "backoff_policy": "30s",
                },
            },
        ]
    },
}


def manifest(name: str, **more: object) -> dict[str, object]:
    return {"#spec": "service-manifest-run@1", "name": name, "config": "lxc.container.conf", "group": "app", **more}


def device(tmp_path: Any, behave: Any = None, **containers: dict[str, object]) -> FakeDevice:
    world = World(str(tmp_path), behave)
    sha = world.storage.objects.add([b"lxc.uts.name = x\n"])
    state = dict(STATE)
    for name, more in containers.items():
        state[f"{name}/run.json"] = manifest(name, **more)
        state[f"{name}/lxc.container.conf"] = sha
    from brickless.core import canonical

    world.storage.install("0", parse_state(canonical.dumps(state)))
    one = FakeDevice(world, Policy())
    one.power_on()
    return one


def test_a_revision_that_runs_is_ready(tmp_path: Any) -> None:
    one = device(tmp_path, web={}, net={"group": "root"})
    assert one.ask(op="status")["status"] == "BLOCKED"  # app waits for root
    one.run_for(5)
    answer = one.ask(op="status")
    assert answer["status"] == "READY"
    assert answer["groups"] == [
        {"name": "root", "status_goal": "STARTED", "restart_policy": "system", "status": "READY"},
        {
            "name": "app",
            "status_goal": "STARTED",
            "restart_policy": "container",
            "status": "READY",
            "auto_recovery": {"max_retries": 3, "stable_timeout": 20, "backoff_policy": "30s"},
        },
    ]


def test_a_container_is_described_as_the_contract_says(tmp_path: Any) -> None:
    one = device(tmp_path, web={"roles": ["mgmt"]})
    one.run_for(25)
    (web,) = one.ask(op="status")["containers"]  # type: ignore[misc]  # JSON that the test knows
    assert web.pop("pid") > 0
    assert web == {
        "name": "web",
        "group": "app",
        "status": "STARTED",
        "status_goal": "STARTED",
        "restart_policy": "container",
        "roles": ["mgmt"],
        "auto_recovery": {
            "policy": "always",
            "max_retries": 3,
            "current_retries": 0,
            "stable_timeout": 20,
            "is_stable": "true",
            "backoff_policy": "30s",
        },
        "user_stopped": "false",
    }


def test_a_crash_loop_is_not_called_ready(tmp_path: Any) -> None:
    one = device(tmp_path, lambda _job: Behaviour(exits_after_s=0.5, status=1), web={})
    one.run_for(2)
    answer = one.ask(op="status")
    assert answer["status"] == "RECOVERING"
    assert answer["groups"][1]["status"] == "RECOVERING"  # type: ignore[index]  # JSON that the test knows


def test_who_was_stopped_by_a_user_lowers_nothing(tmp_path: Any) -> None:
    one = device(tmp_path, web={})
    one.run_for(2)
    one.ask(op="stop", name="web")
    one.run_for(10)
    answer = one.ask(op="status")
    assert answer["status"] == "READY"
    assert answer["containers"][0]["user_stopped"] == "true"  # type: ignore[index]  # JSON that the test knows


@pytest.mark.parametrize(
    ("more", "default_mgmt", "expected"),
    [
        ({}, False, ()),
        ({}, True, (MGMT,)),
        ({"roles": []}, True, ()),
        ({"roles": ["nobody"]}, True, ("nobody",)),
        ({"roles": ["mgmt"]}, False, (MGMT,)),
    ],
    ids=["silent", "silent-compatible", "none", "nobody", "asked"],
)
def test_no_role_unless_asked(more: dict[str, object], default_mgmt: bool, expected: tuple[str, ...]) -> None:
    from brickless.core import canonical

    state = {**STATE, "web/run.json": manifest("web", **more), "web/lxc.container.conf": "0" * 64}
    container = parse_state(canonical.dumps(state)).containers["web"]
    assert roles_of(container, default_mgmt=default_mgmt) == expected
