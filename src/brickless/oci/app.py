"""Apps in a repository's working tree: made from an image or a root file system, updated, rendered again.

Order on disk, so that a crash or a full disk at any moment leaves something that `install` mends: everything is
fetched, checked and built beside the app first; then src.json, root.squashfs, the rendered files, and last the digest
marker, which alone says that root.squashfs is what src.json asks for. Source: contract pvr.md 4.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, cast

from brickless.core import canonical
from brickless.core.errors import BricklessError, HostileInputError, JsonError, UserError
from brickless.core.paths import check_state_path
from brickless.oci import daemon, manifest_src, squashfs, template, users
from brickless.oci.flatten import Flattener, ignore, ignore_bytes
from brickless.oci.image import Image
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import Platform
from brickless.oci.overlay import keep_difference, read_lower
from brickless.oci.reference import Reference
from brickless.oci.registry import Access
from brickless.oci.rootfs import FolderLayer, TarballLayer, download, is_url
from brickless.oci.sources import STDIN, is_local, open_image
from brickless.store import atomic

DOCKER_MARKER = "root.squashfs.docker-digest"
ROOTFS_MARKER = "root.squashfs.rootfs-digest"
OVERLAY_MARKER = "root.ovl.squashfs.docker-digest"
LXC_CONF, RUN_JSON = "lxc.container.conf", "run.json"
UP_TO_DATE = "root.squashfs: already up to date."


@dataclass(frozen=True, slots=True)
class Build:
    """What every build needs: a folder for blobs, wishes, credentials, and someone to tell.

    `say` gets the progress lines for people, `report` what could not be kept. `epoch_s` caps the times in the image.
    """

    cache: Path
    platforms: Sequence[Platform] = ()
    access: Access = field(default_factory=Access)
    stdin: BinaryIO | None = None
    # Where a local Docker or Podman listens (as DOCKER_HOST); empty: at the usual places.
    docker_host: str = ""
    spool: Path | None = None
    epoch_s: int | None = None
    era: template.Era = template.Era.NEWEST
    limits: Limits = DEFAULT
    say: Callable[[str], None] = ignore
    # Hears how many bytes of layers were unpacked.
    unpacked: Callable[[int], None] = ignore_bytes
    # Squashing so many bytes begins; what it returns hears of them.
    squashing: Callable[[int], Callable[[int], None]] = lambda _total: ignore_bytes
    report: Callable[[str], None] = ignore


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What a person chose for an app, as it goes into src.json."""

    args: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    # The configuration of a root file system, which has none of its own; over an image's it is merged.
    docker_config: Mapping[str, Any] = field(default_factory=dict)
    persistence: Mapping[str, str] = field(default_factory=dict)
    format_options: str = ""
    docker_source: str = "remote,local"
    # Another app of the repository whose root is the lower part of this one's.
    base: str = ""


class Patch(StrEnum):
    """How an update treats the root: as it was made, as an overlay over the present one, or whole again."""

    KEEP = "keep"
    OVERLAY = "overlay"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Product:
    """The squashfs that a build makes, the marker that vouches for it, and the lower root if it is an overlay."""

    name: str = template.ROOT
    marker: str = DOCKER_MARKER
    digest_key: str = "docker_digest"
    lower: Path | None = None


def add_app(
    repo_dir: Path,
    name: str,
    source: str,
    *,
    build: Build,
    kind: str = "docker",
    settings: AppSettings | None = None,
    force: bool = False,
) -> None:
    """Make the app `name` from an image (`docker`) or a folder or tarball (`rootfs`).

    Raises `UserError`, `HostileInputError`, `OSError`; the repository is as it was then.
    """
    name = check_name(name)
    folder = repo_dir / name
    if folder.exists() and not force:
        raise UserError("app-exists", f"App '{name}' exists already", hint="Use --force, or pvr app update.")
    if kind not in ("docker", "rootfs"):
        raise UserError("app-type", f"{kind!r} is no type of app that is built from files: docker or rootfs")
    chosen = settings or AppSettings()
    src: dict[str, Any] = {"#spec": manifest_src.SPEC, "template": template.TEMPLATE, **_chosen(chosen)}
    if kind == "docker":
        src["docker_source"] = chosen.docker_source
        # As overrides, so that they outlive the next update of the image.
        src["config"] = {**chosen.docker_config, **chosen.config}
        if chosen.base:
            src["base"] = check_name(chosen.base)
        _make_docker(repo_dir, folder, src, source, build)
    else:
        src["docker_config"] = dict(chosen.docker_config)
        _make_rootfs(repo_dir, folder, src, source, build)


