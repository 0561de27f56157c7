"""Overlays: what lies above what lies below must look like the whole image, and nothing more may lie above."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError, UserError
from brickless.oci import manifest_src, squashfs, tar
from brickless.oci.app import UP_TO_DATE, AppSettings, Build, Patch, add_app, install_app, update_app
from brickless.oci.flatten import Flattener
from brickless.oci.layout import LayoutWriter
from brickless.oci.overlay import keep_difference, read_lower
from brickless.testkit.archives import Bytes, file, folder, hardlink, symlink, tar_of
from brickless.testkit.debian_image import GZIP, write_image

Members = list[tuple[str, dict[str, Any]]]
OLD: Members = [
    ("./", folder(mode=0o755)),
    ("same", file(b"1" * 300_000)),
    ("changed", file(b"1")),
    ("mode", file(b"1")),
    ("owner", file(b"1")),
    ("link", symlink("a")),
    ("gone", folder()),
    ("gone/x", file(b"1")),
    ("gone/y", file(b"1")),
    ("dir", folder()),
    ("dir/stays", file(b"1")),
    ("dir/goes", file(b"1")),
    ("file-to-dir", file(b"1")),
    ("dir-to-file", folder()),
    ("dir-to-file/x", file(b"1")),
    ('odd \\ " name', file(b"1")),
    ("dev", {"type": b"3", "devmajor": 1, "devminor": 3}),
    ("h1", file(b"linked")),
    ("h2", hardlink("h1")),
]
NEW: Members = [
    ("./", folder(mode=0o755)),
    ("same", file(b"1" * 300_000, mtime=99)),
    ("changed", file(b"2")),
    ("mode", file(b"1", mode=0o600)),
    ("owner", file(b"1", uid=4_000_000_000)),
    ("link", symlink("b")),
    ("dir", folder()),
    ("dir/stays", file(b"1")),
    ("dir/new/deep", file(b"2")),
    ("file-to-dir", folder()),
    ("file-to-dir/x", file(b"2")),
    ("dir-to-file", file(b"2")),
    ('odd \\ " name', file(b"1")),
    ("dev", {"type": b"3", "devmajor": 1, "devminor": 5}),
    ("h1", file(b"linked")),
    ("h2", hardlink("h1")),
    ("xattr", file(b"1", pax_headers={"SCHILY.xattr.user.x": "1"})),
]


def build(members: Members, dest: Path, lower: Path | None = None) -> Path:
    with Flattener() as flattener:
        flattener.add(Bytes(tar_of(*members)))
        if lower is not None:
            with read_lower(lower) as below:
                keep_difference(flattener, below)
        squashfs.build(flattener.squashfs_stream(), dest)
    return dest


def contents(path: Path) -> dict[bytes, tuple[Any, ...]]:
    with read_lower(path) as found:
        return {
            name: (r.type, r.mode if r.type != tar.SYMLINK else 0, r.uid, r.gid, r.extra, b"".join(found.content(r)))
            for name, r in found.records.items()
        }


def is_whiteout(entry: tuple[Any, ...]) -> bool:
    return entry[0] == tar.CHAR and entry[4] == b"0 0"


def mounted(lower: dict[bytes, tuple[Any, ...]], upper: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """What overlayfs shows: the upper entry, and the lower ones that nothing above hides."""
    hiding = [path + b"/" for path, entry in upper.items() if entry[0] != tar.FOLDER]
    below = {p: e for p, e in lower.items() if p not in upper and not any(p.startswith(h) for h in hiding)}
    return {path: entry for path, entry in (below | upper).items() if not is_whiteout(entry)}


def test_above_and_below_are_the_whole_and_above_is_only_what_differs(tmp_path: Path) -> None:
    lower = build(OLD, tmp_path / "lower")
    upper = contents(build(NEW, tmp_path / "upper", lower))
    assert mounted(contents(lower), upper) == contents(build(NEW, tmp_path / "whole"))
    assert {path for path, entry in upper.items() if is_whiteout(entry)} == {b"gone", b"dir/goes"}
    assert not {b"same", b"h1", b"h2", b"dir/stays", b'odd \\ " name'} & set(upper)
    assert {b"changed", b"mode", b"owner", b"link", b"dev", b"xattr", b"dir/new/deep"} <= set(upper)


NAMES = ["a", "b", "a/c", "a/d", "b/c", "a/c/e"]


@st.composite
def trees(draw: st.DrawFn) -> Members:
    chosen = draw(st.sets(st.sampled_from(NAMES)))
    members: Members = []
    for path in sorted(chosen | {p[:n] for p in chosen for n in (1, 3) if n < len(p)}):
        inner = any(other.startswith(path + "/") for other in chosen)
        mode = draw(st.sampled_from([0o755, 0o700]))
        is_file = not inner and draw(st.booleans())
        members.append((path, file(draw(st.binary(max_size=3)), mode=mode) if is_file else folder(mode=mode)))
    return members


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), trees())
def test_random_trees(tmp_path: Path, old: Members, new: Members) -> None:
    lower = build([("keep", file(b"1")), *old], tmp_path / "lower")
    upper = contents(build([("keep", file(b"1")), *new], tmp_path / "upper", lower))
    whole = contents(build([("keep", file(b"1")), *new], tmp_path / "whole"))
    assert mounted(contents(lower), upper) == whole
    if old == new:
        assert set(upper) == {b""}


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    lower = build([("line\nbreak", file(b"1"))], tmp_path / "lower")
    with pytest.raises(HostileInputError, match="cannot tell apart"), read_lower(lower):
        pass


def layout(where: Path, members: Members) -> str:
    writer = LayoutWriter(where)
    writer.finish([(write_image(writer, [(tar_of(*members), GZIP)], {"Cmd": ["/same"]}), "")])
    return f"oci:{where}"


def test_apps_over_a_base(tmp_path: Path) -> None:
    repo, said = tmp_path / "repo", list[str]()
    repo.mkdir()
    b = Build(cache=tmp_path / "cache", say=said.append)
    with pytest.raises(UserError, match="lower root"):
        add_app(repo, "web", layout(tmp_path / "new", NEW), build=b, settings=AppSettings(base="os"))
    add_app(repo, "os", layout(tmp_path / "old", OLD), build=b)
    add_app(repo, "web", layout(tmp_path / "new", NEW), build=b, settings=AppSettings(base="os"))
    src, below = manifest_src.read(repo / "web"), manifest_src.read(repo / "os")
    assert src["docker_digest"] == below["docker_digest"]
    assert src["docker_ovl_digest"] == (repo / "web/root.ovl.squashfs.docker-digest").read_text()
    assert not (repo / "web/root.squashfs").exists()
    conf = (repo / "web/lxc.container.conf").read_text()
    assert "overlayfs:/volumes/web/root.ovl.squashfs:/volumes/os/root.squashfs:/volumes/web/lxc-overlay/upper" in conf
    assert '"root-volume": "root.ovl.squashfs"' in (repo / "web/run.json").read_text()
    install_app(repo, "web", build=b)
    assert said[-1] == UP_TO_DATE
    update_app(repo, "os", build=b, source=layout(tmp_path / "old2", OLD[:8]))
    install_app(repo, "web", build=b)
    assert said[-1] != UP_TO_DATE, "another base needs another overlay"
    update_app(repo, "web", build=b, patch=Patch.WHOLE)
    assert (repo / "web/root.squashfs").exists()
    assert not (repo / "web/root.ovl.squashfs").exists()
    assert "docker_ovl_digest" not in manifest_src.read(repo / "web")


def test_a_patch_over_the_own_root(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    b = Build(cache=tmp_path / "cache")
    add_app(repo, "web", layout(tmp_path / "old", OLD), build=b)
    root = (repo / "web/root.squashfs").read_bytes()
    digest = manifest_src.read(repo / "web")["docker_digest"]
    update_app(repo, "web", build=b, source=layout(tmp_path / "new", NEW), patch=Patch.OVERLAY)
    src = manifest_src.read(repo / "web")
    assert (repo / "web/root.squashfs").read_bytes() == root
    assert src["docker_digest"] == digest
    assert src["docker_ovl_digest"] != digest
    assert '"root.ovl.squashfs"' in (repo / "web/run.json").read_text()
    assert (
        "overlayfs:/volumes/web/root.ovl.squashfs:/volumes/web/root.squashfs:"
        in (repo / "web/lxc.container.conf").read_text()
    )
    merged = mounted(contents(repo / "web/root.squashfs"), contents(repo / "web/root.ovl.squashfs"))
    assert merged[b"changed"][-1] == b"2"
