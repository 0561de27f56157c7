"""A storage partition as a table of its names, read out of a folder or an ext4 image, which stays as it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from brickless.testkit.crashlab import inspect
from brickless.testkit.crashlab.inspect import Node
from brickless.twin.disk import copy_sparse

LINK, FOLDER, FILE = 0o120000, 0o040000, 0o100000


class Partition(Protocol):
    """`nodes` has every name below the root, by its path; `links` says where those that are links lead."""

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Path -> inode, mode, size."""
        ...

    @property
    def links(self) -> Mapping[str, str]:
        """Path -> target."""
        ...

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """The contents of the regular files among the paths."""
        ...


class Folder(NamedTuple):
    """A mounted partition, or the folder that one is made of."""

    root: str
    nodes: Mapping[str, Node]
    links: Mapping[str, str]

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """See Partition."""
        return {path: Path(self.root, path).read_bytes() for path in paths if _kind(self.nodes.get(path)) == FILE}


class Image(NamedTuple):
    """An ext4 image without partitions."""

    path: Path
    nodes: Mapping[str, Node]
    links: Mapping[str, str]

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """See Partition."""
        return inspect.contents(self.path, [path for path in paths if _kind(self.nodes.get(path)) == FILE])


def of_folder(root: str) -> Folder:
    """Read the names of a folder. Raises OSError."""
    nodes: dict[str, Node] = {}
    links: dict[str, str] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            relative = os.path.relpath(path, root)
            nodes[relative] = Node(info.st_ino, info.st_mode, info.st_size)
            if os.path.islink(path):
                links[relative] = os.readlink(path)
    return Folder(root, nodes, links)


def of_image(image: Path, scratch: Path) -> tuple[Image, str]:
    """Read the names of an image, as a mount would show them; and what is wrong with its file system, "" for nothing.

    Works on a copy in `scratch`: the journal is replayed there. Raises `TwinError` where there is no ext4.
    """
    copy = scratch / "partition.img"
    copy_sparse(image, copy)
    fault = inspect.recover(copy)
    nodes: dict[str, Node] = {}
    level = [""]
    while level:
        below: list[str] = []
        for folder, found in inspect.folders(copy, [path or "/" for path in level]).items():
            for name, node in found.items():
                path = name if folder == "/" else f"{folder}/{name}"
                nodes[path] = node
                below += [path] if node.is_folder else []
        level = below
    links = inspect.links(copy, [path for path, node in nodes.items() if _kind(node) == LINK])
    return Image(copy, nodes, links), fault


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A place for the copy of an image."""
    return tempfile.TemporaryDirectory(prefix="brickless-partition-")


def _kind(node: Node | None) -> int:
    return 0 if node is None else node.mode & 0o170000
