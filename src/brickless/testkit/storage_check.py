"""Does a storage partition have the layout that every runtime of this kind reads (device.md section 2)?

    python -m brickless.testkit.storage_check IMAGE-OR-FOLDER...

Says each fault in one line and exits 1; 0 when there is none, 2 when it cannot be read. An image is an ext4 file
system without partitions; it is not changed. What an interrupted install may leave (a revision that was never tried,
parts of downloads) is no fault; what is there must be right.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core import bootenv, canonical
from brickless.core.errors import HostileInputError
from brickless.core.paths import check_revision
from brickless.core.progress import parse_progress
from brickless.core.state import State, parse_state
from brickless.store.trails import boot_links
from brickless.testkit import partition
from brickless.testkit.partition import Partition
from brickless.twin.errors import TwinError

ROOT = frozenset(
    {"trails", "objects", "boot", "config", "cache", "disks", "logs", "dm-crypt-files", "pv", "lost+found"}
    | {".pvmounted", ".created", ".pvtx-done"}
)
MARKERS = frozenset({"progress", "done", "commitmsg", "logs", "logs.tmp"})
BOOT_FILE = re.compile(r"pv-kernel\.img|pv-initrd\.img(\.\d+)?|pv-fdt\.dtb|pantavisor\.fit|rpiboot\.img(\.gz)?")
OBJECT = re.compile(r"[0-9a-f]{64}")
UNFINISHED = re.compile(r"[0-9a-f]{64}\.(tmp|part)|\..*\.tmp-[0-9a-f]{16}")
MAX_MESSAGE_BYTES = 256
MAX_VARIABLES_BYTES = 64 * 1024
GRUB_HEADER, GRUB_BYTES = b"# GRUB Environment Block\n", 1024


class Report(NamedTuple):
    """What was found; no `faults` means that the layout holds."""

    revisions: tuple[str, ...]
    objects: int
    faults: tuple[str, ...]


def check(found: Partition) -> Report:
    """Check a partition by every rule."""
    revisions = tuple(_revisions(found))
    files = [f"trails/{rev}/{name}" for rev in revisions for name in (".pvr/json", ".pvr/config", ".pv/progress")]
    files += [f"trails/{rev}/.pv/commitmsg" for rev in revisions] + ["boot/uboot.txt", "boot/grubenv"]
    small = found.read(files)
    faults = [f"{name}: does not belong at the top" for name in _children(found, "") if name not in ROOT]
    faults += [f"{folder}/: is missing" for folder in ("trails", "objects", "boot") if folder not in found.nodes]
    booted = _booted(small)
    faults += _variables(found, small, booted, revisions)
    faults += _objects(found)
    for rev in revisions:
        faults += _revision(found, rev, small, needed=rev in booted or f"trails/{rev}/.pv/done" in found.nodes)
    faults += _currents(found, revisions)
    faults += _leftovers(found, revisions)
    objects = sum(1 for name in _children(found, "objects") if OBJECT.fullmatch(name))
    return Report(revisions, objects, tuple(faults))


def _children(found: Partition, folder: str) -> list[str]:
    head = f"{folder}/" if folder else ""
    return [path[len(head) :] for path in found.nodes if path.startswith(head) and "/" not in path[len(head) :]]


def _revisions(found: Partition) -> Iterator[str]:
    """Every folder that a revision's name leads to, whatever is in it."""
    for name in sorted(_children(found, "trails")):
        if name not in ("current", "locals"):
            yield name
    yield from (f"locals/{name}" for name in sorted(_children(found, "trails/locals")))


# The bootloader's variables -----------------------------------------------------------------------------------------


def _booted(small: Mapping[str, bytes]) -> dict[str, str]:
    """Revision -> the variable that names it."""
    raw = small.get("boot/uboot.txt")
    values = bootenv.parse(raw) if raw is not None else _grub(small.get("boot/grubenv", b""))
    return {values[key]: key for key in ("pv_try", "pv_rev") if values.get(key)}


