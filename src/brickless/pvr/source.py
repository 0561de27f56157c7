"""Where a state comes from: a hub or device, a local repository, an export; all with the same two questions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.pvr import bundle
from brickless.pvr.env import Env
from brickless.pvr.progress import Meter
from brickless.pvr.reference import Reference
from brickless.store.objects import ObjectStore, read_chunks
from brickless.store.repo import load_config, load_state

if TYPE_CHECKING:
    from brickless.pvr.http import Client


class Source(Protocol):
    """A state and a way to its objects."""

    def state(self) -> dict[str, JsonValue]:
        """The entries, checked."""
        ...

    def fetch(self, wanted: dict[str, str], store: ObjectStore) -> int:
        """Bring objects (sha -> path) into a pool, each checked; returns how many were brought."""
        ...


@contextmanager
def open_source(env: Env, reference: Reference) -> Iterator[Source]:
    """Open what a reference leads to. Raises UserError when it is no repository."""
    if reference.remote:
        from brickless.pvr.http import Client

        with Client(env) as client:
            client.name_host(reference.location)
            yield RemoteSource(client, reference.location)
    elif os.path.isdir(reference.location):
        yield LocalSource(env, reference.location)
    elif bundle.looks_like_one(reference.location):
        yield ArchiveSource(env, reference.location)
    else:
        raise UserError(
            "reference-no-repository",
            f"{reference.location} is neither a folder nor an export.",
            hint="An export is a tar archive, as `pvr export` makes it.",
        )


class RemoteSource:
    """A repository behind HTTP."""

    def __init__(self, client: Client, url: str) -> None:
        """Ask the repository how it is reached."""
        from brickless.pvr import hub

        self.client = client
        self.remote = hub.discover(client, url)

    def state(self) -> dict[str, JsonValue]:
        """See Source."""
        from brickless.pvr import hub

        return hub.state(self.client, self.remote)

    def fetch(self, wanted: dict[str, str], store: ObjectStore) -> int:
        """See Source."""
        from brickless.pvr import transfer

        return transfer.download(self.client, self.remote.objects_url, wanted, store)


class LocalSource:
    """A folder: one with `.pvr`, a `.pvr` itself, or a bare repository (`json` and `objects`, pvr.md 2.1)."""

    def __init__(self, env: Env, path: str) -> None:
        """Find the repository in or at `path`. Raises UserError."""
        inner = os.path.join(path, ".pvr")
        self.env = env
        self.meta = os.path.abspath(inner if os.path.isfile(os.path.join(inner, "json")) else path)
        if not os.path.isfile(os.path.join(self.meta, "json")):
            raise UserError(
                "reference-no-repository",
                f"{os.path.abspath(path)} is no repository: it has neither .pvr/json nor json.",
                hint="Make one there with `pvr init`.",
            )
        configured = load_config(os.path.join(self.meta, "config")).text("ObjectsDir")
        folder = os.path.join(os.path.dirname(self.meta), configured) if configured else f"{self.meta}/objects"
        self.objects = ObjectStore(folder)

    def state(self) -> dict[str, JsonValue]:
        """See Source."""
        return load_state(os.path.join(self.meta, "json"))

    def fetch(self, wanted: dict[str, str], store: ObjectStore) -> int:
        """See Source. Copies; a broken object of the other pool is refused."""
        lacking = [sha for sha in wanted if not store.has(sha)]
        with Meter(self.env, "Copying", len(lacking)) as meter:
            for sha, path in wanted.items():
                cached = store.has(sha)
                if not cached:
                    self._copy(sha, path, store, meter)
                meter.say(f"{path[:15]} [OK{' cache' if cached else ''}]")
        return len(lacking)

    def _copy(self, sha: str, path: str, store: ObjectStore, meter: Meter) -> None:
        try:
            with self.objects.open(sha) as stream:
                store.add(read_chunks(stream, heard=meter.add_bytes), sha=sha)
        except FileNotFoundError as error:
            raise UserError(
                "objects-missing",
                f"The object of {path} ({sha}) is not in {self.objects.root}.",
                hint="The source repository is incomplete: run `pvr fsck` there.",
            ) from error
        except HostileInputError as error:
            raise HostileInputError(f"{self.objects.root} has a damaged object for {path}: {error}") from error
        meter.add_object()


class ArchiveSource:
    """An export."""

    def __init__(self, env: Env, path: str) -> None:
        """Nothing is read yet."""
        self.env = env
        self.path = path

    def state(self) -> dict[str, JsonValue]:
        """See Source."""
        return bundle.read_state(self.path)

    def fetch(self, wanted: dict[str, str], store: ObjectStore) -> int:
        """See Source."""
        with Meter(self.env, "Reading") as meter:
            added = bundle.read_objects(self.path, set(wanted), store, meter.add_bytes)
        missing = [sha for sha in wanted if not store.has(sha)]
        if missing:
            raise HostileInputError(
                f"{self.path} is incomplete: it lacks {len(missing)} object(s), the first is that of "
                f"{wanted[missing[0]]} ({missing[0]})."
            )
        return added