def update_app(
    repo_dir: Path,
    name: str,
    *,
    build: Build,
    source: str | None = None,
    patch: Patch = Patch.KEEP,
    base: str = "",
) -> None:
    """Make the app anew from where it came from, or from another `source`; its settings stay.

    `patch` and `base` (another app's name) decide what becomes an overlay. Raises as `add_app`.
    """
    name = check_name(name)
    folder = repo_dir / name
    src = manifest_src.read(folder)
    if base:
        src["base"] = check_name(base)
    if patch == Patch.WHOLE:
        src.pop("base", None)
        src.pop("docker_ovl_digest", None)
    elif patch == Patch.OVERLAY and src.get("docker_digest"):
        # From here on the app has an overlay; which one is known when the image was read.
        src.setdefault("docker_ovl_digest", src["docker_digest"])
    if src.get("rootfs_url"):
        _make_rootfs(repo_dir, folder, src, source or str(src["rootfs_url"]), build)
    elif src.get("docker_name") or src.get("docker_archive") or source:
        _make_docker(repo_dir, folder, src, source or tracked(src), build)
    else:
        hint = "Give one with --from."
        raise UserError("app-source", f"App '{name}' does not say where it came from", hint=hint)


def install_app(repo_dir: Path, name: str, *, build: Build) -> None:
    """Render the app's files from src.json, and build root.squashfs unless the marker says that it is the right one."""
    name = check_name(name)
    folder = repo_dir / name
    src = manifest_src.read(folder)
    product = _product(repo_dir, folder, src)
    digest = src.get(product.digest_key)
    if not digest:
        render_app(repo_dir, name, era=build.era)
        build.say("The application is not a docker app, therefore doesn't need to be installed.")
        return
    below = _lower_digest(repo_dir, src)
    current = below is None or below == src.get("docker_digest")
    if current and _marker(folder, product.marker) == digest and (folder / product.name).is_file():
        render_app(repo_dir, name, era=build.era)
        build.say(UP_TO_DATE)
        return
    _make_docker(repo_dir, folder, src, pinned(src, str(digest)), build, expected=str(digest))


def install_above(repo_dir: Path, name: str, *, build: Build) -> list[str]:
    """Install every app whose root lies over that of `name`, which has just changed; the names of those that could be.

    One that cannot be (its image is not to be had now) is reported, and does not undo what is done.
    """
    done = []
    for app in list_apps(repo_dir):
        if not manifest_src.is_one(repo_dir / app) or manifest_src.read(repo_dir / app).get("base") != check_name(name):
            continue
        build.say(f"{app} lies over {name}")
        try:
            install_app(repo_dir, app, build=build)
        except (BricklessError, OSError) as error:
            build.report(f"{app} lies over {name} and is as it was: {error}. Run pvr app install {app}.")
        else:
            done.append(app)
    return done


def render_app(repo_dir: Path, name: str, *, era: template.Era = template.Era.NEWEST) -> None:
    """Write `lxc.container.conf` and `run.json` anew from src.json. Raises `UserError` for what cannot be expressed."""
    folder = repo_dir / check_name(name)
    src = manifest_src.read(folder)
    _write(folder, _rendered(repo_dir, name, src, era))


def list_apps(repo_dir: Path) -> list[str]:
    """The names of the folders with a src.json, sorted."""
    return sorted(entry.name for entry in repo_dir.iterdir() if (entry / manifest_src.NAME).is_file())


