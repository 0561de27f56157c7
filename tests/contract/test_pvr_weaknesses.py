"""The reference client's weaknesses (contract pvr.md 8.2), row by row: which test shows that ours does not share it.

The rows about transfers, merging, files and applications that have no other home are tested here; those about
signatures, images and accounts in the file beside it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.oci.layout import LayoutWriter
from brickless.oci.manifest import Platform
from brickless.testkit.archives import file, tar_of
from brickless.testkit.debian_image import PLAIN, write_image
from brickless.testkit.device_endpoint import DeviceEndpoint

TESTS = Path(__file__).parents[1]
LIES = "contract/test_pvr_hub_lies.py"
OTHERS = "contract/test_pvr_weaknesses_signatures_devices.py"
HERE = "contract/test_pvr_weaknesses.py"
#: Row of the table in the contract, and the tests that show the opposite.
TABLE: dict[int, list[tuple[str, str]]] = {
    1: [(LIES, "test_wrong_bytes_are_never_stored"), (LIES, "test_a_broken_download_goes_on_where_it_stopped")],
    2: [(LIES, "test_a_state_answered_with_an_error_status_is_refused"),
        (LIES, "test_what_is_no_state_never_becomes_one")],
    3: [
        (HERE, "test_03_many_files_are_uploaded_without_a_dead_lock"),
        (HERE, "test_03_an_object_that_cannot_be_read_is_an_error_and_no_hang"),
        (HERE, "test_03_a_broken_connection_is_tried_again"),
        ("flow/test_pvr_real_hub.py", "test_ctrl_c_during_a_transfer_loses_nothing"),
        ("flow/test_pvr_real_hub.py", "test_a_killed_post_and_a_killed_get_are_finished_by_the_next"),
    ],
    4: [(LIES, "test_a_post_uploads_what_is_missing_once")],
    5: [
        (LIES, "test_an_expired_token_is_refreshed_and_kept"),
        (LIES, "test_a_foreign_server_does_not_get_the_hubs_token"),
        (LIES, "test_a_bare_403_is_an_error_and_no_crash"),
        (LIES, "test_a_guest_never_takes_the_place_of_a_user"),
        ("flow/test_pvr_real_hub.py", "test_accounts_and_devices"),
    ],
    6: [(OTHERS, "test_06_claim_by_id_goes_to_the_hub_that_was_named"),
        (OTHERS, "test_06_user_and_device_are_looked_for_where_one_says")],
    7: [
        (LIES, "test_an_empty_get_asks_where_the_last_one_asked"),
        (LIES, "test_merge_knows_every_kind_of_reference"),
        (HERE, "test_07_fragments_are_path_components_everywhere"),
    ],
    8: [(HERE, "test_08_nulls_and_big_numbers_survive_everything")],
    9: [(HERE, "test_09_add_of_a_folder_adds_it_and_says_what_is_lost")],
    10: [("unit/pvr/test_local_commands.py", "test_a_hostile_archive_is_refused_and_changes_nothing")],
    11: [(OTHERS, "test_11_put_into_a_local_repository_is_the_inverse_of_get")],
    12: [(OTHERS, "test_12_init_in_a_repository_is_an_error")],
    13: [
        (HERE, "test_13_several_volumes_make_a_run_json_that_commits"),
        (HERE, "test_13_config_json_counts_for_images_too"),
        (HERE, "test_13_an_update_of_a_root_file_system_is_one"),
        (HERE, "test_13_no_temporary_folder_stays"),
        (HERE, "test_13_an_update_of_a_base_reaches_what_lies_over_it"),
        ("unit/oci/test_app.py", "test_install_renders_again_without_touching_a_hard_linked_object"),
        ("unit/oci/test_app.py", "test_a_rootfs_from_a_url"),
        ("unit/oci/test_app.py", "test_src_json_looks_as_the_reference_writes_it_and_keeps_unknown_keys"),
        ("unit/oci/test_registry.py", "test_good_references"),
        ("unit/oci/test_overlay.py", "test_apps_over_a_base"),
        ("unit/oci/test_overlay.py", "test_above_and_below_are_the_whole_and_above_is_only_what_differs"),
        ("unit/oci/test_squashfs.py", "test_a_stream_that_mksquashfs_does_not_take_whole_is_an_error"),
    ],
    14: [(HERE, "test_14_platforms_count_in_the_order_of_preference"), ("unit/oci/test_sources.py",
        "test_a_layout_with_layers_of_every_compression")],
    15: [(OTHERS, "test_15_a_raw_signature_excludes_itself_by_its_own_name"),
         (OTHERS, "test_15_ls_takes_its_part_flag_seriously"),
         (OTHERS, "test_15_update_to_standard_output_makes_no_file_called_dash"),
         (OTHERS, "test_15_output_replaces_a_longer_file_whole"),
         (OTHERS, "test_15_p_521_signs_and_verifies"),
         (OTHERS, "test_15_ls_shows_the_signature_as_it_was_received"),
         (OTHERS, "test_15_the_certs_url_is_where_the_keys_come_from")],
    16: [(OTHERS, "test_16_deploy_reports_an_object_that_cannot_be_linked"),
         (OTHERS, "test_16_deploy_takes_the_pool_of_the_storage_as_a_flag")],
    17: [(OTHERS, "test_17_dm_apply_goes_on_after_an_unchanged_volume"),
         (OTHERS, "test_17_an_error_of_veritysetup_is_an_error")],
    18: [(OTHERS, "test_18_a_template_is_followed"), (OTHERS, "test_18_logs_as_json_are_data_on_standard_output"),
         (OTHERS, "test_18_logs_end_and_durations_need_no_beginning")],
    19: [(OTHERS, "test_19_ps_shows_devices_with_short_or_missing_members"),
         (OTHERS, "test_19_ps_says_when_the_hub_failed_instead_of_showing_nothing")],
    20: [(OTHERS, "test_20_status_and_coverage_are_in_order"),
         ("unit/pvr/test_local_commands.py", "test_an_export_is_reproducible_and_starts_with_the_state")],
    21: [(OTHERS, "test_21_register_asks_the_hub_itself_and_takes_the_password_from_the_environment")],
    22: [("unit/pvr/test_docs.py", "test_every_command_that_a_page_shows_exists_with_its_flags")],
    23: [(OTHERS, "test_23_signatures_are_verified_when_one_asks_for_it")],
    24: [(HERE, "test_24_the_format_is_changed_by_a_flag_of_commit")],
}  # fmt: skip


def test_every_row_has_a_test_that_exists() -> None:
    assert sorted(TABLE) == list(range(1, 25))
    for row, tests in TABLE.items():
        assert tests, f"row {row} has no test"
        for name, function in tests:
            tree = ast.parse((TESTS / name).read_text())
            assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (row, name, function)


@pytest.fixture
def tree(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one; temporary files have a place that can be looked into."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture
def pvr(run_pvr: Any, tree: Path) -> Any:
    """`pvr`, in a fresh repository."""
    run_pvr("init")
    return run_pvr


@pytest.fixture
def device() -> Iterator[DeviceEndpoint]:
    with DeviceEndpoint({"#spec": "pantavisor-service-system@1"}, {}) as device:
        yield device


def pool() -> Path:
    return Path(os.environ["HOME"], ".pvr/objects")


def committed(tree: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tree / ".pvr/json").read_bytes())
    return found


# 3: uploads


def test_03_many_files_are_uploaded_without_a_dead_lock(pvr: Any, tree: Path, device: DeviceEndpoint) -> None:
    for number in range(300):
        (tree / f"f{number}").write_text(str(number))
    pvr("add")
    pvr("commit")
    pvr("post", device.address)
    assert len(device.objects) == 300
    assert set(device.state) == {"#spec", *(f"f{number}" for number in range(300))}


def test_03_an_object_that_cannot_be_read_is_an_error_and_no_hang(pvr: Any, tree: Path, device: DeviceEndpoint) -> None:
    (tree / "a").write_bytes(b"a")
    pvr("add")
    pvr("commit")
    sha = hashlib.sha256(b"a").hexdigest()
    (pool() / sha).unlink()
    (pool() / sha).mkdir()
    assert sha in pvr("post", device.address, code=3).err
    assert device.steps == []


def test_03_a_broken_connection_is_tried_again(pvr: Any, tree: Path, device: DeviceEndpoint) -> None:
    (tree / "a").write_bytes(b"a" * 100_000)
    pvr("add")
    pvr("commit")
    handler = device.RequestHandlerClass
    whole, broken = handler.handle_any, [2]

    def breaking(self: Any) -> None:
        if self.command == "PUT" and broken[0]:
            broken[0] -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        whole(self)

    handler.do_PUT = breaking
    try:
        pvr("post", device.address)
    finally:
        handler.do_PUT = whole
    assert list(device.objects.values()) == [b"a" * 100_000]
    assert broken == [0]


# 7: fragments


def test_07_fragments_are_path_components_everywhere(pvr: Any, tree: Path, tmp_path: Path) -> None:
    for name in ("app", "app2", "app.d"):
        (tree / name).mkdir()
        (tree / name / "run.json").write_text(f'{{"name":"{name}"}}')
        (tree / name / "data").write_text(name)
    (tree / "apple.json").write_text("{}")
    pvr("add")
    pvr("commit")
    other = tmp_path / "other"
    neighbours = {key for key in committed(tree) if not key.startswith("app/")}
    for command in ("get", "merge"):
        pvr("clone", ".", str(other))
        pvr("-C", str(other), command, f"{tree}#app")
        assert set(committed(other)) == set(committed(tree))
        pvr("-C", str(other), command, f"{tree}#app2,-app")
        assert set(committed(other)) == neighbours, command
        subprocess.run(["rm", "-rf", str(other)], check=True)
    pvr("export", "--parts", "app", str(tmp_path / "x.tar"))
    with tarfile.open(tmp_path / "x.tar") as archive:
        member = archive.extractfile("json")
        assert member is not None
        assert set(json.load(member)) == {"#spec", "app/run.json", "app/data"}
    pvr("deploy", str(tmp_path / "revision"), f"{tree}#app")
    assert set(committed(tmp_path / "revision")) - {"#spec"} == {"app/run.json", "app/data"}
    (tree / "app/data").write_text("changed")
    (tree / "app2/data").write_text("changed")
    pvr("commit")
    pvr("revert", "HEAD~1", "app")
    assert committed(tree)["app/data"] == hashlib.sha256(b"app").hexdigest()
    assert committed(tree)["app2/data"] == hashlib.sha256(b"changed").hexdigest()


# 8, 9, 24: what a commit keeps


def test_08_nulls_and_big_numbers_survive_everything(pvr: Any, tree: Path, tmp_path: Path) -> None:
    value = {"Entrypoint": None, "list": [1, None, {"q": None}], "big": 2**60 + 1, "small": 9007199254740993}
    (tree / "a.json").write_text("{}")
    pvr("add")
    pvr("commit")
    (tree / "a.json").write_text(json.dumps(value))
    pvr("commit")
    assert pvr("status").out == ""
    assert committed(tree)["a.json"] == value
    pvr("clone", ".", str(tmp_path / "copy"))
    assert json.loads((tmp_path / "copy/a.json").read_text()) == value
    pvr("export", str(tmp_path / "x.tgz"))
    pvr("-C", str(tmp_path / "copy"), "get", str(tmp_path / "x.tgz"))
    assert committed(tmp_path / "copy")["a.json"] == value


def test_09_add_of_a_folder_adds_it_and_says_what_is_lost(pvr: Any, tree: Path) -> None:
    (tree / "web/deep").mkdir(parents=True)
    (tree / "web/deep/file").write_text("1")
    (tree / "web/link").symlink_to("deep/file")
    (tree / "other").write_text("1")
    err = pvr("add", "web").err
    assert "web/link" in err
    assert pvr("status").out == "A web/deep/file\nA web/link\n? other\n"
    assert "no-such-*: matches no file" in pvr("add", "no-such-*").err


def test_24_the_format_is_changed_by_a_flag_of_commit(pvr: Any, tree: Path) -> None:
    assert committed(tree)["#spec"] == "pantavisor-service-system@1"
    pvr("commit", "--spec", "pantavisor-multi-platform@1")
    assert committed(tree)["#spec"] == "pantavisor-multi-platform@1"
    (tree / "a.json").write_text("{}")
    pvr("add")
    pvr("commit")
    assert committed(tree)["#spec"] == "pantavisor-multi-platform@1"


# 13, 14: applications


def rootfs(folder: Path, text: str) -> Path:
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin/x").write_text(text)
    return folder


def layout(folder: Path, platforms: tuple[str, ...] = ("linux/amd64",)) -> str:
    """An image whose only file and command are named after its platform."""
    writer = LayoutWriter(folder)
    made = []
    for name in platforms:
        layers = [(tar_of(("x", file(name.encode()))), PLAIN)]
        made.append((write_image(writer, layers, {"Cmd": [f"/{name}"]}, platform=Platform.parse(name)), ""))
    writer.finish(made)
    return f"oci:{folder}"


def test_13_several_volumes_make_a_run_json_that_commits(pvr: Any, tree: Path, tmp_path: Path) -> None:
    flags = ("--arg", "PV_EXTRA_VOLUMES=a.squashfs,b.squashfs,c.squashfs")
    pvr("app", "add", "web", "--from", layout(tmp_path / "image"), *flags)
    pvr("add")
    pvr("commit")
    assert committed(tree)["web/run.json"]["volumes"] == ["a.squashfs", "b.squashfs", "c.squashfs"]


def test_13_config_json_counts_for_images_too(pvr: Any, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"Entrypoint":["/other"],"WorkingDir":"/srv"}')
    pvr("app", "add", "web", "--from", layout(tmp_path / "image"), "--config-json", str(tmp_path / "config.json"))
    conf = (tree / "web/lxc.container.conf").read_text()
    assert "lxc.init.cmd = /other" in conf
    assert "lxc.init.cwd = /srv" in conf


def test_13_an_update_of_a_root_file_system_is_one(pvr: Any, tree: Path, tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root", "one")
    pvr("app", "add", "web", "--type", "rootfs", "--from", str(root), "--volume", "/data:permanent")
    first = (tree / "web/root.squashfs").read_bytes()
    rootfs(root, "two")
    pvr("app", "update", "web")
    src = json.loads((tree / "web/src.json").read_text())
    assert (tree / "web/root.squashfs").read_bytes() != first
    assert src["persistence"] == {"/data": "permanent"}, "the reference forgets it"
    assert src["rootfs_url"] == str(root)


def test_13_an_update_of_a_base_reaches_what_lies_over_it(pvr: Any, tree: Path, tmp_path: Path) -> None:
    pvr("app", "add", "os", "--from", layout(tmp_path / "one"))
    pvr("app", "add", "web", "--from", layout(tmp_path / "two", ("linux/amd64/v3",)), "--base", "os")
    (tree / "bsp").mkdir(exist_ok=True)
    (tree / "bsp/src.json").write_text("{}")  # as real BSPs have: no app, and no obstacle

    def digests() -> list[str]:
        return [json.loads((tree / name / "src.json").read_bytes())["docker_digest"] for name in ("os", "web")]

    before = digests()
    pvr("app", "update", "os", "--from", layout(tmp_path / "three", ("linux/amd64/v2",)))
    assert len(set(digests())) == 1
    assert digests() != before
    # What cannot be built anew is said, and the base is updated all the same.
    shutil.rmtree(tmp_path / "two")
    ran = pvr("app", "update", "os", "--from", layout(tmp_path / "four", ("linux/amd64/v4",)))
    assert "web lies over os and is as it was" in ran.err
    assert digests()[0] != digests()[1]


def test_13_no_temporary_folder_stays(pvr: Any, tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as made:
        made.add(rootfs(tmp_path / "root", "one"), ".")
    pvr("app", "add", "one", "--type", "rootfs", "--from", str(archive))
    pvr("app", "add", "two", "--from", layout(tmp_path / "image"))
    archive.write_bytes(archive.read_bytes()[:700])
    pvr("app", "add", "three", "--type", "rootfs", "--from", str(archive), code=3)
    assert os.listdir(tmp_path / "tmp") == []
    assert sorted(os.listdir(tree)) == [".pvr", "one", "two"]


def test_14_platforms_count_in_the_order_of_preference(pvr: Any, tree: Path, tmp_path: Path) -> None:
    """As committed in `_hostconfig/pvr/docker.json`; nothing is taken silently when none of them is there."""
    image = layout(tmp_path / "image", ("linux/amd64", "linux/arm64", "linux/arm/v7"))
    wanted = tree / "_hostconfig/pvr/docker.json"
    wanted.parent.mkdir(parents=True)
    for number, (platforms, expected) in enumerate(
        [(["linux/arm/v7", "linux/arm64"], "linux/arm/v7"), (["linux/riscv64", "linux/arm64"], "linux/arm64")]
    ):
        wanted.write_text(json.dumps({"platforms": platforms}))
        pvr("add")
        pvr("commit")
        pvr("app", "add", f"web{number}", "--from", image)
        assert json.loads((tree / f"web{number}/src.json").read_text())["docker_platform"] == expected
        assert f"/{expected}" in (tree / f"web{number}/lxc.container.conf").read_text()
    wanted.write_text(json.dumps({"platforms": ["linux/riscv64"]}))
    pvr("commit")
    assert "riscv64" in pvr("app", "add", "none", "--from", image, code=3).err
    assert not (tree / "none").exists()
    pvr("app", "add", "flag", "--from", image, "--platform", "linux/amd64")
    assert json.loads((tree / "flag/src.json").read_text())["docker_platform"] == "linux/amd64"
