"""Foreign bytes for minutes: archives, manifests and compressed streams, mutated from good ones.

Each input goes the whole way (uncompress, read, merge, write the stream). Allowed outcomes: a result whose names stay
below the root, or an error of the two families for input. Anything else, or more than `SLOW_S` for one input, is a
finding and the exit status is 1. `make bench B=fuzz-oci` runs a minute; `python -m bench.fuzz_oci SECONDS SEED` as long
as you like.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from bench.report import report
from brickless.core.errors import HostileInputError, UserError
from brickless.oci import compression, tar
from brickless.oci.flatten import Flattener
from brickless.oci.limits import Limits
from brickless.oci.manifest import media_type_of, parse_config, parse_index, parse_manifest
from brickless.oci.reference import Reference
from brickless.testkit.archives import Bytes, file, folder, hardlink, symlink, tar_of

SLOW_S = 5.0
LIMITS = Limits(unpacked_bytes=1 << 26, entries=10_000, sparse_fragments=10_000)
MEMBERS = (
    ("./", folder()),
    ("a/b/c", file(b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b", "LIBARCHIVE.xattr.user.c": "aGk="})),
    ("l", symlink("a/b")),
    ("l/d", file(b"through")),
    ("h", hardlink("a/b/c")),
    ("n" * 150, symlink("t" * 150)),
    ("a/.wh.b", file()),
    ("a/.wh..wh..opq", file()),
    ("dev", {"type": tarfile.CHRTYPE, "devmajor": 5, "devminor": 1}),
    ("s", file(b"0\n", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})),
)
DIGEST = "sha256:" + "0" * 64
MANIFEST = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 2}, "layers": [{"digest": DIGEST, "size": 9}]}
INDEX = {"manifests": [{"digest": DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "arm"}}]}
CONFIG = {"os": "linux", "architecture": "arm", "rootfs": {"diff_ids": [DIGEST]}, "config": {"Cmd": ["x"], "Env": None}}
INTERESTING = (
    b"\0",
    b"\xff",
    b"../",
    b"/",
    b".wh.",
    b"\x80" + b"\x7f" * 11,
    b"77777777777\0",
    b"\n",
    b"99999999999999999 ",
)


def unpack(data: bytes) -> None:
    """A layer, twice over itself, all the way to the stream."""
    with Flattener(limits=LIMITS) as flattener:
        flattener.add(Bytes(data))
        flattener.add(Bytes(data))
        flattener.finish_root()
        out = io.BytesIO(b"".join(flattener.tar_chunks()))
    for entry in tar.read(out, limits=LIMITS):
        parts = entry.name.split(b"/")
        if parts[0] != b"." or b".." in parts or (entry.type == tar.LINK and b".." in entry.link.split(b"/")):
            raise AssertionError(f"an escape: {entry!r}")


def uncompress(data: bytes) -> None:
    """A compressed stream in pieces of odd sizes."""
    size = 0
    for piece in compression.decompress((data[n : n + 777] for n in range(0, len(data), 777)), what="fuzz"):
        size += len(piece)
        if len(piece) > 1 << 20:
            raise AssertionError("a piece without a bound")


def documents(data: bytes) -> None:
    """A manifest, index or configuration."""
    parse_config(data)


def document_kinds(data: bytes) -> None:
    """The same bytes as each kind of document."""
    value = json.loads(data)
    if isinstance(value, dict):
        media_type_of(value)
        (parse_index if "manifests" in value else parse_manifest)(value)


def reference(data: bytes) -> None:
    """A name."""
    Reference.parse(data.decode("utf-8", "replace"))


def corpora() -> list[tuple[Callable[[bytes], None], list[bytes]]]:
    """What is fuzzed, and the good inputs it starts from."""
    archives = [tar_of(*MEMBERS[:-1]), tar_of(*MEMBERS[:-1], form=tarfile.GNU_FORMAT), tar_of(*MEMBERS)]
    packed = [gzip.compress(archives[0]), zstandard.ZstdCompressor().compress(archives[0])]
    texts = [json.dumps(document).encode() for document in (MANIFEST, INDEX, CONFIG)]
    names = [b"host:5000/a/b:tag@" + DIGEST.encode(), b"nginx", b"[::1]:5000/x"]
    return [(unpack, archives), (uncompress, packed), (documents, texts), (document_kinds, texts), (reference, names)]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to eight changes: bits, splices of telling bytes, cuts, repetitions; most archives get right checksums."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if out:
                out[place % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                telling = rng.choice(INTERESTING)
                out[place : place + len(telling)] = telling
            case 2:
                out[place:place] = rng.choice(INTERESTING)
            case 3:
                del out[place : place + rng.choice((1, 100, 512))]
            case _:
                out[place:place] = out[place : place + 512]
    if rng.random() < 0.7:
        for start in range(0, len(out) - 511, 512):
            if out[start + 257 : start + 262] == b"ustar":
                out[start + 148 : start + 156] = b" " * 8
                out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + 512])
    return bytes(out)


def main(seconds: float = 60.0, seed: int = 1) -> int:
    """Fuzz; the number of findings."""
    rng, findings, counts = random.Random(seed), 0, {"inputs": 0, "accepted": 0, "refused": 0}
    end_s, targets, slowest_s = time.monotonic() + seconds, corpora(), 0.0
    while time.monotonic() < end_s:
        target, good = rng.choice(targets)
        data = mutated(rng.choice(good), rng)
        counts["inputs"] += 1
        start_s = time.monotonic()
        try:
            target(data)
            counts["accepted"] += 1
        except (HostileInputError, UserError):
            counts["refused"] += 1
        except ValueError:
            if target is not document_kinds:
                findings += _keep(target, data, counts["inputs"])
        except Exception:
            findings += _keep(target, data, counts["inputs"])
        taken_s = time.monotonic() - start_s
        slowest_s = max(slowest_s, taken_s)
        if taken_s > SLOW_S:
            findings += _keep(target, data, counts["inputs"])
    report("fuzz-oci", {**counts, "findings": findings, "slowest_s": slowest_s, "seconds": seconds})
    return findings


def _keep(target: Callable[[bytes], None], data: bytes, number: int) -> int:
    path = Path(f"fuzz-{target.__name__}-{number}.bin")
    path.write_bytes(data)
    print(f"finding: {target.__name__} on {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(1 if main(*(float(a) if n == 0 else int(a) for n, a in enumerate(sys.argv[1:3]))) else 0)
