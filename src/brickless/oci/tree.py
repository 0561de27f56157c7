"""The merged tree of an image in memory: names and metadata only. PURE: layers' entries in, one tree out.

Rules of a layer (OCI image specification 1.1, "layer"): an entry replaces what had its name, a folder over a folder
merges; `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq` everything of the layers below in its folder.
Names lead through symlinks as they would inside the container, whose root nothing can leave: a name with `..`, an
absolute one, or one that leads above the root is refused, never bent into shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from brickless.core.errors import HostileInputError
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.tar import FOLDER, LINK, SYMLINK, Entry

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
MAX_SYMLINKS = 40  # as the kernel


class ImageError(HostileInputError):
    """An image breaks a rule of its format; the message names the entry."""


class Node:
    """One file, link, device or folder. Two names with the same node are hard links of each other."""

    __slots__ = ("children", "entry", "layer")

    def __init__(self, entry: Entry, layer: int) -> None:
        self.entry = entry
        self.layer = layer  # where its content lies
        self.children: dict[bytes, Slot] | None = {} if entry.type == FOLDER else None


class Slot:
    """A name in a folder: what it leads to, and the last layer that touched the name."""

    __slots__ = ("layer", "node")

    def __init__(self, node: Node, layer: int) -> None:
        self.node = node
        self.layer = layer


def folder_entry(mode: int = 0o755) -> Entry:
    """The metadata of a folder that nobody described: root's, 1970."""
    return Entry(b"", FOLDER, mode=mode)


def components(name: bytes) -> list[bytes]:
    """The parts of an entry's name; `./` and doubled slashes mean nothing. Raises `ImageError` for what may escape."""
    if name.startswith(b"/") and name.strip(b"/"):
        raise ImageError(f"the image has the absolute name {_show(name)}: it may only name things below its root")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"the image has the name {_show(name)}, which leads out of its folder through '..'")
    if len(name) > MAX_PATH_BYTES or any(len(part) > MAX_NAME_BYTES for part in parts):
        raise ImageError(f"the image has a name that is too long: {_show(name[:80])}…")
    return parts


