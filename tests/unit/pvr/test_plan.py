"""What a post would cost the device."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr.plan import Needed, plan

A, B, C = "a" * 64, "b" * 64, "c" * 64
SIZES = {A: 100, B: 20}


def container(name: str, sha: str, **run: JsonValue) -> dict[str, JsonValue]:
    return {
        f"{name}/lxc.container.conf": C,
        f"{name}/root.squashfs": sha,
        f"{name}/run.json": {
            "#spec": "service-manifest-run@1",
            "name": name,
            "type": "lxc",
            "group": "app",
            "config": "lxc.container.conf",
            "root-volume": "root.squashfs",
            **run,
        },
    }


SPEC: dict[str, JsonValue] = {"#spec": "pantavisor-service-system@1"}
OLD = SPEC | container("web", A) | container("db", A)


def test_a_change_of_a_container_restarts_it_alone_and_costs_its_objects() -> None:
    found = plan(OLD, OLD | container("web", B), size_of=SIZES.get)
    assert found.needed == (Needed("web/root.squashfs", B, 20),)
    assert (found.download_bytes, found.unknown_sizes, found.kept_objects) == (20, 0, 2)
    assert (found.refused, found.reboot, found.stop, found.start, found.keep) == (
        "",
        False,
        ("web",),
        ("web",),
        ("db",),
    )


def test_a_change_of_nobodys_file_reboots_and_says_why() -> None:
    found = plan(OLD, OLD | {"boot.cfg": B}, size_of=SIZES.get)
    assert found.reboot is True
    assert "boot.cfg is added" in found.reasons[0]


def test_an_object_counts_once_and_what_the_device_has_costs_nothing() -> None:
    new = OLD | container("one", B) | container("two", B)
    assert plan(OLD, new, size_of=SIZES.get).download_bytes == 20
    assert plan(OLD, new, size_of=SIZES.get, device_has={B}).needed == ()


def test_a_size_that_nobody_knows_is_counted_as_unknown() -> None:
    found = plan(OLD, OLD | container("web", "d" * 64), size_of=SIZES.get)
    assert (found.download_bytes, found.unknown_sizes) == (0, 1)


def test_a_state_that_the_device_would_refuse_is_said_to_be_refused() -> None:
    broken = OLD | {"web/run.json": {"name": "other"}}
    found = plan(OLD, broken, size_of=SIZES.get)
    assert "web/run.json" in found.refused
    assert found.reboot is None


def test_a_device_state_that_cannot_be_read_leaves_the_reboot_open() -> None:
    found = plan({"#spec": "what@9"}, OLD, size_of=SIZES.get)
    assert found.refused == ""
    assert found.reboot is None
    assert "cannot be read" in found.reasons[0]
