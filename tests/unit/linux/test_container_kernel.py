"""Structures of the kernel: packet filter messages, device mapper tables, superblocks of verity and ext4, swap."""

from __future__ import annotations

import struct

import pytest

from brickless.linux import crypt, dm, ext4, lxc, nft, swap, verity


def test_a_batch_replaces_our_table_whole() -> None:
    parts = nft.messages([nft.Masquerade(bytes((10, 0, 3, 9)), 24, "br0")], [nft.Wall("br0", "br1")])
    kinds = [kind for kind, _, _ in parts]
    assert kinds == [nft.NEWTABLE, nft.DELTABLE, nft.NEWTABLE, nft.NEWCHAIN, nft.NEWCHAIN, nft.NEWRULE, nft.NEWRULE]
    rule = parts[5][2]
    assert b"\x0a\x00\x03\x00" in rule
    assert b"masq" in rule
    assert b"br0" + bytes(13) in rule
    data = nft.batch(parts)
    lengths = []
    while data:
        (length,) = struct.unpack_from("=I", data)
        lengths.append(length)
        data = data[length:]
    assert len(lengths) == len(parts) + 2
    assert all(length % 4 == 0 for length in lengths)


def test_answers_are_read_and_a_torn_one_is_refused() -> None:
    answer = struct.pack("=IHHIIi", 36, nft.NLMSG_ERROR, 0, 4, 0, -2) + bytes(16)
    assert nft.answers(answer + answer) == [(4, 2), (4, 2)]
    with pytest.raises(OSError, match="does not end"):
        nft.answers(struct.pack("=IHHII", 200, 2, 0, 1, 0))


def test_the_device_mapper_s_structures_have_the_kernel_s_sizes() -> None:
    assert (dm.HEADER.size, dm.TARGET.size) == (312, 40)
    spec = dm.table(8, "crypt", "a b")
    assert len(spec) == 48
    assert struct.unpack_from("=QQiI16s", spec)[1:4] == (8, 0, 48)
    with pytest.raises(ValueError, match="not a name"):
        dm.request("../x")


def test_a_key_of_another_length_is_refused() -> None:
    assert crypt.parameters(bytes(64), "/dev/loop0").startswith("aes-xts-plain64 0000")
    with pytest.raises(ValueError, match="32 bytes, not 64"):
        crypt.parameters(bytes(32), "/dev/loop0")


def superblock(**change: object) -> bytes:
    fields = {
        "magic": verity.MAGIC,
        "version": 1,
        "hash_type": 1,
        "uuid": bytes(16),
        "algorithm": b"sha256",
        "data": 4096,
        "hash": 4096,
        "blocks": 10,
        "salt_size": 2,
        "salt": b"\xab\xcd",
        **change,
    }
    return verity.SUPERBLOCK.pack(*fields.values())


def test_a_superblock_becomes_a_table() -> None:
    block = verity.parse(superblock())
    assert verity.parameters(block, "/dev/a", "/dev/b", "ff") == "1 /dev/a /dev/b 4096 4096 10 1 sha256 ff abcd"
    assert verity.parameters(block._replace(salt=""), "a", "b", "ff").endswith(" ff -")
    assert verity.name_of("web", "root.squashfs") == "pv--dmverity--web-root"


@pytest.mark.parametrize(
    "change",
    [
        {"magic": b"VERITY\0\0"},
        {"version": 2},
        {"hash_type": 7},
        {"algorithm": b"md5"},
        {"algorithm": b"sha256 0 evil"},
        {"data": 3},
        {"hash": 1 << 20},
        {"salt_size": 300},
    ],
)
def test_hash_files_that_are_none_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="hash file"):
        verity.parse(superblock(**change))
    with pytest.raises(ValueError, match="shorter"):
        verity.parse(b"verity")


def test_the_size_of_a_file_system_is_read_from_its_superblock() -> None:
    block = bytearray(1024)
    struct.pack_into("<I", block, 4, 5)
    struct.pack_into("<I", block, 24, 2)
    assert ext4.parse(bytes(block)) is None
    block[56:58] = b"\x53\xef"
    assert ext4.parse(bytes(block)) == ext4.Size(5, 4096)
    struct.pack_into("<I", block, 96, 0x80)
    struct.pack_into("<I", block, 0x150, 1)
    assert ext4.parse(bytes(block)) == ext4.Size((1 << 32) + 5, 4096)


def test_a_swap_header_is_one_page() -> None:
    page = swap.header(1 << 20, 4096)
    assert len(page) == 4096
    assert page.endswith(b"SWAPSPACE2")
    assert struct.unpack_from("=3I", page, 1024) == (1, 255, 0)
    with pytest.raises(ValueError, match="too small"):
        swap.header(4096, 4096)


def test_why_a_container_did_not_start_is_the_first_error_of_the_last_start() -> None:
    end = "lxc-start a 1 ERROR    lxc_start - ../src/lxc/tools/lxc_start.c:main:306 - The container failed to start"
    old = "lxc-start a 1 ERROR    conf - ../src/lxc/conf.c:f:1 - an old reason"
    why = "lxc-start a 1 ERROR    network - ../src/lxc/network.c:f:711 - No such file - no bridge br0"
    then = "lxc-start a 1 ERROR    start - ../src/lxc/start.c:f:2 - Failed to spawn"
    log = f"{old}\n{end}\nlxc-start a 1 WARN     start - x:1 - whatever\n{why}\n{then}\n{end}\n{end}\n"
    assert lxc.start_fault(log) == "No such file - no bridge br0"
    assert lxc.start_fault("") == ""