def remove_app(repo_dir: Path, name: str) -> None:
    """Remove the app's folder (not its configuration overlay, nor its signature)."""
    folder = repo_dir / check_name(name)
    if not folder.is_dir():
        raise UserError("app-missing", f"App '{folder.name}' doesn't exist", context=str(folder))
    atomic.remove_tree(str(folder))


def check_name(name: str) -> str:
    """The name without slashes around it. Raises `UserError` for one that is no single folder of a state."""
    trimmed = name.strip("/")
    if not trimmed or "/" in trimmed or any(ord(sign) < 33 or sign in ":,\\" for sign in trimmed):
        raise UserError("app-name", f"{name!r} is no name for an app")
    check_state_path(f"{trimmed}/{manifest_src.NAME}")
    return trimmed


def tracked(src: Mapping[str, Any]) -> str:
    """The moving source of an app: its name and tag, or its archive."""
    if src.get("docker_archive"):
        return str(src["docker_archive"])
    tag = src.get("docker_tag")
    return f"{src['docker_name']}:{tag}" if tag else str(src["docker_name"])


def pinned(src: Mapping[str, Any], digest: str) -> str:
    """The exact source of an app, by digest where it came from a registry."""
    if src.get("docker_archive"):
        return str(src["docker_archive"])
    if "@" in digest:
        return digest
    return f"{src['docker_name']}@{digest}" if src.get("docker_name") else digest


def _chosen(settings: AppSettings) -> dict[str, Any]:
    return {
        "args": dict(settings.args),
        "config": dict(settings.config),
        "persistence": dict(settings.persistence),
        "format_options": settings.format_options,
    }


def _make_docker(
    repo_dir: Path, folder: Path, src: dict[str, Any], source: str, build: Build, *, expected: str | None = None
) -> None:
    src = {**src, **_tracked_fields(source, src)} if expected is None else dict(src)
    product = _product(repo_dir, folder, src)
    if expected is None and folder.exists():
        build.say(f"Update {'base' if product.lower is None else 'ovl'}: {product.name}")
    with ExitStack() as stack:
        image = _open(source, str(src.get("docker_source") or "remote"), build, stack)
        _say_platform(image, build)
        _note_image(src, image, source, expected, product.digest_key)
        if (below := _lower_digest(repo_dir, src)) is not None:
            src["docker_digest"] = below
        flattener = stack.enter_context(_flattener(build))
        _flatten(flattener, image, build)
        _note_user(src, flattener)
        if product.lower is not None:
            keep_difference(flattener, stack.enter_context(read_lower(product.lower, build.spool)))
        _finish(repo_dir, folder, src, flattener, build, product)


def _product(repo_dir: Path, folder: Path, src: Mapping[str, Any]) -> Product:
    """What a build of this app makes. Raises `UserError` if the root that should lie below is not there."""
    base = src.get("base")
    if not base and not src.get("docker_ovl_digest"):
        return Product()
    lower = repo_dir / str(base or folder.name) / template.ROOT
    if not lower.is_file():
        hint = "Add that app first, or use --newbase."
        raise UserError("app-base", f"the lower root {lower} is not there", hint=hint)
    return Product(template.OVERLAY, OVERLAY_MARKER, "docker_ovl_digest", lower)


def _lower_digest(repo_dir: Path, src: Mapping[str, Any]) -> str | None:
    """The digest of the app below, None without a base."""
    if not src.get("base"):
        return None
    below = manifest_src.read(repo_dir / str(src["base"]))
    return str(below.get("docker_digest") or below.get("rootfs_digest") or "")