def _show(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


class Tree:
    """The tree that grows layer by layer; `add_layer` takes the entries of the next layer, lowest first.

    `keep_folder_links`: a folder does not replace a symlink that leads to a folder. So do package managers (`/lib` of a
    merged `/usr`); image layers do replace it.
    """

    def __init__(self, limits: Limits = DEFAULT, *, keep_folder_links: bool = False) -> None:
        self._keep_folder_links = keep_folder_links
        self.root = Node(folder_entry(), 0)
        self.limits = limits
        self._layer = -1
        self._entries = 0
        self._size_bytes = 0

    def add_layer(self, entries: Iterable[Entry]) -> None:
        """Apply one layer. Raises `ImageError`; the tree is of no use then."""
        self._layer += 1
        for entry in entries:
            self._count(entry)
            parts = components(entry.name)
            if parts and parts[-1].startswith(WHITEOUT):
                self._whiteout(parts, entry)
            elif not parts:
                self._set_root(entry)
            elif entry.type == LINK:
                self._link(parts, entry)
            else:
                self._put(parts, entry)

    def _count(self, entry: Entry) -> None:
        self._entries += 1
        self._size_bytes += entry.size
        if self._entries > self.limits.entries:
            raise ImageError(f"the image has more than {self.limits.entries} entries")
        if self._size_bytes > self.limits.unpacked_bytes:
            raise ImageError(f"the image unpacks to more than {self.limits.unpacked_bytes} bytes")

    def _set_root(self, entry: Entry) -> None:
        if entry.type != FOLDER:
            raise ImageError("the image says that its root is no folder")
        self.root.entry = _nameless(entry)

    def _put(self, parts: list[bytes], entry: Entry) -> None:
        children = self._folder(parts[:-1], entry.name, make=True)
        name = parts[-1]
        old = children.get(name)
        if old is not None and old.node.children is not None and entry.type == FOLDER:
            old.node.entry = _nameless(entry)
            old.layer = self._layer
            return
        if self._keep_folder_links and entry.type == FOLDER and old is not None and old.node.entry.type == SYMLINK:
            self._folder(parts, entry.name, make=True)
            return
        children[name] = Slot(Node(_nameless(entry), self._layer), self._layer)

    def _link(self, parts: list[bytes], entry: Entry) -> None:
        target = components(entry.link)
        there = self._find(target, entry.link) if target else None
        if there is None:
            raise ImageError(
                f"the hard link {_show(entry.name)} leads to {_show(entry.link)}, which is not in the image"
            )
        if there.children is not None:
            raise ImageError(f"the hard link {_show(entry.name)} leads to the folder {_show(entry.link)}")
        children = self._folder(parts[:-1], entry.name, make=True)
        children[parts[-1]] = Slot(there, self._layer)

    def _whiteout(self, parts: list[bytes], entry: Entry) -> None:
        name = parts[-1]
        folder = self._existing_folder(parts[:-1], entry.name)
        if name == OPAQUE:
            if folder is not None:
                self._prune(folder)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden.startswith(WHITEOUT):
            return  # `.wh..wh.*`: bookkeeping of aufs, of no meaning to anyone else
        if hidden in (b"", b".", b".."):
            raise ImageError(f"the image has the whiteout {_show(entry.name)}, which removes no name")
        if folder is not None:
            self._hide(folder, hidden)

    def _hide(self, folder: dict[bytes, Slot], name: bytes) -> None:
        """Remove what lower layers put under a name; what this layer put there stays, whatever came first."""
        slot = folder.get(name)
        if slot is None:
            return
        if slot.layer < self._layer:
            del folder[name]
        elif slot.node.children is not None:
            self._prune(slot.node.children)

    def _prune(self, folder: dict[bytes, Slot]) -> None:
        pending = [folder]
        while pending:
            children = pending.pop()
            for name, slot in list(children.items()):
                if slot.layer < self._layer:
                    del children[name]
                elif slot.node.children is not None:
                    pending.append(slot.node.children)

    def _folder(self, parts: list[bytes], name: bytes, *, make: bool) -> dict[bytes, Slot]:
        folder = self._walk(parts, name, make=make)
        if folder is None:
            raise ImageError(f"the image has {_show(name)}, whose folder is not there")
        return folder

    def _existing_folder(self, parts: list[bytes], name: bytes) -> dict[bytes, Slot] | None:
        return self._walk(parts, name, make=False)

    def _walk(self, parts: list[bytes], name: bytes, *, make: bool) -> dict[bytes, Slot] | None:
        """The folder that the parts lead to, through symlinks. With `make`, missing folders appear (0755, root)."""
        trail: list[dict[bytes, Slot]] = [_children(self.root)]
        pending = parts[::-1]
        symlinks = 0
        while pending:
            part = pending.pop()
            if part == b"..":
                if len(trail) == 1:
                    raise ImageError(
                        f"the image has {_show(name)}, which leads above the image's root through a symlink"
                    )
                trail.pop()
                continue
            slot = trail[-1].get(part)
            if slot is None:
                if not make:
                    return None
                slot = trail[-1][part] = Slot(Node(folder_entry(), self._layer), self._layer)
            if slot.node.entry.type == SYMLINK:
                symlinks += 1
                if symlinks > MAX_SYMLINKS:
                    raise ImageError(f"the image has {_show(name)}, whose folder is a loop of symlinks")
                trail = self._follow(slot.node.entry.link, trail, pending)
                continue
            if slot.node.children is None:
                if not make:
                    return None
                raise ImageError(f"the image has {_show(name)}, but {_show(part)} in it is a file")
            self._touch(slot, make)
            trail.append(slot.node.children)
        return trail[-1]

    def _follow(self, link: bytes, trail: list[dict[bytes, Slot]], pending: list[bytes]) -> list[dict[bytes, Slot]]:
        pending.extend(part for part in reversed(link.split(b"/")) if part not in (b"", b"."))
        return trail[:1] if link.startswith(b"/") else trail

    def _touch(self, slot: Slot, make: bool) -> None:
        # A folder in which this layer puts something belongs to this layer too: a whiteout of it prunes, not removes.
        if make:
            slot.layer = self._layer

    def _find(self, parts: list[bytes], name: bytes) -> Node | None:
        folder = self._walk(parts[:-1], name, make=False)
        slot = folder.get(parts[-1]) if folder is not None else None
        return slot.node if slot is not None else None

    # Reading the result.

    def lookup(self, path: str | bytes) -> Node | None:
        """What a path inside the container leads to, symlinks followed to the end; None if nothing is there."""
        name = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        for _ in range(MAX_SYMLINKS):
            if not parts:
                return self.root
            node = self._find(parts, name)
            if node is None or node.entry.type != SYMLINK:
                return node
            link = node.entry.link
            parts = ([] if link.startswith(b"/") else parts[:-1]) + [
                p for p in link.split(b"/") if p not in (b"", b".")
            ]
        return None

    def make_folder(self, path: bytes, mode: int) -> bool:
        """Make a folder unless something has that name already; its parents too (0755). True if it was made."""
        parts = components(path)
        self._layer += 1
        children = self._walk(parts[:-1], path, make=True)
        if children is None or parts[-1] in children:
            return False
        children[parts[-1]] = Slot(Node(folder_entry(mode), self._layer), self._layer)
        return True

    def remove(self, path: bytes) -> bool:
        """Remove one name, symlinks not followed; True if it was there."""
        parts = components(path)
        folder = self._walk(parts[:-1], path, make=False)
        return folder is not None and folder.pop(parts[-1], None) is not None

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every name with its node, the root (an empty name) first, folders before what they hold, sorted by bytes."""
        yield b"", self.root
        stack = [(b"", iter(sorted(_children(self.root).items(), key=_by_name)))]
        while stack:
            prefix, items = stack[-1]
            for name, slot in items:
                path = prefix + name
                yield path, slot.node
                if slot.node.children:
                    stack.append((path + b"/", iter(sorted(slot.node.children.items(), key=_by_name))))
                    break
            else:
                stack.pop()


def _by_name(item: tuple[bytes, Slot]) -> bytes:
    return item[0]


def _children(node: Node) -> dict[bytes, Slot]:
    if node.children is None:
        raise ImageError("the root of the image is no folder")
    return node.children


def _nameless(entry: Entry) -> Entry:
    # The tree holds the names; keeping the full path in every entry would double the memory.
    entry.name = b""
    return entry
