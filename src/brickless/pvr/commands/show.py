"""`pvr show`: a state for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.store.objects import ObjectStore

if TYPE_CHECKING:
    from brickless.pvr.humandiff import PackagesOf, Part, SizeOf


@cli.command("show", example="pvr show HEAD~1 HEAD")
@argument("revisions", metavar="[REV [REV]]", nargs=-1)
@option("--packages", is_flag=True, help="List the packages in each image as well.")
def command(env: Env, revisions: tuple[str, ...], packages: bool) -> None:
    """Show the parts of a state (containers, images, sizes), or with two states what changed between them.

    Of images that changed, the packages that came, went or have another version are told (Debian's, Alpine's and
    Python's), where both images are in the pool. REV is HEAD, HEAD~N, a state's hash, `.` for the working tree, or any
    repository.
    """
    from brickless.pvr import humandiff
    from brickless.pvr.errors import CommandError
    from brickless.pvr.revision import state_of

    if len(revisions) > 2:
        raise CommandError(2, "Two states can be compared, not more.", hint="pvr show REV REV")
    states = [state_of(env, text) for text in revisions or ("HEAD",)]
    pool = _pool(env)
    packages_of = _packages(env, pool)
    if len(states) == 1:
        found = humandiff.parts(states[0], _sizes(pool))
        inside = {part.name: _inside(part, packages_of) for part in found} if packages else {}
        env.result(
            [{**_part(part), **({"packages": inside[part.name]} if packages else {})} for part in found],
            [*humandiff.show(found), *_listed(inside)],
        )
        return
    changes = humandiff.compare(states[0], states[1], _sizes(pool), packages_of)
    document: list[JsonValue] = [
        {"name": change.name, "kind": change.kind, "details": list(change.details)} for change in changes
    ]
    env.result(document, humandiff.show_changes(changes) or ["No difference."])


def _pool(env: Env) -> ObjectStore:
    from brickless.core.errors import UserError

    try:
        return env.repository().objects
    except UserError:
        return ObjectStore(env.objects_dir)


def _sizes(pool: ObjectStore) -> SizeOf:
    """The size of an object, where this machine has it."""
    return lambda sha: pool.size_bytes(sha) if pool.has(sha) else None


def _packages(env: Env, pool: ObjectStore) -> PackagesOf:
    """The packages in an image, where this machine has it; said when it cannot be looked into."""

    def packages_of(sha: str) -> Mapping[str, str]:
        if not pool.has(sha):
            return {}
        from brickless.bom import packages
        from brickless.core.errors import HostileInputError

        try:
            return packages.installed(Path(pool.path(sha)))
        except (OSError, HostileInputError) as error:
            env.warn(f"the packages in {sha[:10]} are not known: {str(error).splitlines()[0]}")
            return {}

    return packages_of


def _inside(part: Part, packages_of: PackagesOf) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for path, value in sorted(part.entries.items()):
        if path.endswith(".squashfs") and isinstance(value, str):
            found |= packages_of(value)
    return found


def _listed(inside: Mapping[str, Mapping[str, JsonValue]]) -> list[str]:
    return [f"{name}: {package} {version}" for name, found in inside.items() for package, version in found.items()]


def _part(part: Any) -> dict[str, JsonValue]:
    document = part._asdict()
    document["entries"] = sorted(part.entries)
    return dict(document)