def _open(source: str, search: str, build: Build, stack: ExitStack) -> Image:
    """The image from the first place of `search` (`remote,local`) that has it. A file or folder is its own place."""
    remote = open_image(
        source,
        cache=build.cache,
        platforms=build.platforms,
        access=build.access,
        stdin=build.stdin,
        limits=build.limits,
    )
    if is_local(source):
        return stack.enter_context(remote)
    host = daemon.find(build.docker_host)
    places = [place for place in search.split(",") if place == "remote" or host is not None]
    if not places:
        raise UserError(
            "daemon-missing", "there is no local Docker or Podman here", hint="Start it, or set DOCKER_HOST."
        )
    failures: list[Exception] = []
    for place in places:
        try:
            if place == "remote":
                return stack.enter_context(remote)
            return _open_daemon(source, str(host), build, stack)
        except (BricklessError, OSError) as error:
            failures.append(error)
            if place != places[-1]:
                build.report(f"{place} source had an error, trying with other sources: {error}")
    # The place that people asked for first says what they need to know.
    raise failures[0]


def _open_daemon(source: str, host: str, build: Build, stack: ExitStack) -> Image:
    reference = Reference.parse(source)
    opened = daemon.open_local(reference, docker_host=host, platforms=build.platforms, limits=build.limits)
    image = stack.enter_context(opened)
    build.say("Repo exists in local docker")
    return image


def _tracked_fields(source: str, src: Mapping[str, Any]) -> dict[str, Any]:
    """What src.json says of a source: the reference as typed and its tag; a file or folder has neither."""
    if source == STDIN:
        return {"docker_name": "", "docker_tag": "", "docker_archive": ""}
    if is_local(source):
        return {"docker_name": "", "docker_tag": "", "docker_archive": source}
    reference = Reference.parse(source)
    fields = {"docker_name": reference.familiar, "docker_tag": reference.tag}
    return fields | ({"docker_archive": ""} if "docker_archive" in src else {})


def _say_platform(image: Image, build: Build) -> None:
    if image.defaulted:
        build.say(f"Found Manifest for default platform ({image.platform}); choose another with --platform.")
    elif image.from_index:
        build.say(f"Found Manifest for platform {image.platform}")


def _note_image(src: dict[str, Any], image: Image, source: str, expected: str | None, digest_key: str) -> None:
    """Put the image's digest and configuration into src.json; `expected` is the digest that must come out."""
    local = is_local(source)
    digest = image.digest if local else f"{Reference.parse(source).familiar}@{image.digest}"
    if expected is not None:
        if expected.rpartition("@")[2] != image.digest:
            hint = "Run pvr app update to take the new one."
            raise UserError("image-changed", f"{source} is now {image.digest}, no longer {expected}", hint=hint)
        digest = expected
    src[digest_key] = digest
    src["docker_config"] = image.config
    if image.from_index:
        src["docker_platform"] = str(image.platform)
    elif expected is None:
        src.pop("docker_platform", None)
    for key in ("docker_archive", "docker_name", "docker_tag"):
        if not src.get(key):
            src.pop(key, None)


def _note_user(src: dict[str, Any], flattener: Flattener) -> None:
    """Remember the numbers of the image's user: an additive key, since rendering again has no image to look into."""
    user = str(template.effective_config(src, src.get("docker_config") or {}).get("User") or "")
    src.pop("docker_user", None)
    if user:
        uid, gid = users.resolve(user, flattener)
        src["docker_user"] = {"user": user, "uid": uid, "gid": gid}


def _flattener(build: Build) -> Flattener:
    return Flattener(build.spool, limits=build.limits, report=build.report, heard=build.unpacked)


def _flatten(flattener: Flattener, image: Image, build: Build) -> None:
    build.say("Downloading layers...")
    flattener.add_all(image.layers, started=lambda number: build.say(f"Extracting layer {number}"))
    build.say("Stripping qemu files...")
    build.say("Adding essential structural dirs to operate RO containers")
    flattener.finish_root()


