"""dm-verity: the manifests and hash trees are those of veritysetup, and nothing is written outside or half."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from brickless.core.errors import HostileInputError, UserError
from brickless.linux import process
from brickless.oci.layout import LayoutWriter
from brickless.pvr import verity
from brickless.pvr.main import run
from brickless.testkit.archives import file, tar_of
from brickless.testkit.debian_image import PLAIN, write_image

RUN = {"name": "web", "root-volume": "root.squashfs", "volumes": ["data.squashfs", "more.squashfs"]}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    web.mkdir()
    (web / "root.squashfs").write_bytes(os.urandom(40960))
    (web / "data.squashfs").write_bytes(os.urandom(8192))
    (web / "run.json").write_text(json.dumps(RUN))
    (web / "src.json").write_text(json.dumps({"template": "builtin-lxc-docker", "pv_build_origin": "yocto"}))
    return tmp_path


def load(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(path.read_text())
    return document


@pytest.mark.needs("verity")
def test_a_converted_volume_verifies_with_veritysetup(repo: Path) -> None:
    written = verity.convert(str(repo), "web", "root.squashfs")
    assert written == ["web/_dm/root.squashfs.json", "web/root.squashfs.hash", "web/run.json", "web/src.json"]
    manifest = load(repo / "web/_dm/root.squashfs.json")
    assert set(manifest) == {"type", "data_device", "hash_device", "root_hash", "salt", "uuid"}
    web = repo / "web"
    argv = ["veritysetup", "verify", "root.squashfs", "root.squashfs.hash", str(manifest["root_hash"])]
    process.run(argv, purpose="verifying", timeout_s=60, cwd=str(web))
    dump = process.run(["veritysetup", "dump", "root.squashfs.hash"], purpose="dump", timeout_s=60, cwd=str(web)).stdout
    assert re.search(rf"UUID:\s+{manifest['uuid']}", dump.decode())
    assert load(web / "run.json") == RUN | {"root-volume": "dm:root.squashfs"}
    assert load(web / "src.json")["dm_enabled"] == {"root.squashfs": True}
    assert load(web / "src.json")["pv_build_origin"] == "yocto", "unknown members stay"
    data = bytearray((web / "root.squashfs").read_bytes())
    data[5000] ^= 1
    (web / "root.squashfs").write_bytes(data)
    with pytest.raises(process.ProcessError):
        process.run(argv, purpose="verifying", timeout_s=60, cwd=str(web))


@pytest.mark.needs("verity")
def test_applying_again_changes_nothing_and_stops_nothing(repo: Path) -> None:
    verity.convert(str(repo), "web", "root.squashfs")
    verity.convert(str(repo), "web", "data.squashfs")
    paths = ["web/_dm/data.squashfs.json", "web/_dm/root.squashfs.json", "web/run.json", "web2/_dm/x.json"]
    before = (repo / "web/root.squashfs.hash").read_bytes()
    (repo / "web/root.squashfs").write_bytes(os.urandom(40960))
    done = verity.apply(str(repo), paths, "web")
    assert [(item.manifest, item.changed) for item in done] == [
        ("web/_dm/data.squashfs.json", False),
        ("web/_dm/root.squashfs.json", True),
    ]
    assert (repo / "web/root.squashfs.hash").read_bytes() != before
    assert load(repo / "web/run.json")["volumes"] == ["dm:data.squashfs", "more.squashfs"]
    assert verity.apply(str(repo), paths, "we") == [], "a prefix is a path, not the beginning of a name"
    assert not [name for name in os.listdir(repo / "web") if ".tmp-" in name]


@pytest.mark.needs("verity")
def test_the_same_salt_and_uuid_make_the_same_tree(repo: Path) -> None:
    verity.convert(str(repo), "web", "root.squashfs")
    tree, manifest = (repo / "web/root.squashfs.hash").read_bytes(), load(repo / "web/_dm/root.squashfs.json")
    (repo / "web/root.squashfs.hash").unlink()
    assert verity.apply(str(repo), ["web/_dm/root.squashfs.json"])[0].changed
    assert (repo / "web/root.squashfs.hash").read_bytes() == tree
    assert load(repo / "web/_dm/root.squashfs.json") == manifest


@pytest.mark.needs("verity")
def test_a_symlink_at_the_hash_file_is_replaced_and_never_written_through(repo: Path) -> None:
    victim = repo / "victim"
    victim.write_text("precious")
    (repo / "web/root.squashfs.hash").symlink_to(victim)
    verity.convert(str(repo), "web", "root.squashfs")
    assert victim.read_text() == "precious"
    assert not (repo / "web/root.squashfs.hash").is_symlink()


@pytest.mark.needs("verity")
@pytest.mark.parametrize(
    ("container", "volume", "id_"),
    [
        ("web", "nothing.squashfs", "volume-unknown"),
        ("web", "more.squashfs", "volume-missing"),
        ("nobody", "root.squashfs", "container-missing"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_written(
    repo: Path, container: str, volume: str, id_: str
) -> None:
    with pytest.raises(UserError) as caught:
        verity.convert(str(repo), container, volume)
    assert caught.value.id == id_
    assert not (repo / "web/_dm").exists()


@pytest.mark.needs("verity")
@pytest.mark.parametrize(
    "manifest",
    [
        {"data_device": "../../etc/passwd", "hash_device": "h"},
        {"data_device": "root.squashfs", "hash_device": "../h"},
        {"data_device": "-x", "hash_device": "h"},
        {"data_device": 7, "hash_device": "h"},
        {"data_device": "root.squashfs", "hash_device": "h", "salt": "--help"},
        {"data_device": "root.squashfs", "hash_device": "h", "uuid": "x"},
    ],
)
def test_manifests_that_lead_elsewhere_are_refused(repo: Path, manifest: dict[str, object]) -> None:
    (repo / "web/_dm").mkdir()
    (repo / "web/_dm/x.json").write_text(json.dumps({"type": "dm-verity"} | manifest))
    with pytest.raises(HostileInputError):
        verity.apply(str(repo), ["web/_dm/x.json"])


@pytest.mark.needs("verity")
def test_a_volume_that_is_a_symlink_is_refused(repo: Path) -> None:
    (repo / "web/root.squashfs").unlink()
    (repo / "web/root.squashfs").symlink_to("/etc/passwd")
    with pytest.raises(HostileInputError, match="symlink"):
        verity.convert(str(repo), "web", "root.squashfs")


@pytest.mark.parametrize("output", [b"", b"UUID: x\nSalt: y\nRoot hash: z\n", b"\xff\xfe"])
def test_output_that_is_not_known_is_refused(output: bytes) -> None:
    with pytest.raises(HostileInputError):
        verity.parse_output(output)


@pytest.mark.needs("verity")
def test_install_and_update_hash_a_protected_volume_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was built must boot: without it the device would refuse the new root for its old hash."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    repo = tmp_path / "repo"
    repo.mkdir()
    monkeypatch.chdir(repo)
    layouts = {}
    for name in ("one", "two"):
        layouts[name] = LayoutWriter(tmp_path / name)
        layer = (tar_of(("x", file(name.encode()))), PLAIN)
        layouts[name].finish([(write_image(layouts[name], [layer], {"Cmd": ["/x"]}), "latest")])
    for line in (
        ["init"],
        ["app", "add", "web", "--from", f"oci:{tmp_path}/one"],
        ["add"],
        ["commit"],
        ["dm-convert", "web", "root.squashfs"],
        ["app", "install", "web"],
    ):
        assert run(line) == 0, (line, capsys.readouterr())
    first = load(repo / "web/_dm/root.squashfs.json")
    assert load(repo / "web/run.json")["root-volume"] == "dm:root.squashfs", "rendering keeps the protection"
    assert "Unchanged verity format web/_dm/root.squashfs.json" in capsys.readouterr().err
    assert run(["app", "update", "web", "--from", f"oci:{tmp_path}/two"]) == 0
    assert "Updated web/_dm/root.squashfs.json" in capsys.readouterr().err
    second = load(repo / "web/_dm/root.squashfs.json")
    assert second["root_hash"] != first["root_hash"]
    argv = ["veritysetup", "verify", "root.squashfs", "root.squashfs.hash", str(second["root_hash"])]
    process.run(argv, purpose="verifying", timeout_s=60, cwd=str(repo / "web"))
