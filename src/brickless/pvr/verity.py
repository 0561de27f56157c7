"""dm-verity for the volumes of containers (pvr.md 6, device.md 1.18): hash trees by `veritysetup`, and their manifests.

Every file is written beside its target and renamed over it: an interrupted conversion leaves the old files, and a
symlink in the tree is replaced, never written through. `veritysetup`'s verdict is always looked at.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, JsonError, UserError
from brickless.core.fragment import covers
from brickless.linux import process
from brickless.store import atomic, tree

TOOL = "veritysetup"
PACKAGE = "cryptsetup-bin"
TYPE = "dm-verity"
FORMAT_TIMEOUT_S = 3600.0
MAX_MANIFEST_BYTES = 1 << 20
_HEX = re.compile(r"[0-9a-f]{1,1024}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FIELDS = {"UUID": "uuid", "Salt": "salt", "Root hash": "root_hash"}


class Formatted(NamedTuple):
    """What `veritysetup format` said, as lower-case hex."""

    root_hash: str
    salt: str
    uuid: str


class Applied(NamedTuple):
    """One protected volume: the paths of its manifest and its hash tree, and whether any of them changed."""

    manifest: str
    hash_file: str
    changed: bool


def convert(repo_dir: str, container: str, volume: str) -> list[str]:
    """Protect a volume: hash tree, manifest, `dm:` in run.json, `dm_enabled` in src.json. Returns the paths written.

    A volume that is protected already keeps its salt and UUID. Raises UserError, ToolMissingError, ProcessError.
    """
    process.require(TOOL, PACKAGE)
    _check_name(volume)
    manifest_path = f"{container}/_dm/{volume}.json"
    old = _read_object(repo_dir, manifest_path) or {}
    manifest = old | {"type": TYPE, "data_device": volume, "hash_device": f"{volume}.hash"}
    run = _read_object(repo_dir, f"{container}/run.json")
    if run is None:
        raise UserError("container-missing", f"{container}/run.json does not exist: there is no such container here")
    # Looked up before the long work: a volume that nothing mounts would be protected in vain.
    marked = with_prefix(run, volume, f"{container}/run.json")
    changed = _format(repo_dir, container, manifest_path, manifest)
    written = [changed.manifest, changed.hash_file]
    tree.write_beneath(repo_dir, f"{container}/run.json", canonical.dumps(marked))
    written.append(f"{container}/run.json")
    source = _read_object(repo_dir, f"{container}/src.json")
    if source is not None:
        enabled = source.get("dm_enabled")
        source["dm_enabled"] = (enabled if isinstance(enabled, dict) else {}) | {volume: True}
        tree.write_beneath(repo_dir, f"{container}/src.json", source_text(source))
        written.append(f"{container}/src.json")
    return written


def apply(repo_dir: str, paths: list[str], prefix: str = "") -> list[Applied]:
    """Compute the hash trees of all protected volumes anew whose manifests are among `paths` and below `prefix`.

    One that is unchanged does not stop the others (the reference's does, pvr.md 8.2, 17).
    """
    process.require(TOOL, PACKAGE)
    done = []
    for path in sorted(paths):
        container, separator, _ = path.partition("/_dm/")
        if not separator or not path.endswith(".json") or (prefix and not covers((prefix.rstrip("/"),), path)):
            continue
        manifest = _read_object(repo_dir, path)
        if manifest is None or manifest.get("type") != TYPE:
            raise UserError("verity-manifest", f"{path} is no dm-verity manifest", hint="Make one with pvr dm-convert.")
        done.append(_format(repo_dir, container, path, manifest))
    return done


def with_prefix(run: Mapping[str, JsonValue], volume: str, path: str) -> dict[str, JsonValue]:
    """Return the run.json that mounts `volume` through dm-verity. Raises UserError when it does not mount it."""
    wanted = f"dm:{volume}"
    for key in ("modules", "firmware", "root-volume"):
        if run.get(key) in (volume, wanted):
            return dict(run) | {key: wanted}
    volumes = run.get("volumes")
    if isinstance(volumes, list) and (volume in volumes or wanted in volumes):
        return dict(run) | {"volumes": [wanted if member == volume else member for member in volumes]}
    raise UserError(
        "volume-unknown", f"{path} mounts no volume {volume!r}", hint="Look at its root-volume and volumes."
    )


def source_text(document: Mapping[str, JsonValue]) -> bytes:
    """A src.json as it is written (pvr.md 4.2); every member stays, known or not."""
    from brickless.store.jsontext import escaped_text

    return escaped_text(dict(document), indent=" ", prefix=" ", sort=False).encode()


def parse_output(output: bytes) -> Formatted:
    """Read what `veritysetup format` printed. Raises HostileInputError when it is not what we know."""
    found: dict[str, str] = {}
    for line in output.decode("utf-8", "replace").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in _FIELDS:
            found[_FIELDS[key.strip()]] = value.strip().lower()
    salt = found.get("salt", "")
    good = _HEX.fullmatch(found.get("root_hash", "")) and _UUID.fullmatch(found.get("uuid", ""))
    if not good or not (salt == "-" or _HEX.fullmatch(salt)):
        raise HostileInputError(f"{TOOL} printed something that is not known: {output[:200]!r}")
    return Formatted(found["root_hash"], salt, found["uuid"])


def _format(repo_dir: str, container: str, manifest_path: str, manifest: dict[str, JsonValue]) -> Applied:
    data_name, hash_name = (_check_name(manifest.get(key)) for key in ("data_device", "hash_device"))
    data_path, hash_path = f"{container}/{data_name}", f"{container}/{hash_name}"
    _check_regular(repo_dir, data_path)
    folder = os.path.dirname(tree.safe_join(repo_dir, data_path))
    temporary = atomic.temporary_name(hash_name)
    argv = [TOOL, "format", *_determined(manifest), "--", data_name, temporary]
    try:
        output = process.run(
            argv, purpose=f"hashing {data_path}", timeout_s=FORMAT_TIMEOUT_S, cwd=folder, env={"LC_ALL": "C"}
        ).stdout
        formatted = parse_output(output)
        changed = not _same(os.path.join(folder, temporary), os.path.join(folder, hash_name))
        if changed:
            os.chmod(os.path.join(folder, temporary), 0o644)
            atomic.publish(os.path.join(folder, temporary), os.path.join(folder, hash_name))
    finally:
        atomic.discard(os.path.join(folder, temporary))
    new = manifest | {"root_hash": formatted.root_hash, "salt": formatted.salt, "uuid": formatted.uuid}
    if new != _read_object(repo_dir, manifest_path):
        tree.write_beneath(repo_dir, manifest_path, canonical.dumps(new))
        changed = True
    return Applied(manifest_path, hash_path, changed)


def _determined(manifest: Mapping[str, JsonValue]) -> list[str]:
    """The options that make the same tree again: salt and UUID of the manifest, if it has them."""
    options = []
    for key, option, pattern in (("salt", "--salt", _HEX), ("uuid", "--uuid", _UUID)):
        value = manifest.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not (pattern.fullmatch(value) or (key == "salt" and value == "-")):
            raise HostileInputError(f"the {key} of the dm-verity manifest is malformed: {str(value)[:80]!r}")
        options.append(f"{option}={value}")
    return options


def _check_name(value: JsonValue) -> str:
    if not isinstance(value, str) or "/" in value or tree.components(value) != [value] or value.startswith("-"):
        raise HostileInputError(f"{str(value)[:80]!r} is no file name of a volume")
    return value


def _check_regular(repo_dir: str, path: str) -> None:
    """Refuse a volume that is missing, no regular file, or reached through a symlink: another file would be hashed."""
    try:
        fd = tree.open_beneath(repo_dir, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError("volume-missing", f"{path} does not exist") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UserError("volume-no-file", f"{path} is no regular file")
    finally:
        os.close(fd)


def _read_object(repo_dir: str, path: str) -> dict[str, JsonValue] | None:
    try:
        fd = tree.open_beneath(repo_dir, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        value = canonical.loads(data, max_bytes=MAX_MANIFEST_BYTES)
    except JsonError as error:
        raise UserError("inline-json-broken", f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError("inline-json-broken", f"{path} is no JSON object")
    return value


def _same(left: str, right: str) -> bool:
    try:
        if os.path.islink(right) or os.path.getsize(left) != os.path.getsize(right):
            return False
        with open(left, "rb") as a, open(right, "rb") as b:
            while chunk := a.read(1 << 20):
                if chunk != b.read(1 << 20):
                    return False
    except FileNotFoundError:
        return False
    return True