def _make_rootfs(repo_dir: Path, folder: Path, src: dict[str, Any], source: str, build: Build) -> None:
    path = Path(source)
    src = {**src, "rootfs_url": source}
    with ExitStack() as stack:
        flattener = stack.enter_context(_flattener(build))
        if is_url(source):
            folder_name = stack.enter_context(tempfile.TemporaryDirectory(prefix="brickless-rootfs-", dir=build.spool))
            path = Path(folder_name, "rootfs.tar")
            access = build.access
            download(source, path, limits=build.limits, heard=access.heard, timeout_s=access.timeout_s)
        if path.is_dir():
            flattener.add(FolderLayer(path, os.geteuid() == 0, build.report))
        elif path.is_file():
            flattener.add(TarballLayer(path))
        else:
            raise UserError("rootfs-missing", f"{source} is neither a folder nor a tarball here")
        _finish(repo_dir, folder, src, flattener, build, Product(marker=ROOTFS_MARKER, digest_key="rootfs_digest"))


def _finish(
    repo_dir: Path, folder: Path, src: dict[str, Any], flattener: Flattener, build: Build, product: Product
) -> None:
    """Render, build, and only then write; the marker comes last."""
    options = squashfs.parse_options(str(src.get("format_options") or ""))
    flattener.exclude(options.excluded)
    rendered = _rendered(repo_dir, folder.name, src, build.era)
    with _destination(folder) as target:
        build.say(f"Generating {product.name}")
        temporary = atomic.temporary_path(str(target / product.name))
        try:
            stream = flattener.squashfs_stream(epoch_s=build.epoch_s)
            heard = build.squashing(flattener.content_bytes)
            stream = stream._replace(chunks=_told(stream.chunks, heard))
            sha = squashfs.build(stream, temporary, options=options)
            if product.marker == ROOTFS_MARKER:
                src["rootfs_digest"] = f"sha256:{sha}"
            manifest_src.write(target, src)
            atomic.publish(temporary, str(target / product.name))
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        _write(target, rendered)
        build.say("Generating squashfs digest")
        _remove_stale(target, src, product)
        atomic.write_file(str(target / product.marker), str(src[product.digest_key]).encode())


def _told(chunks: Iterable[bytes], heard: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        heard(len(chunk))


def _remove_stale(target: Path, src: Mapping[str, Any], product: Product) -> None:
    """Files that an earlier way of making the app left and that no longer mean anything."""
    stale = {DOCKER_MARKER, ROOTFS_MARKER} - {product.marker}
    if product.lower is None:
        stale |= {template.OVERLAY, OVERLAY_MARKER}
    elif src.get("base"):
        stale |= {template.ROOT}
    else:
        stale = set()  # its own root stays below, and so does what vouches for it
    for name in stale:
        (target / name).unlink(missing_ok=True)


@contextmanager
def _destination(folder: Path) -> Iterator[Path]:
    """The app's folder if it exists; for a new app a folder beside it that gets the name when all is written."""
    if folder.exists():
        yield folder
        return
    fresh = atomic.temporary_path(str(folder))
    os.mkdir(fresh, 0o755)
    try:
        yield Path(fresh)
        atomic.rename(fresh, str(folder))
    except BaseException:
        atomic.remove_tree(fresh)
        raise


def _rendered(repo_dir: Path, name: str, src: Mapping[str, Any], era: template.Era) -> dict[str, bytes]:
    named = {**src, "name": name}
    config = cast(Mapping[str, Any], src.get("docker_config") or {})
    group = template.effective_group(named, _groups(repo_dir))
    run = template.render_run(named, config, group=group, era=era)
    files = {RUN_JSON: manifest_src.text(run)}
    text = template.render_lxc(named, config, group=group, era=era)
    if text is not None:
        files[LXC_CONF] = text.encode()
    return files


def _groups(repo_dir: Path) -> list[Mapping[str, Any]]:
    try:
        value = canonical.loads((repo_dir / "groups.json").read_bytes())
    except FileNotFoundError:
        return []
    except JsonError as error:
        raise HostileInputError(f"{repo_dir / 'groups.json'} is no valid JSON: {error}") from error
    groups = [group for group in value if isinstance(group, dict)] if isinstance(value, list) else []
    return cast(list[Mapping[str, Any]], groups)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    # A new file each time: the old one may be a hard link into the pool of objects.
    for name, data in files.items():
        atomic.write_file(str(folder / name), data)


def _marker(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text()
    except FileNotFoundError:
        return None
