"""Debian packages as input: the exact .deb files for some names, whatever this machine has installed.

apt does the work (resolving, downloading, verifying against the signed index) in a state of its own that starts from
an empty dpkg status: the same index gives the same closure on every machine, and no root is needed. Nothing is
installed.

Layout of the cache folder, shared by all processes under one lock:

    lock                 flock: one process asks apt at a time
    archives/*.deb       the packages, named as apt names them
    sets/<hash>.json     an answer: which files, with their SHA-256, belong to one question; makes us work offline
    apt/<arch>/          apt's own state: sources, lists, an empty dpkg status (remove it to see newer packages)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote

from brickless.core.errors import HostileInputError, UserError
from brickless.linux import process
from brickless.linux.process import ProcessError

ARCHITECTURES = ("amd64", "arm64", "armhf")
# Stands for an architecture where source packages are meant.
SOURCE = "source"
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+~:-]+)?")
URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) (?P<hash>\S*)$", re.MULTILINE)
KEYRING = "debian-archive-keyring"
UPDATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 1800.0
# What of the machine's apt settings still holds here: how to reach the network, and whether old snapshots are fine.
KEPT_SETTINGS = re.compile(r"^(Acquire::(https?|ftp)::|Acquire::Check-).*;$", re.MULTILINE)


class Package(NamedTuple):
    """One file of an answer; `sha256` is of the whole .deb."""

    filename: str
    sha256: str


def fetch(
    names: Sequence[str], cache: Path, arch: str = "amd64", recommends: bool = False, closure: bool = True
) -> list[Path]:
    """The .deb files of `names` (`name` or `name=version`), with everything that they depend on, sorted by file name.

    Works offline when the same question was answered before and the files still have their hashes. Several processes
    may ask at once. `closure=False` gives the named packages only. Raises `UserError` for names or architectures that
    Debian does not have, `ProcessError` when apt cannot reach its sources.
    """
    _check_question(names, arch)
    key = _key(names, arch, recommends, closure)
    with locked(cache):
        record = cache / "sets" / f"{key}.json"
        paths = _recorded(record, cache / "archives")
        if paths is None:
            apt = Apt(cache, arch, recommends)
            packages = apt.ask(names, closure)
            apt.download(packages)
            _record(record, names, packages)
            paths = _recorded(record, cache / "archives")
        if paths is None:
            raise HostileInputError(
                "a downloaded package has not the hash that the index announced", context=str(cache)
            )
        return paths


def name_of(deb: Path) -> str:
    """The package's name, from the file name as apt writes it (`name_version_arch.deb`)."""
    return deb.name.partition("_")[0]


def version_of(deb: Path) -> str:
    """The package's version, from the file name (`%3a` is the colon behind an epoch)."""
    return unquote(deb.name.split("_")[1])


@contextmanager
def members(deb: Path) -> Iterator[IO[bytes]]:
    """The package's files as an uncompressed tar stream. Leaving the context checks that the package was whole."""
    argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with process.reading(argv, purpose=f"read the package {deb.name}") as stream:
        yield stream


def extract(debs: Sequence[Path], dest: Path) -> None:
    """Unpack the files of the packages below `dest`, in the given order; owners are kept when we are root."""
    dest.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        process.run(["dpkg-deb", "-x", str(deb), str(dest)], purpose=f"unpack {deb.name}", timeout_s=300)


def _check_question(names: Sequence[str], arch: str) -> None:
    if arch not in ARCHITECTURES:
        raise UserError("debian-architecture", f"{arch!r} is not one of {', '.join(ARCHITECTURES)}")
    if not names:
        raise UserError("debian-package", "no package is named")
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError("debian-package", f"{name!r} is no name of a Debian package")


