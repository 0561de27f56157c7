"""The board support package of a revision: which files boot the device (contract device.md 1.10)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from brickless.core import paths
from brickless.core.canonical import JsonValue
from brickless.core.node import Node, shown

_FILES = ("linux", "initrd", "fdt", "fit", "rpiab", "firmware", "modules")


class Bsp(NamedTuple):
    """File names relative to `bsp/`, "" where there is none; `firmware` and `modules` may carry the prefix `dm:`.

    `modules_of` maps kernel releases to their modules, from keys such as `modules_6.1.0-13-amd64`.
    """

    linux: str = ""
    initrd: str = ""
    fdt: str = ""
    fit: str = ""
    rpiab: str = ""
    firmware: str = ""
    modules: str = ""
    addons: tuple[str, ...] = ()
    modules_of: Mapping[str, str] = {}
    drivers: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
    extra: Mapping[str, JsonValue] = {}


class Tree(NamedTuple):
    """The entries of a state with the folders that they lie in."""

    entries: Mapping[str, JsonValue]
    folders: Set[str]


def parse_bsp(tree: Tree) -> Bsp | None:
    """Read `bsp/run.json` and `bsp/drivers.json`; None when the state has no BSP. Raises `StateError`."""
    drivers = _parse_drivers(tree)
    if "bsp/run.json" not in tree.entries:
        return None
    node = Node("bsp/run.json", tree.entries["bsp/run.json"])
    files = {key: _file(node, key, tree) for key in _FILES}
    if not ((files["linux"] and files["initrd"]) or files["fit"] or files["rpiab"]):
        node.fail("bsp-incomplete", "names neither linux and initrd, nor fit, nor rpiab: the device could not boot it")
    addons = tuple(check_file(addon, "bsp", tree) for addon in node.items("addons"))
    versioned = {
        key.removeprefix("modules_"): _file(node, key, tree) for key in node.object() if key.startswith("modules_")
    }
    known = {*_FILES, "addons", "initrd_config", "#spec"}
    extra = {k: v for k, v in node.object().items() if k not in known and not k.startswith("modules_")}
    return Bsp(**files, addons=addons, modules_of=versioned, drivers=drivers, extra=extra)


def _file(node: Node, key: str, tree: Tree) -> str:
    member = node.get(key)
    if member is None or member.value == "":
        return ""
    return (
        check_volume(member, "bsp", tree)
        if key.startswith(("firmware", "modules"))
        else check_file(member, "bsp", tree)
    )


def check_file(node: Node, folder: str, tree: Tree) -> str:
    """Return the file name that `node` holds, after checking that the state has that file below `folder`."""
    name = node.text()
    found = paths.fault(name)
    if found:
        node.fail(found[0], f"{shown(name)}: {found[1]}")
    if f"{folder}/{name}" not in tree.entries:
        node.fail("missing-file", f"names {shown(name)}, but the state has no {folder}/{name}")
    return name


def check_volume(node: Node, folder: str, tree: Tree) -> str:
    """Return the volume that `node` holds: a file below `folder`, a folder `x.data`, or `dm:` and a verified file."""
    text = node.text()
    name = text.removeprefix("dm:")
    if text != name:
        _check_verity(node, folder, name, tree)
    elif name.endswith(".data") and f"{folder}/{name}" in tree.folders:
        return text
    check_file(Node(node.entry, name, node.where), folder, tree)
    return text


def _check_verity(node: Node, folder: str, name: str, tree: Tree) -> None:
    path = f"{folder}/_dm/{name}.json"
    if path not in tree.entries:
        node.fail("verity-manifest", f"is to be verified by dm-verity, but the state has no {path}")
    manifest = Node(path, tree.entries[path])
    for key in ("data_device", "hash_device"):
        check_file(manifest.required(key), folder, tree)
    if manifest.required("data_device").text() != name:
        manifest.required("data_device").fail("verity-manifest", f"must be {name!r}, the volume that it describes")
    if manifest.required("type").text() != "dm-verity":
        manifest.required("type").fail("verity-manifest", "must be 'dm-verity'")
    root_hash = manifest.required("root_hash")
    if len(root_hash.text()) % 2 or not set(root_hash.text()) <= set("0123456789abcdef"):
        root_hash.fail("verity-root-hash", "is no lower-case hex hash")


def _parse_drivers(tree: Tree) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    if "bsp/drivers.json" not in tree.entries:
        return {}
    node = Node("bsp/drivers.json", tree.entries["bsp/drivers.json"])
    return {
        section: {alias: tuple(module.text() for module in modules.elements()) for alias, modules in member.members()}
        for section, member in node.members()
        if section != "#spec"
    }
