"""Which changes reboot a device, and which restart a container only (contract device.md 4.6)."""

from __future__ import annotations

import json

from brickless.core.state import State, parse_state
from brickless.core.transition import Transition, plan

SHA, SHA2 = "ab" * 32, "cd" * 32


def container(name: str, **more: object) -> dict[str, object]:
    return {f"{name}/c": SHA, f"{name}/run.json": {"name": name, "config": "c", "group": "app", **more}}


def state(*parts: dict[str, object]) -> State:
    entries: dict[str, object] = {"#spec": "pantavisor-service-system@1"}
    for part in parts:
        entries |= part
    return parse_state(json.dumps(entries).encode())


def test_nothing_changed_restarts_nothing() -> None:
    base = state(container("a"), container("b"))
    assert plan(base, base) == Transition(False, (), (), (), ("a", "b"))


def test_a_container_of_its_own_is_restarted_alone() -> None:
    old = state(container("a"), container("b"))
    new = state(container("a") | {"a/c": SHA2}, container("b"))
    assert plan(old, new) == Transition(
        False, ("a/c is changed: only the container a is concerned",), ("a",), ("a",), ("b",)
    )


def test_added_and_removed_containers() -> None:
    old = state(container("a"), container("b"))
    new = state(container("b"), container("c"))
    result = plan(old, new)
    assert (result.reboot, result.stop, result.start, result.keep) == (False, ("a",), ("c",), ("b",))


def test_a_configuration_overlay_belongs_to_its_container() -> None:
    old, new = state(container("a")), state(container("a"), {"_config/a/etc/x": SHA})
    assert plan(old, new).start == ("a",)


def test_what_belongs_to_nobody_reboots() -> None:
    for path, value in (
        ("bsp/kernel.img", SHA),
        ("device.json", {"groups": [{"name": "app"}]}),
        ("_hostconfig/pvr/docker.json", {}),
        ("elsewhere/file", SHA),
        ("_config/nobody/etc/x", SHA),
    ):
        result = plan(state(container("a")), state(container("a"), {path: value}))
        assert result.reboot
        assert result.reasons == (f"{path} is added, and belongs to no container",)
        assert (result.stop, result.start, result.keep) == ((), (), ())


def test_the_restart_policy_counts_in_both_revisions() -> None:
    system = container("a", restart_policy="system")
    for old, new in ((system, container("a")), (container("a"), system)):
        assert plan(state(old), state(new)).reboot
    assert plan(state(), state(system)).reboot
    assert plan(state(system), state()).reasons == (
        "a/c is removed, a/run.json is removed, and the container a has the restart policy 'system'",
    )


def test_authors_files_are_not_compared() -> None:
    extra = {"a/src.json": {"x": 1}, "bsp/build.json": {"y": 2}, "_sigs/a.json": {"#spec": "pvs@2"}}
    assert plan(state(container("a")), state(container("a"), extra)) == Transition(False, (), (), (), ("a",))


def test_json_is_compared_by_value_and_true_is_not_one() -> None:
    old = state(container("a"), {"a/x.json": {"v": 1}})
    assert not plan(old, state(container("a"), {"a/x.json": {"v": 1.0}})).start
    assert plan(old, state(container("a"), {"a/x.json": {"v": True}})).start == ("a",)


def test_groups_give_the_order() -> None:
    groups = {"groups.json": [{"name": "z"}, {"name": "app"}]}
    old = state(groups, container("a"), container("b", group="z"))
    new = state(groups, container("a") | {"a/c": SHA2}, container("b", group="z") | {"b/c": SHA2})
    result = plan(old, new)
    assert (result.stop, result.start) == (("a", "b"), ("b", "a"))


def test_a_container_that_changes_its_group_without_a_change_of_its_own() -> None:
    def ungrouped(name: str) -> dict[str, object]:
        return {f"{name}/c": SHA, f"{name}/run.json": {"name": name, "config": "c", "restart_policy": "container"}}

    result = plan(state(ungrouped("b")), state(ungrouped("a"), ungrouped("b")))
    assert not result.reboot
    assert result.start == ("a", "b")
    assert "the group of b is now platform: only the container b is concerned" in result.reasons


def test_the_bootloader_may_insist() -> None:
    base = state(container("a"))
    assert plan(base, base, force_reboot="the boot partition is full").reasons == ("the boot partition is full",)
