"""Limits of containers, drivers by alias, storage that is kept with its revision: our own and the field's members."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brickless.core import canonical
from brickless.core.drivers import Module, resolve
from brickless.core.errors import StateError
from brickless.core.limits import Limits, parse_limits
from brickless.core.node import Node
from brickless.core.state import parse_state

TABLE = {
    "all": {"wifi": ("brcmutil", "brcmfmac debug=${user-meta:DEBUG} roam=1"), "empty": ()},
    "fitconfig:b2": {"wifi": ("other",)},
}


def test_an_alias_is_its_modules_with_the_owner_s_values() -> None:
    found = resolve(TABLE, "wifi", fitconfig="", user_meta=lambda _key: "7")
    assert found == [Module("brcmutil", ""), Module("brcmfmac", "debug=7 roam=1")]


def test_a_value_that_nobody_set_leaves_its_parameter_out() -> None:
    assert resolve(TABLE, "wifi", fitconfig="x", user_meta=lambda _key: "")[1] == Module("brcmfmac", "roam=1")


def test_an_owner_s_value_adds_no_parameter_of_its_own() -> None:
    (_, module) = resolve(TABLE, "wifi", fitconfig="", user_meta=lambda _key: 'a" evil=1\n')
    assert module.parameters == "debug=aevil=1 roam=1"


def test_the_booted_configuration_comes_first() -> None:
    assert resolve(TABLE, "wifi", fitconfig="b2", user_meta=lambda _key: "") == [Module("other", "")]


def test_an_unknown_alias_is_named() -> None:
    with pytest.raises(ValueError, match="no driver is called nfc"):
        resolve(TABLE, "nfc", fitconfig="", user_meta=lambda _key: "")
    with pytest.raises(ValueError, match="is no module"):
        resolve({"all": {"x": ("../evil",)}}, "x", fitconfig="", user_meta=lambda _key: "")


def test_limits_in_the_words_of_both_versions() -> None:
    limits = parse_limits(Node("r", {"memory": "64M", "cpu": Decimal("0.5"), "pids": 10}))
    assert limits == Limits(64 << 20, 50_000, 10)
    assert limits.lines(unified=True) == [
        ("lxc.cgroup2.memory.max", "67108864"),
        ("lxc.cgroup2.cpu.max", "50000 100000"),
        ("lxc.cgroup2.pids.max", "10"),
    ]
    assert ("lxc.cgroup.cpu.cfs_quota_us", "50000") in limits.lines(unified=False)
    assert Limits().lines(unified=True) == []


@pytest.mark.parametrize(
    "value",
    [{"memory": "5K"}, {"memory": True}, {"memory": "64 M"}, {"cpu": 0}, {"cpu": "1"}, {"pids": 0}, {"ram": "1G"}],
)
def test_limits_that_are_none(value: canonical.JsonValue) -> None:
    with pytest.raises(StateError, match=r"\."):
        parse_limits(Node("r", value))


def parse(storage: object) -> None:
    run = {"name": "a", "config": "c", "storage": {"s": storage}}
    parse_state(canonical.dumps({"#spec": "pantavisor-service-system@1", "a/run.json": run, "a/c": "a" * 64}))


def test_only_permanent_storage_is_kept_with_its_revision() -> None:
    parse({"persistence": "permanent", "snapshot": True})
    parse({"persistence": "boot", "snapshot": False})
    for bad in ({"persistence": "boot", "snapshot": True}, {"persistence": "permanent", "snapshot": "yes"}):
        with pytest.raises(StateError, match="snapshot"):
            parse(bad)
