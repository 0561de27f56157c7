"""`brickless image` and `brickless twin`: a flashable disk image of a board, and a real device's exact revision in
QEMU."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core import certificate as certificate_reader
from brickless.core.errors import HostileInputError, UserError
from brickless.core.state import State, parse_state
from brickless.device.config_keys import KEYS
from brickless.image import boards, factory, runtime
from brickless.image import bsp as packs
from brickless.image.boards import Options
from brickless.image.initramfs import Addition
from brickless.main.artefacts import write_site
from brickless.main.talk import Talk
from brickless.store.objects import ObjectStore
from brickless.store.repo import Repository
from brickless.twin import board as twin

TRUST = "etc/pantavisor/pvs/trust"


class Made(NamedTuple):
    """An image that was written."""

    path: Path
    board: str
    sha256: str
    size_bytes: int
    kernel: str

    def to_json(self) -> str:
        """For programs."""
        return json.dumps({**self._asdict(), "path": str(self.path)})


def settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` words as a configuration. Raises `UserError` for what the runtime would not know."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in KEYS or "\n" in value:
            hint = "docs/reference/configuration.md lists the keys."
            raise UserError("image-config", f"{pair!r} is no KEY=VALUE of the runtime's configuration", hint=hint)
        found[key] = value
    return found


def system_settings(config: Mapping[str, str]) -> dict[str, str]:
    """The settings that a device takes from its initramfs alone, not from a file on its storage."""
    return {key: value for key, value in config.items() if "PH" not in KEYS[key].levels}


def trust_file(path: Path) -> tuple[str, bytes]:
    """Where a file with whom to trust for signatures belongs in the initramfs, and its content (ADR 0045).

    Certificates of authorities, or a bare public key. Raises `UserError` for what is neither, `OSError`.
    """
    data = path.read_bytes()
    try:
        certificates = [der for _, der in certificate_reader.pem_blocks(data, "CERTIFICATE")]
        for der in certificates:
            certificate_reader.read(der)
        if certificates:
            return f"{TRUST}/ca-certificates.crt", data
        if certificate_reader.public_keys(data):
            return f"{TRUST}/pub.pem", data
    except HostileInputError as error:
        raise UserError("image-trust", f"{path}: a device could not use it: {error}") from error
    raise UserError("image-trust", f"{path} holds neither certificates nor a public key, in PEM")


def build(
    out: Path, board: str, cache: Path, options: Options, certificate: Path | None, trust: Sequence[Path] = ()
) -> Made:
    """Write the image of a board with its factory revision: the runtime, its kernel, the stock groups, a network.

    `certificate` is one more that the device trusts at its hub, `trust` are files with whom it believes signatures of
    revisions. Raises what `boards.build` does, and `UserError`.
    """
    of = boards.board(board)
    files = {name: Addition(data) for name, data in map(trust_file, trust)}
    system = system_settings(options.config)
    options = options._replace(config={key: value for key, value in options.config.items() if key not in system})
    out.parent.mkdir(parents=True, exist_ok=True)
    initrd = runtime.archive(cache, arch=of.arch, config=system, files=files)
    with tempfile.TemporaryDirectory(prefix="brickless-site-") as scratch:
        addons: tuple[tuple[str, Path], ...] = ()
        if certificate is not None:
            site = Path(scratch) / "site.cpio"
            write_site(site, certificate.read_bytes())
            addons = (("site.cpio", site),)
        made = boards.pack(of, cache, initrd, addons=addons)
        fill = lambda objects: factory.revision(objects, made, cache, arch=of.arch)  # noqa: E731 - one use, one line
        boards.build(out, of, folder=cache, bsp=made, fill=fill, options=options)
    return _described(out, board, of.kernel)


def _described(out: Path, board: str, kernel: str) -> Made:
    with out.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Made(out, board, digest, out.stat().st_size, kernel)


def of_repository(out: Path, board: str, cache: Path, options: Options, folder: Path) -> Made:
    """Write an image whose factory revision is what the repository in `folder` has committed (a clone of a device).

    Raises `UserError` when its BSP is not made of a kernel and an initramfs.
    """
    of = boards.board(board)
    repository = Repository.open(str(folder))
    raw = repository.pristine_bytes()
    state = parse_state(raw, require_bsp=True)
    made = _bsp_of(state, repository.objects)
    boards.build(
        out,
        of,
        folder=cache,
        bsp=made,
        fill=lambda objects: _copied(state, raw, repository.objects, objects),
        options=options,
    )
    return _described(out, board, str(folder))


def _bsp_of(state: State, objects: ObjectStore) -> packs.Bsp:
    """The files of a revision's BSP where they lie."""
    run = state.jsons.get("bsp/run.json")
    named: Mapping[str, object] = run if isinstance(run, dict) else {}

    def path(key: object) -> Path:
        sha = state.objects.get(f"bsp/{key}")
        if sha is None:
            raise UserError("twin-bsp", f"the revision's BSP has no file {key!r} for a kernel and an initramfs to boot")
        return Path(objects.path(sha))

    addons = named.get("addons")
    names = [str(name) for name in addons] if isinstance(addons, list) else []
    fdt = path(named["fdt"]) if "fdt" in named else None
    return packs.Bsp(
        path(named.get("linux", named.get("kernel"))),
        path(named.get("initrd")),
        tuple((n, path(n)) for n in names),
        fdt,
    )


def _copied(state: State, raw: bytes, source: ObjectStore, target: ObjectStore) -> bytes:
    for sha in sorted(set(state.objects.values())):
        target.add_file(source.path(sha))
    return raw


def run(disk: Path, board: str, cache: Path, talk: Talk) -> None:
    """Boot an image in QEMU, its console on ours, until it is switched off or we are interrupted."""
    of = boards.board(board)
    firmware = boards.firmware(of, cache)
    hardware = twin.pc() if firmware is None else twin.virt_arm64(firmware)
    with (
        tempfile.TemporaryDirectory(prefix="brickless-board-") as scratch,
        twin.Board(Path(scratch), disk, hardware, on_line=lambda line: talk.console(board, line)) as one,
    ):
        talk.say(f"{of.title}: {disk} boots; Ctrl-C switches it off")
        one.machine.wait()
