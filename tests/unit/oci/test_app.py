"""Apps in a working tree: what is written, what stays, and that a failure leaves the repository as it was."""

from __future__ import annotations

import functools
import json
import os
import resource
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brickless.core.errors import BricklessError, UserError
from brickless.linux import process
from brickless.oci import manifest_src
from brickless.oci.app import (
    UP_TO_DATE,
    AppSettings,
    Build,
    add_app,
    check_name,
    install_app,
    list_apps,
    remove_app,
    render_app,
    update_app,
)
from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, folder, symlink, tar_of
from brickless.testkit.debian_image import GZIP, ZSTD, write_image

PASSWD = b"root:x:0:0::/:\nweb:x:101:102::/:\n"
CONFIG = {"Cmd": ["/bin/x"], "Env": ["A=1"], "User": "web", "Labels": {"l": "<1>"}, "Volumes": {"/data": {}}}


def layout(where: Path, content: bytes = b"1", config: dict[str, Any] | None = None) -> str:
    writer = LayoutWriter(where)
    layers = [(tar_of(("bin/x", file(content, mode=0o755)), ("etc/passwd", file(PASSWD))), GZIP)]
    layers += [(tar_of(("etc/group", file(b"web:x:102:\n"))), ZSTD)]
    writer.finish([(write_image(writer, layers, CONFIG if config is None else config), "")])
    return f"oci:{where}"


def build(tmp_path: Path, **kwargs: Any) -> Build:
    return Build(cache=tmp_path / "cache", **kwargs)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    path.mkdir()
    return path


def snapshot(repo: Path) -> dict[str, bytes]:
    return {str(p.relative_to(repo)): p.read_bytes() for p in sorted(repo.rglob("*")) if p.is_file()}


def test_add_writes_the_files_of_the_contract(repo: Path, tmp_path: Path) -> None:
    (repo / "groups.json").write_text('[{"name":"data"},{"name":"app"}]')
    source = layout(tmp_path / "l")
    settings = AppSettings(args={"PV_RESTART_POLICY": "container"}, persistence={"/data": "revision"})
    add_app(repo, "/web/", source, build=build(tmp_path), settings=settings)
    assert sorted(os.listdir(repo / "web")) == [
        "lxc.container.conf",
        "root.squashfs",
        "root.squashfs.docker-digest",
        "run.json",
        "src.json",
    ]
    src = json.loads((repo / "web/src.json").read_text())
    assert src["docker_user"] == {"user": "web", "uid": 101, "gid": 102}
    assert src["docker_config"] == CONFIG
    assert src["docker_archive"] == source
    assert src["docker_digest"] == (repo / "web/root.squashfs.docker-digest").read_text()
    assert "config" not in src, "empty members are left away"
    run = json.loads((repo / "web/run.json").read_text())
    assert run["group"] == "app"
    assert run["storage"]["docker--data"] == {"persistence": "revision"}
    conf = (repo / "web/lxc.container.conf").read_text()
    assert "lxc.init.uid = 101\nlxc.init.gid = 102\n" in conf
    assert list_apps(repo) == ["web"]


def test_src_json_looks_as_the_reference_writes_it_and_keeps_unknown_keys(repo: Path, tmp_path: Path) -> None:
    add_app(repo, "web", layout(tmp_path / "l"), build=build(tmp_path))
    text = (repo / "web/src.json").read_text()
    assert text.startswith('{\n  "#spec": "service-manifest-src@1",\n  "template": "builtin-lxc-docker",\n')
    assert '\n  "docker_config": {\n   "Cmd": [\n    "/bin/x"\n   ],\n' in text
    assert "\\u003c1\\u003e" in text
    assert text.endswith("\n }")
    value = json.loads(text)
    value |= {"pv_build_origin": {"layer": "meta-x", "n": 1}, "number": 0.1}
    (repo / "web/src.json").write_text(json.dumps(value))
    update_app(repo, "web", build=build(tmp_path), source=layout(tmp_path / "l2", b"2"))
    after = json.loads((repo / "web/src.json").read_text())
    assert after["pv_build_origin"] == {"layer": "meta-x", "n": 1}
    assert '"number": 0.1' in (repo / "web/src.json").read_text()
    assert list(after)[:2] == ["#spec", "template"]
    assert list(after).index("docker_digest") < list(after).index("pv_build_origin")