def _grub(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").splitlines()[1:]
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def _variables(
    found: Partition, small: Mapping[str, bytes], booted: Mapping[str, str], revisions: Sequence[str]
) -> Iterator[str]:
    uboot, grub = small.get("boot/uboot.txt"), small.get("boot/grubenv")
    if uboot is None and grub is None and "boot/rpiab.txt" not in found.nodes:
        yield "boot/: has the variables of no bootloader (uboot.txt, grubenv or rpiab.txt)"
        return
    if uboot is not None and (len(uboot) > MAX_VARIABLES_BYTES or b"\0\0" not in uboot):
        yield f"boot/uboot.txt: {len(uboot)} bytes that do not end as U-Boot's variables do"
    if grub is not None and (len(grub) != GRUB_BYTES or not grub.startswith(GRUB_HEADER)):
        yield f"boot/grubenv: {len(grub)} bytes are no block of GRUB's"
    if (uboot is not None or grub is not None) and "pv_rev" not in booted.values():
        yield "boot/: no pv_rev is set"
    for rev, key in booted.items():
        if rev not in revisions:
            yield f"boot/: {key} names revision {rev}, which is not there"


# Objects and revisions ----------------------------------------------------------------------------------------------


def _objects(found: Partition) -> Iterator[str]:
    names = _children(found, "objects")
    contents = found.read(f"objects/{name}" for name in names if OBJECT.fullmatch(name))
    for name in sorted(names):
        if not OBJECT.fullmatch(name):
            if not UNFINISHED.fullmatch(name):
                yield f"objects/{name}: is no object's name"
            continue
        content = contents.get(f"objects/{name}")
        if content is None:
            yield f"objects/{name}: is no file"
        elif canonical.sha256_hex(content) != name:
            yield f"objects/{name}: {len(content)} bytes hash to something else"


def _revision(found: Partition, rev: str, small: Mapping[str, bytes], *, needed: bool) -> Iterator[str]:
    head = f"trails/{rev}"
    try:
        check_revision(rev)
    except HostileInputError as error:
        yield f"{head}: {error}"
        return
    raw = small.get(f"{head}/.pvr/json")
    if raw is None:
        if needed:
            yield f"{head}/.pvr/json: is missing"
        return
    try:
        state = parse_state(raw)
    except HostileInputError as error:
        # A state that was refused stays as it came, until it is collected.
        if needed:
            yield f"{head}/.pvr/json: {error}"
        return
    yield from _own_files(found, head, small)
    yield from _tree(found, head, state, needed=needed)


def _own_files(found: Partition, head: str, small: Mapping[str, bytes]) -> Iterator[str]:
    try:
        config = canonical.loads(small.get(f"{head}/.pvr/config", b""))
    except HostileInputError:
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("ObjectsDir"), str):
        yield f"{head}/.pvr/config: does not say where the objects are"
    progress = small.get(f"{head}/.pv/progress")
    if progress is not None:
        try:
            parse_progress(progress)
        except HostileInputError as error:
            yield f"{head}/.pv/progress: {error}"
    if len(small.get(f"{head}/.pv/commitmsg", b"")) > MAX_MESSAGE_BYTES:
        yield f"{head}/.pv/commitmsg: has more than {MAX_MESSAGE_BYTES} bytes"
    done = found.nodes.get(f"{head}/.pv/done")
    if done is not None and done.size:
        yield f"{head}/.pv/done: is a marker, and has {done.size} bytes"
    for name in _children(found, f"{head}/.pv"):
        if name not in MARKERS and not BOOT_FILE.fullmatch(name) and not UNFINISHED.fullmatch(name):
            yield f"{head}/.pv/{name}: does not belong there"


def _tree(found: Partition, head: str, state: State, *, needed: bool) -> Iterator[str]:
    for path, sha in sorted(state.objects.items()):
        yield from _linked(found, f"{head}/{path}", f"objects/{sha}", copied=path.endswith(".bind"), needed=needed)
    texts = found.read(f"{head}/{path}" for path in state.jsons)
    for path, value in sorted(state.jsons.items()):
        text = texts.get(f"{head}/{path}")
        if text is None and needed:
            yield f"{head}/{path}: is missing"
        elif text is not None and not _says(text, value):
            yield f"{head}/{path}: says something else than the state"
    for name, path in boot_links(state).items():
        yield from _linked(found, f"{head}/.pv/{name}", f"objects/{state.objects[path]}", copied=False, needed=needed)
    known = {*state.objects, *state.jsons}
    for path, node in found.nodes.items():
        own = path.removeprefix(f"{head}/")
        if own != path and not node.is_folder and own not in known and own.partition("/")[0] not in (".pvr", ".pv"):
            yield f"{path}: is not in the state"


def _linked(found: Partition, path: str, target: str, *, copied: bool, needed: bool) -> Iterator[str]:
    node, wanted = found.nodes.get(path), found.nodes.get(target)
    if node is None:
        if needed:
            yield f"{path}: is missing"
    elif not copied and (wanted is None or node.inode != wanted.inode):
        yield f"{path}: is no hard link to {target}"
    if wanted is None and needed:
        yield f"{path}: its object {target} is missing"


def _says(text: bytes, value: canonical.JsonValue) -> bool:
    try:
        return canonical.loads(text) == value
    except HostileInputError:
        return False


# The rest -----------------------------------------------------------------------------------------------------------


def _currents(found: Partition, revisions: Sequence[str]) -> Iterator[str]:
    for path in ("trails/current", "logs/current"):
        if path in found.nodes and found.links.get(path) not in revisions:
            yield f"{path}: leads to {found.links.get(path, 'nothing')!r}, which is no revision"
    if "trails/current" not in found.nodes and revisions != ("0",):
        yield "trails/current: is missing"


def _leftovers(found: Partition, revisions: Sequence[str]) -> Iterator[str]:
    """Logs of revisions that are gone. (Their disks may stay for a container that ran on.)"""
    names = [name for name in _children(found, "logs") if name not in ("current", "locals")]
    names += [f"locals/{name}" for name in _children(found, "logs/locals")]
    for name in sorted(names):
        if name not in revisions and found.nodes[f"logs/{name}"].is_folder:
            yield f"logs/{name}: belongs to no revision that is there"


def report_of(path: Path) -> Report:
    """Check a folder or an image. Raises OSError, and `TwinError` for an image that is none."""
    if path.is_dir():
        return check(partition.of_folder(str(path)))
    with partition.scratch_folder() as scratch:
        found, fault = partition.of_image(path, Path(scratch))
        report = check(found)
    return report._replace(faults=(f"the file system: {fault}", *report.faults)) if fault else report


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    paths = list(sys.argv[1:] if argv is None else argv)
    if not paths or paths[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return 0 if paths else 2
    status = 0
    for path in paths:
        try:
            report = report_of(Path(path))
        except (OSError, TwinError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            return 2
        for fault in report.faults:
            sys.stdout.write(f"{path}: {fault}\n")
        status = 1 if report.faults else status
        words = f"{len(report.faults)} faults" if report.faults else "the layout holds"
        sys.stdout.write(f"{path}: {len(report.revisions)} revisions, {report.objects} objects: {words}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
