"""Foreign bytes against every reader of `pvr`: archives, manifests, JSON, signatures; mutated from good ones.

Each input goes the whole way (uncompress, read, merge, write the stream; import into a pool; parse, verify). Allowed
outcomes: a result that keeps the reader's promise (names stay below the root, an object has the bytes of its name, JSON
comes back the same, no signature verifies that nobody made), or an error of the two families for input. Anything else
is a finding, and so is an input that takes longer than `SLOW_S`.
`make bench B=fuzz-readers` runs a campaign; tests/contract runs a short one of a fixed seed.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.core.state import parse_state
from brickless.oci import compression, tar
from brickless.oci.flatten import Flattener
from brickless.oci.limits import Limits
from brickless.oci.manifest import media_type_of, parse_config, parse_index, parse_manifest
from brickless.oci.reference import Reference
from brickless.store.objects import ObjectStore
from brickless.testkit.archives import Bytes, file, folder, hardlink, symlink, tar_of
from brickless.testkit.certificates import code_signing

SLOW_S = 5.0
#: An input that takes this long is taken for a hang, and stopped.
HANG_S = 60
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
    (
        "s",
        file(
            b"0\n" + bytes(510),
            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "0"},
        ),
    ),
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


KEY = ec.derive_private_key(7, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(8, ec.SECP256R1())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = "pantavisor-service-system@1"
OBJECT = b"object"


class Target(NamedTuple):
    """A reader and the good inputs that mutations start from."""

    name: str
    read: Callable[[bytes], None]
    good: list[bytes]


class Finding(NamedTuple):
    """An input that broke a promise, and what came of it."""

    target: str
    data: bytes
    reason: str


class Outcome(NamedTuple):
    """What a campaign saw; `slowest_s` is one input's time."""

    inputs: int
    accepted: int
    refused: int
    slowest_s: float
    findings: list[Finding]
    by_target: dict[str, int]


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
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HostileInputError("no JSON") from error
    if isinstance(value, dict):
        media_type_of(value)
        (parse_index if "manifests" in value else parse_manifest)(value)


def reference(data: bytes) -> None:
    """A name."""
    Reference.parse(data.decode("utf-8", "replace"))


def json_text(data: bytes) -> None:
    """Any JSON: what was read is written, and read again as the same."""
    value = canonical.loads(data)
    again = canonical.loads(canonical.dumps(value))
    if not canonical.equal(value, again) or canonical.dumps(again) != canonical.dumps(value):
        raise AssertionError("JSON does not come back as it was written")


def state(data: bytes) -> None:
    """A state as devices read it."""
    parse_state(data)


class Exports:
    """Imports archives into a pool of its own; nothing may appear anywhere else, and no object under a wrong name."""

    def __init__(self, where: Path) -> None:
        """The pool lies in `where`, beside what must stay alone in there."""
        self.where = where
        self.store = ObjectStore(str(where / "pool"))

    def __call__(self, data: bytes) -> None:
        """Import, and look at what is there then."""
        from brickless.pvr import bundle

        try:
            bundle.read_all(io.BytesIO(data), "fuzz", self.store)
        finally:
            if os.listdir(self.where) not in ([], ["pool"]):
                raise AssertionError(f"an escape: {os.listdir(self.where)}")
            for name in os.listdir(self.store.root) if os.path.isdir(self.store.root) else []:
                if not self.store.verify(name):
                    raise AssertionError(f"the pool holds {name}, which has other bytes")
                self.store.remove(name)


class Signatures:
    """Verifies a signature file over a state; only the one that was made may verify."""

    def __init__(self) -> None:
        """A state and its good signatures, with and without a chain."""
        from brickless.pvr import signing

        self.entries: dict[str, JsonValue] = {"#spec": SPEC, "web/run.json": {"name": "web"}, "web/root": "ab" * 32}
        self.root = code_signing(KEY, NOW - timedelta(days=1))
        self.trust = signing.Trust(roots=(self.root,))
        rule = signing.part_rule("web")
        self.covered = canonical.dumps({k: v for k, v in self.entries.items() if k.startswith("web/")})
        self.good = [self._made(rule, None), self._made(rule, [self.root])]

    def _made(self, rule: object, chain: list[x509.Certificate] | None) -> bytes:
        from brickless.core.signature import Rule
        from brickless.pvr import jws, signing

        assert isinstance(rule, Rule)  # noqa: S101 - what part_rule makes
        protected = jws.b64url(signing.header_bytes(KEY.public_key(), rule, chain))
        signed = f"{protected}.{jws.b64url(self.covered)}".encode()
        document = {"#spec": "pvs@2", "protected": protected, "signature": jws.b64url(jws.sign(KEY, signed))}
        return json.dumps(document).encode()

    def __call__(self, data: bytes) -> None:
        """Verify, and compare with the good ones when it passes."""
        from brickless.pvr import signing

        document = canonical.loads(data)
        entries = self.entries | {"_sigs/web.json": document}
        verdict = signing.verify(entries, "_sigs/web.json", document, self.trust, at=NOW)
        if verdict.valid:
            good = [json.loads(text) for text in self.good]
            if not isinstance(document, dict) or not any(
                (document["protected"], document["signature"]) == (one["protected"], one["signature"]) for one in good
            ):
                raise AssertionError("a signature verifies that nobody made")
            if "web/root" not in signing.cover(entries, [verdict]).protected:
                raise AssertionError("a signature passes on a subset")