def test_install_builds_only_when_the_marker_differs(repo: Path, tmp_path: Path) -> None:
    said: list[str] = []
    add_app(repo, "web", layout(tmp_path / "l"), build=build(tmp_path))
    before = snapshot(repo)
    install_app(repo, "web", build=build(tmp_path, say=said.append))
    assert said == [UP_TO_DATE]
    assert snapshot(repo) == before
    (repo / "web/root.squashfs.docker-digest").unlink()
    (repo / "web/root.squashfs").write_bytes(b"half of it")
    install_app(repo, "web", build=build(tmp_path, say=said.append))
    assert "Generating root.squashfs" in said
    assert snapshot(repo) == before


def test_install_renders_again_without_touching_a_hard_linked_object(repo: Path, tmp_path: Path) -> None:
    add_app(repo, "web", layout(tmp_path / "l"), build=build(tmp_path))
    pool = tmp_path / "object"
    os.link(repo / "web/lxc.container.conf", pool)
    old = pool.read_bytes()
    src = manifest_src.read(repo / "web")
    manifest_src.write(repo / "web", {**src, "args": {"PV_LXC_EXTRA_ENV": ["NEW=1"]}})
    install_app(repo, "web", build=build(tmp_path))
    assert pool.read_bytes() == old
    assert "NEW=1" in (repo / "web/lxc.container.conf").read_text()


def test_a_changed_image_is_not_taken_in_silence(repo: Path, tmp_path: Path) -> None:
    add_app(repo, "web", layout(tmp_path / "l"), build=build(tmp_path))
    (repo / "web/root.squashfs.docker-digest").unlink()
    layout(tmp_path / "l", b"changed")
    before = snapshot(repo)
    with pytest.raises(UserError, match="no longer"):
        install_app(repo, "web", build=build(tmp_path))
    assert snapshot(repo) == before
    update_app(repo, "web", build=build(tmp_path))
    assert snapshot(repo) != before


BAD_LAYERS = {
    "../ in a name": tar_of(("../evil", file(b"x"))),
    "an absolute name": tar_of(("/evil", file(b"x"))),
    "a way out through a symlink": tar_of(("up", symlink("../../../tmp")), ("up/evil", file(b"x"))),
    "no archive": b"\x01" * 2048,
}


@pytest.mark.parametrize("name", list(BAD_LAYERS))
def test_hostile_images_leave_the_repository_unchanged(repo: Path, tmp_path: Path, name: str) -> None:
    add_app(repo, "other", layout(tmp_path / "l"), build=build(tmp_path))
    before = snapshot(repo)
    writer = LayoutWriter(tmp_path / "bad")
    writer.finish([(write_image(writer, [(BAD_LAYERS[name], GZIP)], {}), "")])
    with pytest.raises(BricklessError):
        add_app(repo, "web", f"oci:{tmp_path / 'bad'}", build=build(tmp_path))
    with pytest.raises(BricklessError):
        update_app(repo, "other", build=build(tmp_path), source=f"oci:{tmp_path / 'bad'}")
    assert snapshot(repo) == before
    assert sorted(os.listdir(repo)) == ["other"]