def _key(names: Sequence[str], arch: str, recommends: bool, closure: bool) -> str:
    question = json.dumps([sorted(set(names)), arch, recommends, closure])
    return hashlib.sha256(question.encode()).hexdigest()[:32]


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """The cache folder, made if need be, for this process alone."""
    for folder in ("archives", "sets", "apt"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _recorded(record: Path, archives: Path) -> list[Path] | None:
    """The files of a recorded answer, or None if there is none or a file is missing or altered."""
    try:
        listed = json.loads(record.read_bytes())["packages"]
        wanted = [Package(str(entry["file"]), str(entry["sha256"])) for entry in listed]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # a record that a crash left half written: the question is asked again
    paths = [archives / os.path.basename(package.filename) for package in wanted]
    for path, package in zip(paths, wanted, strict=True):
        if not path.is_file() or _sha256(path) != package.sha256:
            return None
    return paths


def _record(record: Path, names: Sequence[str], packages: Sequence[Package]) -> None:
    listed = [{"file": package.filename, "sha256": package.sha256} for package in packages]
    record.write_text(json.dumps({"names": sorted(set(names)), "packages": listed}, indent=1))


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Apt:
    """apt in a folder of its own, for one architecture, or for `source` packages. The caller holds the lock."""

    def __init__(self, cache: Path, arch: str, recommends: bool) -> None:
        """Make the folder, with this machine's Debian sources. Raises `UserError` when it has none."""
        self.archives = (cache / "archives").absolute()
        self.root = (cache / "apt" / arch).absolute()
        for folder in ("etc/parts", "etc/sources.d", "etc/preferences.d", "lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        self.config = self.root / "apt.conf"
        source = arch == SOURCE
        self.config.write_text(_apt_config(self.root, "amd64" if source else arch, recommends))
        sources = "\n\n".join(debian_sources(Path("/etc/apt")))
        if source:
            sources = sources.replace("Types: deb\n", "Types: deb-src\n")
        if not sources:
            hint = "Add Debian's sources to /etc/apt/sources.list.d/debian.sources."
            raise UserError("debian-sources", "this machine has no Debian package sources in /etc/apt", hint=hint)
        (self.root / "etc/sources.d/debian.sources").write_text(sources + "\n")

    def ask(self, names: Sequence[str], closure: bool) -> list[Package]:
        """Resolve the names; updates the index first if there is none, and once more if it knows no answer."""
        fresh = not any(path.is_file() for path in (self.root / "lists").iterdir())
        if fresh:
            self.update()
        try:
            return self._resolve(names, closure)
        except UserError:
            if fresh:
                raise
        self.update()
        return self._resolve(names, closure)

    def download(self, packages: Sequence[Package]) -> None:
        """Bring the files that are missing or altered; apt checks each against the signed index."""
        missing = [p for p in packages if not _is(self.archives / p.filename, p.sha256)]
        if not missing:
            return
        try:
            self._download(missing)
        except ProcessError:
            # Debian removes superseded versions from its servers: the index may be older than that.
            self.update()
            self._download(missing)

    def _download(self, packages: Sequence[Package]) -> None:
        specs = []
        for package in packages:
            (self.archives / package.filename).unlink(missing_ok=True)
            name, version, rest = package.filename.split("_")
            specs.append(f"{name}:{rest.removesuffix('.deb')}={unquote(version)}")
        # Architecture-independent packages are asked for without a qualifier.
        specs = [re.sub(r":all=", "=", spec) for spec in specs]
        self.run(["download", *specs], "download Debian packages", DOWNLOAD_TIMEOUT_S, cwd=str(self.archives))

    def update(self) -> None:
        """Read the index anew. Raises `ProcessError` when a source of it cannot be reached."""
        # `--error-on=any`: a source that cannot be reached is an error, never an older answer in silence.
        self.run(["update", "--error-on=any"], "read the index of Debian's packages", UPDATE_TIMEOUT_S)

    def _resolve(self, names: Sequence[str], closure: bool) -> list[Package]:
        verb = ["install", "--yes", "--print-uris"] if closure else ["download", "--print-uris"]
        try:
            output = self.run([*verb, *names], "resolve Debian packages", UPDATE_TIMEOUT_S)
        except ProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()
            raise UserError("debian-package", f"apt cannot resolve {' '.join(names)}: {said}") from error
        packages = [_package(match) for match in URI_LINE.finditer(output)]
        if not packages:
            raise HostileInputError(f"apt named no file for {' '.join(names)}", context=output[-200:])
        return sorted(packages)

    def show_source(self, name: str) -> str:
        """What the index says of the source package `name`, all versions; empty when it has none."""
        argv = [process.require("apt-cache", "apt"), "showsrc", "--only-source", name]
        env = {"APT_CONFIG": str(self.config)}
        done = process.run(argv, purpose=f"look up the source of {name}", timeout_s=60, env=env, check=False)
        return done.stdout.decode("utf-8", "replace")

    def run(self, arguments: list[str], purpose: str, timeout_s: float, cwd: str | None = None) -> str:
        """apt-get with this state; returns what it prints. Raises `ProcessError`."""
        env = {"APT_CONFIG": str(self.config), "DEBIAN_FRONTEND": "noninteractive"}
        argv = [process.require("apt-get", "apt"), "--quiet=2", *arguments]
        done = process.run(argv, purpose=purpose, timeout_s=timeout_s, env=env, cwd=cwd)
        return done.stdout.decode("utf-8", "replace")


def _package(match: re.Match[str]) -> Package:
    algorithm, _, digest = match["hash"].partition(":")
    if algorithm != "SHA256" or "/" in match["file"]:
        raise HostileInputError(f"apt announced no SHA-256 for {match['file']}: {match['hash']!r}")
    return Package(match["file"], digest)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _apt_config(root: Path, arch: str, recommends: bool) -> str:
    dump = process.run(["apt-config", "dump"], purpose="read apt's settings", timeout_s=30).stdout.decode()
    kept = "\n".join(match.group(0) for match in KEPT_SETTINGS.finditer(dump))
    return f"""{kept}
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "{str(recommends).lower()}";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::ForceHash "SHA256";
Dir "{root}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{root}/etc/parts";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/etc/sources.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{root}/etc/preferences.d";
Dir::Etc::trusted "/etc/apt/trusted.gpg";
Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::State::extended_states "{root}/extended_states";
Dir::Cache "{root}/cache";
Dir::Log "{root}/log";
"""


def debian_sources(etc: Path) -> list[str]:
    """Debian's own sources of this machine, as deb822 stanzas; what others publish does not take part.

    Kept are binary sources that are signed by Debian's archive key, or that name no key and lie in a folder `debian*`.
    """
    stanzas: list[str] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            stanzas += [stanza for block in re.split(r"\n\s*\n", text) if (stanza := _deb822(block))]
        elif path.suffix == ".list":
            stanzas += [stanza for line in text.splitlines() if (stanza := _one_line(line))]
    return stanzas


def _deb822(block: str) -> str | None:
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    fields = {}
    for field in re.split(r"\n(?=\S)", "\n".join(lines)):
        key, colon, value = field.partition(":")
        if colon:
            fields[key.strip().lower()] = " ".join(value.split())
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false"}:
        return None
    return _stanza(fields.get("uris", ""), fields.get("suites", ""), fields.get("components", ""), fields)


def _one_line(line: str) -> str | None:
    match = re.match(
        r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)", line
    )
    if match is None:
        return None
    options = dict(pair.lower().split("=", 1) for pair in (match["options"] or "").split() if "=" in pair)
    return _stanza(match["uri"], match["suite"], match["components"].strip(), options)


def _stanza(uris: str, suites: str, components: str, options: dict[str, str]) -> str | None:
    signed_by = options.get("signed-by", "")
    folders = [uri.rstrip("/").rpartition("/")[2] for uri in uris.split()]
    in_debian_folder = all(folder.startswith("debian") or "snapshot" in uris for folder in folders)
    if not (KEYRING in signed_by if signed_by else in_debian_folder):
        return None
    stanza = f"Types: deb\nURIs: {uris}\nSuites: {suites}\n"
    if components:
        stanza += f"Components: {components}\n"
    return stanza + f"Signed-By: {signed_by or f'/usr/share/keyrings/{KEYRING}.gpg'}"
