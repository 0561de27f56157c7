"""Layers merged: against a simple model of the specification, and the cases that people get wrong by name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.oci import tar
from brickless.oci.flatten import Flattener
from brickless.oci.limits import Limits
from brickless.oci.tree import ImageError, Tree
from brickless.testkit.archives import Bytes, file, folder, hardlink, symlink, tar_of

Member = tuple[str, dict[str, Any]]


def merged(*layers: Sequence[Member], limits: Limits | None = None, links: bool = False) -> dict[str, Any]:
    """Path -> content of a file, 'dir', or -> target."""
    with Flattener(limits=limits or Limits(), keep_folder_links=links) as flattener:
        for layer in layers:
            flattener.add(Bytes(tar_of(*layer)))
        return described(flattener)


def described(flattener: Flattener) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, node in flattener.tree.walk():
        name = path.decode("utf-8", "surrogateescape")
        if node.entry.type == tar.FOLDER:
            found[name] = "dir"
        elif node.entry.type == tar.SYMLINK:
            found[name] = f"-> {node.entry.link.decode()}"
        else:
            found[name] = b"".join(flattener.content(node))
    del found[""]
    return found


def test_an_entry_replaces_what_had_its_name_and_folders_merge() -> None:
    lower = [("d", folder()), ("d/a", file(b"1")), ("f", file(b"1")), ("x", folder()), ("x/y", file(b"1"))]
    upper = [("d", folder(mode=0o700)), ("d/b", file(b"2")), ("f", folder()), ("x", file(b"2"))]
    assert merged(lower, upper) == {"d": "dir", "d/a": b"1", "d/b": b"2", "f": "dir", "x": b"2"}


def test_whiteouts_remove_what_is_below_whatever_comes_first_in_the_layer() -> None:
    lower = [("d", folder()), ("d/a", file(b"1")), ("d/b", folder()), ("d/b/c", file(b"1")), ("k", file(b"1"))]
    for upper in (
        [("d/.wh.a", file()), ("d/a", file(b"2")), ("d/.wh.b", file())],
        [("d/a", file(b"2")), ("d/.wh.a", file()), ("d/.wh.b", file())],
    ):
        assert merged(lower, upper) == {"d": "dir", "d/a": b"2", "k": b"1"}


def test_an_opaque_folder_hides_the_layers_below_only() -> None:
    lower = [("d", folder()), ("d/a", file(b"1")), ("d/s", folder()), ("d/s/t", file(b"1"))]
    for upper in (
        [("d", folder()), ("d/.wh..wh..opq", file()), ("d/n", file(b"2")), ("d/s/u", file(b"2"))],
        [("d", folder()), ("d/n", file(b"2")), ("d/s", folder()), ("d/s/u", file(b"2")), ("d/.wh..wh..opq", file())],
    ):
        assert merged(lower, upper) == {"d": "dir", "d/n": b"2", "d/s": "dir", "d/s/u": b"2"}


def test_an_opaque_root_and_whiteouts_of_nothing() -> None:
    assert merged([("a", file(b"1"))], [(".wh..wh..opq", file()), ("b", file(b"2"))]) == {"b": b"2"}
    assert merged([("a", file(b"1"))], [(".wh.none", file()), ("no/.wh.x", file())]) == {"a": b"1"}
    assert merged([(".wh..wh.plnk", file()), ("a", file(b"1"))]) == {"a": b"1"}


def test_hard_links_across_layers_share_the_file_and_outlive_its_first_name() -> None:
    lower = [("a", file(b"one")), ("b", hardlink("a"))]
    upper = [("c", hardlink("b")), (".wh.a", file()), ("b", file(b"two"))]
    assert merged(lower, upper) == {"b": b"two", "c": b"one"}


def test_names_lead_through_symlinks_inside_the_image() -> None:
    lower = [
        ("usr/lib", folder()),
        ("lib", symlink("usr/lib")),
        ("abs", symlink("/usr/lib")),
        ("deep/up", symlink("../usr")),
        ("usr/lib/old", file(b"1")),
    ]
    upper = [("lib/x", file(b"2")), ("abs/y", file(b"2")), ("deep/up/lib/z", file(b"2")), ("lib/.wh.old", file())]
    found = merged(lower, upper)
    assert {name for name in found if name.startswith("usr/lib/")} == {"usr/lib/x", "usr/lib/y", "usr/lib/z"}
    assert found["lib"] == "-> usr/lib"


def test_a_folder_replaces_a_symlink_in_a_layer_but_not_in_a_package() -> None:
    lower = [("usr/lib/a", file(b"1")), ("lib", symlink("usr/lib"))]
    upper = [("lib", folder()), ("lib/b", file(b"2"))]
    assert merged(lower, upper)["lib"] == "dir"
    packed = merged(lower, upper, links=True)
    assert packed["lib"] == "-> usr/lib"
    assert packed["usr/lib/b"] == b"2"


ESCAPES: dict[str, tuple[list[list[Member]], str]] = {
    "dot-dot": ([[("../evil", file())]], "leads out of its folder"),
    "dot-dot inside": ([[("a/../../evil", file())]], "leads out of its folder"),
    "absolute": ([[("/etc/passwd", file())]], "absolute name"),
    "through a symlink": ([[("up", symlink("../../..")), ("up/evil", file())]], "above the image's root"),
    "through two symlinks": ([[("a/b", symlink("..")), ("c", symlink("a/b/..")), ("c/evil", file())]], "above"),
    "across layers": ([[("up", symlink("../x"))], [("up/evil", file())]], "above the image's root"),
    "hard link outside": ([[("l", hardlink("../../etc/shadow"))]], "leads out of its folder"),
    "hard link absolute": ([[("l", hardlink("/etc/shadow"))]], "absolute name"),
    "hard link through a symlink": ([[("up", symlink("..")), ("l", hardlink("up/x"))]], "above the image's root"),
    "hard link to nothing": ([[("l", hardlink("none"))]], "not in the image"),
    "hard link to a folder": ([[("d", folder()), ("l", hardlink("d"))]], "to the folder"),
    "hard link to a whited-out file": (
        [[("a", file())], [(".wh.a", file()), ("l", hardlink("a"))]],
        "not in the image",
    ),
    "symlink loop": ([[("a", symlink("b")), ("b", symlink("a")), ("a/x", file())]], "loop of symlinks"),
    "below a file": ([[("a", file()), ("a/b", file())]], "is a file"),
    "a whiteout of everything": ([[(".wh...", file())]], "removes no name"),
    "a whiteout of no name": ([[("d/.wh.", file())]], "removes no name"),
    "a root that is a file": ([[("./", file(b"x"))]], "root is no folder"),
    "a long name": ([[("n" * 256, file())]], "too long"),
}


@pytest.mark.parametrize("name", list(ESCAPES))
def test_what_could_escape_or_makes_no_sense_is_refused(name: str) -> None:
    layers, message = ESCAPES[name]
    with pytest.raises(ImageError, match=message):
        merged(*layers)


def test_a_dangling_symlink_to_a_folder_is_made_real_inside() -> None:
    found = merged([("data", symlink("/srv/data"))], [("data/x", file(b"1"))])
    assert found == {"data": "-> /srv/data", "srv": "dir", "srv/data": "dir", "srv/data/x": b"1"}


def test_bounds() -> None:
    with pytest.raises(ImageError, match="more than 3 entries"):
        merged([("a", file()), ("b", file())], [("c", file()), ("d", file())], limits=Limits(entries=3))
    with pytest.raises(ImageError, match="unpacks to more than"):
        merged([("a", file(b"x" * 9000))], limits=Limits(unpacked_bytes=9000))
    with pytest.raises(ImageError, match="more than 2 layers"):
        merged([], [], [], limits=Limits(layers=2))


def test_a_sparse_bomb_counts_at_its_full_length() -> None:
    tree = Tree(Limits(unpacked_bytes=1 << 20))
    with pytest.raises(ImageError, match="unpacks to more than"):
        tree.add_layer([tar.Entry(b"hole", size=1 << 50)])


# The model: the specification read literally over flat maps. Whiteouts act on what is below, then entries are added.

Layer = list[tuple[str, bytes | None]]
PATHS = [f"{a}{b}{c}" for a in "ab" for b in ("", "/c", "/d") for c in ("", "/e")]


def model(layers: Sequence[tuple[Layer, list[str], list[str]]]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for entries, whiteouts, opaques in layers:
        for path in whiteouts:
            state = {k: v for k, v in state.items() if k != path and not k.startswith(path + "/")}
        for path in opaques:
            state = {k: v for k, v in state.items() if not k.startswith(path + "/")}
        for path, content in entries:
            if content is None and state.get(path) == "dir":
                continue
            state = {k: v for k, v in state.items() if not k.startswith(path + "/")}
            state[path] = "dir" if content is None else content
    return state


@st.composite
def layer_stacks(draw: st.DrawFn) -> list[tuple[Layer, list[str], list[str]]]:
    """Layers as tools write them: each name once, folders before what they hold; whiteouts anywhere."""
    stack = []
    for number in range(draw(st.integers(1, 4))):
        chosen = draw(st.sets(st.sampled_from(PATHS), max_size=6))
        with_parents = chosen | {path[:n] for path in chosen for n in (1, 3) if n < len(path)}
        entries: Layer = []
        for path in sorted(with_parents):
            is_folder = any(other.startswith(path + "/") for other in with_parents) or draw(st.booleans())
            entries.append((path, None if is_folder else f"{number}:{path}".encode()))
        folders = [path for path, content in entries if content is None]
        # A layer cannot remove a name and hold it too, nor reach into a folder that it makes a file.
        files = [path for path, content in entries if content is not None]
        usable = [p for p in PATHS if p not in with_parents and not any(p.startswith(f + "/") for f in files)]
        whiteouts = sorted(draw(st.sets(st.sampled_from(usable), max_size=3))) if usable else []
        opaques = sorted(draw(st.sets(st.sampled_from(folders), max_size=2))) if folders else []
        stack.append((entries, whiteouts, opaques))
    return stack


@settings(max_examples=150, deadline=None)
@given(layer_stacks(), st.randoms(use_true_random=False))
def test_random_stacks_agree_with_the_model(stack: list[tuple[Layer, list[str], list[str]]], random: Any) -> None:
    layers = []
    for entries, whiteouts, opaques in stack:
        members: list[Member] = [(path, folder() if content is None else file(content)) for path, content in entries]
        for path in [*whiteouts, *(f"{path}/.wh..opq" for path in opaques)]:
            head, _, name = path.rpartition("/")
            member = (f"{head}/.wh.{name}" if head else f".wh.{name}", file())
            members.insert(random.randint(0, len(members)), member)
        layers.append(members)
    try:
        found = merged(*layers)
    except ImageError as error:
        # A whiteout below a lower layer's file names nothing; everything else must work.
        raise AssertionError(f"{error}: {layers}") from error
    assert found == model(stack)


@given(st.binary(max_size=60), st.sampled_from([tar.FILE, tar.FOLDER, tar.SYMLINK, tar.LINK]), st.binary(max_size=30))
def test_no_name_leaves_the_tree_or_crashes_it(name: bytes, kind: bytes, link: bytes) -> None:
    tree = Tree()
    tree.add_layer([tar.Entry(b"a", tar.FOLDER), tar.Entry(b"a/l", tar.SYMLINK, link=b"../b"), tar.Entry(b"f")])
    try:
        tree.add_layer([tar.Entry(name, kind, link=link), tar.Entry(name + b"/x", tar.FILE)])
    except ImageError:
        return
    for path, _ in tree.walk():
        assert b".." not in path.split(b"/")
        assert not path.startswith(b"/")


def test_reading_a_file_follows_symlinks_and_never_leaves() -> None:
    layer = [("etc", folder()), ("etc/passwd", symlink("../usr/etc/passwd")), ("usr/etc/passwd", file(b"root"))]
    with Flattener() as flattener:
        flattener.add(Bytes(tar_of(*layer, ("loop", symlink("loop")), ("out", symlink("../../../etc/passwd")))))
        assert flattener.read_file("/etc/passwd") == b"root"
        assert flattener.read_file("/none/x") is None
        assert flattener.read_file("/loop") is None
        assert flattener.read_file("/etc") is None
        with pytest.raises(ImageError, match="above the image's root"):
            flattener.read_file("/out")
        with pytest.raises(ImageError, match="at most 3"):
            flattener.read_file("/etc/passwd", max_bytes=3)


def test_the_stream_is_sorted_and_says_each_thing_once() -> None:
    lower = [("b", folder()), ("b/z", file(b"1")), ("b-", file(b"2")), ("a", hardlink_source := file(b"3"))]
    assert hardlink_source["data"] == b"3"
    with Flattener() as flattener:
        flattener.add(Bytes(tar_of(*lower, ("c", hardlink("a")))))
        data = b"".join(flattener.tar_chunks())
    names = [(entry.name, entry.type) for entry in tar.read(io.BytesIO(data))]
    assert names == [
        (b"./", tar.FOLDER),
        (b"./a", tar.FILE),
        (b"./b/", tar.FOLDER),
        (b"./b/z", tar.FILE),
        (b"./b-", tar.FILE),
        (b"./c", tar.LINK),
    ]