def test_mistakes_are_named_and_change_nothing(repo: Path, tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    add_app(repo, "web", source, build=build(tmp_path))
    before = snapshot(repo)

    def add_with(**chosen: Any) -> None:
        add_app(repo, "x", source, build=build(tmp_path), settings=AppSettings(**chosen))

    cases: list[tuple[str, Any]] = [
        ("exists already", lambda: add_app(repo, "web", source, build=build(tmp_path))),
        ("no type of app", lambda: add_app(repo, "x", source, build=build(tmp_path), kind="vm")),
        ("doesn't exist", lambda: update_app(repo, "none", build=build(tmp_path))),
        ("doesn't exist", lambda: remove_app(repo, "none")),
        ("is neither a folder", lambda: add_app(repo, "x", "/none", build=build(tmp_path), kind="rootfs")),
        ("format option", lambda: add_with(format_options="-p")),
        ("both kinds of quotes", lambda: add_with(config={"Cmd": ["/x", "\"'"]})),
        ("no such user", lambda: add_with(config={"User": "nobody-here"})),
    ]
    for message, call in cases:
        with pytest.raises(UserError, match=message):
            call()
    assert snapshot(repo) == before
    add_app(repo, "web", source, build=build(tmp_path), force=True)
    remove_app(repo, "web")
    assert list_apps(repo) == []


def test_a_full_disk_is_named_and_changes_nothing(repo: Path, tmp_path: Path) -> None:
    source = layout(tmp_path / "l", os.urandom(3_000_000))
    add_app(repo, "other", layout(tmp_path / "small"), build=build(tmp_path))
    before = snapshot(repo)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="cannot unpack the image: File too large"):
            add_app(repo, "web", source, build=build(tmp_path))
        with pytest.raises(OSError, match="cannot unpack the image: File too large"):
            update_app(repo, "other", source=source, build=build(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(repo) == before
    assert os.listdir(repo) == ["other"]


@pytest.mark.parametrize("name", ["", "/", "a/b", "..", ".", "a b", "a\n", "a:b", ".pvr"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BricklessError):
        check_name(name)


def test_a_rootfs_folder_keeps_modes_links_and_times(repo: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/a").write_text("1")
    (tree / "etc/a").chmod(0o4711)
    os.link(tree / "etc/a", tree / "etc/b")
    (tree / "etc/l").symlink_to("/etc/a")
    (tree / "lib/modules").mkdir(parents=True)
    (tree / "lib/modules/m.ko").write_text("m")
    os.utime(tree / "etc/a", (1_500_000_000, 1_500_000_000))
    settings = AppSettings(format_options="-comp gzip -e lib/modules lib/firmware ", docker_config={"Cmd": ["/etc/a"]})
    add_app(repo, "os", str(tree), build=build(tmp_path), kind="rootfs", settings=settings)
    src = manifest_src.read(repo / "os")
    assert src["rootfs_url"] == str(tree)
    assert (repo / "os/root.squashfs.rootfs-digest").read_text() == src["rootfs_digest"]
    listing = process.run(
        ["unsquashfs", "-lln", str(repo / "os/root.squashfs")], purpose="list", timeout_s=60
    ).stdout.decode()
    assert "/lib/modules" not in listing
    assert "/proc" not in listing, "a folder is taken as it is"
    assert "-rws--x--x" in listing
    assert "2017-07-14" in listing
    assert "squashfs-root/etc/l -> /etc/a" in listing
    assert "lxc.init.cmd = /etc/a\n" in (repo / "os/lxc.container.conf").read_text()
    (tree / "etc/new").write_text("2")
    update_app(repo, "os", build=build(tmp_path))
    assert manifest_src.read(repo / "os")["rootfs_digest"] != src["rootfs_digest"]
    install_app(repo, "os", build=build(tmp_path))


def test_a_rootfs_tarball(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(tar_of(("etc", folder()), ("etc/x", file(b"1", uid=7, gid=8))))
    add_app(repo, "os", str(tmp_path / "root.tar"), build=build(tmp_path), kind="rootfs")
    listing = process.run(["unsquashfs", "-lln", str(repo / "os/root.squashfs")], purpose="list", timeout_s=60)
    assert b" 7/8 " in listing.stdout


def test_an_app_from_elsewhere_is_only_rendered(repo: Path, tmp_path: Path) -> None:
    (repo / "got").mkdir()
    manifest_src.write(repo / "got", {"#spec": manifest_src.SPEC, "template": "builtin-lxc-docker", "pvr": "x#got"})
    said: list[str] = []
    install_app(repo, "got", build=build(tmp_path, say=said.append))
    assert said == ["The application is not a docker app, therefore doesn't need to be installed."]
    assert (repo / "got/run.json").exists()
    with pytest.raises(UserError, match="does not say where it came from"):
        update_app(repo, "got", build=build(tmp_path))
    (repo / "got/src.json").write_text("{")
    with pytest.raises(BricklessError, match="no valid JSON"):
        render_app(repo, "got")


def test_a_rootfs_from_a_url(repo: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "root.tar").write_bytes(tar_of(("etc/x", file(b"1"))))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            add_app(repo, "os", f"{url}/root.tar", build=build(tmp_path), kind="rootfs")
            with pytest.raises(UserError, match="answered 404"):
                add_app(repo, "none", f"{url}/none.tar", build=build(tmp_path), kind="rootfs")
        finally:
            server.shutdown()
            thread.join()
    assert manifest_src.read(repo / "os")["rootfs_url"] == f"{url}/root.tar"
    with pytest.raises(UserError, match="cannot fetch"):
        update_app(repo, "os", build=build(tmp_path))
    assert list_apps(repo) == ["os"]