def header(signatures: Signatures) -> Callable[[bytes], None]:
    """The protected header by itself: the mutations are inside the base64."""

    def read(data: bytes) -> None:
        document = json.loads(signatures.good[1])
        document["protected"] = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        signatures(json.dumps(document).encode())

    return read


def pem(data: bytes) -> None:
    """Keys and certificates in PEM, as `--pubkey`, `--cacerts`, `--x5c` and `--key` take them."""
    from brickless.pvr import jws

    jws.load_certificates(data, name="fuzz")
    jws.load_public_keys(data, name="fuzz")
    jws.load_private_key(data, name="fuzz")


@contextmanager
def targets() -> Iterator[list[Target]]:
    """All readers."""
    archives = [tar_of(*MEMBERS[:-1]), tar_of(*MEMBERS[:-1], form=tarfile.GNU_FORMAT), tar_of(*MEMBERS)]
    packed = [gzip.compress(archives[0]), zstandard.ZstdCompressor().compress(archives[0])]
    texts = [json.dumps(document).encode() for document in (MANIFEST, INDEX, CONFIG)]
    names = [b"host:5000/a/b:tag@" + DIGEST.encode(), b"nginx", b"[::1]:5000/x"]
    sha = canonical.sha256_hex(OBJECT)
    entries: dict[str, JsonValue] = {"#spec": SPEC, "web/root.squashfs": sha, "web/run.json": {"name": "web", "n": 1}}
    exported = tar_of(("json", file(canonical.dumps(entries))), (f"objects/{sha}", file(OBJECT)))
    exports = [exported, gzip.compress(exported), tar_of((".pvr/json", file(canonical.dumps(entries))))]
    numbers = b'{"a":[1.5e300,-0,1E5,"\\ud83d\\ude00\\u001f",null,{"\\ud800":{}}],"b":12345678901234567890.5}'
    signatures = Signatures()
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pems = [signatures.root.public_bytes(serialization.Encoding.PEM), public, private]
    protected = json.loads(signatures.good[1])["protected"]
    headers = [base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4))]
    with tempfile.TemporaryDirectory(prefix="brickless-fuzz-") as where:
        yield [
            Target("layer", unpack, archives),
            Target("stream", uncompress, packed),
            Target("config", documents, texts),
            Target("manifest", document_kinds, texts),
            Target("reference", reference, names),
            Target("export", Exports(Path(where)), exports),
            Target("json", json_text, [*texts, numbers, canonical.dumps(entries)]),
            Target("state", state, [canonical.dumps(entries), numbers]),
            Target("signature", signatures, signatures.good),
            Target("header", header(signatures), headers),
            Target("pem", pem, pems),
        ]


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


def campaign(seed: int, *, seconds: float = 0, inputs: int = 0) -> Outcome:
    """Fuzz for some seconds, or with some inputs. The same seed and number of inputs are the same campaign."""
    rng = random.Random(seed)  # noqa: S311 - a campaign must be repeatable, not secret
    end_s = time.monotonic() + seconds
    accepted = refused = 0
    slowest_s = 0.0
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    with targets() as readers:
        while (sum(counts.values()) < inputs) if inputs else (time.monotonic() < end_s):
            target = rng.choice(readers)
            data = mutated(rng.choice(target.good), rng)
            counts[target.name] = counts.get(target.name, 0) + 1
            start_s = time.monotonic()
            try:
                with _alarm():
                    target.read(data)
                accepted += 1
            except (HostileInputError, UserError):
                refused += 1
            except Exception as error:  # whatever it is, it is a finding: that is the question
                findings.append(Finding(target.name, data, f"{type(error).__name__}: {error}"))
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            if time.monotonic() - start_s > SLOW_S:
                findings.append(Finding(target.name, data, "slow"))
    return Outcome(sum(counts.values()), accepted, refused, slowest_s, findings, counts)


@contextmanager
def _alarm() -> Iterator[None]:
    """Stop an input that hangs. For the main thread: no other can be stopped like this."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
