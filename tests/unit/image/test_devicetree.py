"""Device trees: the room behind the last part is cut off, and what is no tree is refused."""

from __future__ import annotations

import pytest

from brickless.core.errors import HostileInputError
from brickless.image.devicetree import HEADER, MAGIC, packed

STRUCTURE, STRINGS = b"\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\11", b"model\0"


def tree(*, room: int = 0, size: int = 0) -> bytes:
    at = HEADER.size + 16
    total = at + len(STRUCTURE) + len(STRINGS)
    sizes = (len(STRINGS), size or len(STRUCTURE))
    header = HEADER.pack(MAGIC, total + room, at, at + len(STRUCTURE), HEADER.size, 17, 16, 0, *sizes)
    return header + bytes(16) + STRUCTURE + STRINGS + bytes(room)


def test_room_behind_the_last_part_is_cut_off() -> None:
    assert packed(tree(room=5000)) == tree()
    assert packed(tree()) == tree()


@pytest.mark.parametrize("content", [b"", b"\xd0\x0d\xfe\xed", bytes(64), tree()[:-1], tree(size=1 << 31)])
def test_what_is_no_tree_is_refused(content: bytes) -> None:
    with pytest.raises(HostileInputError):
        packed(content)
