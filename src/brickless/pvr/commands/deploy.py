"""`pvr deploy`: build a device's storage revision from repositories (pvr.md 3.8)."""

from __future__ import annotations

import os

from brickless.core.errors import UserError
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.fetch import fetch
from brickless.pvr.reference import Reference, resolve
from brickless.store import atomic, worktree
from brickless.store.entries import SPEC_KEY
from brickless.store.repo import Repository
from brickless.store.tree import link_beneath, unlink_beneath

_CODES = {"objects-missing": 9, "object-damaged": 9, "pool-on-another-file-system": 9, "path-in-the-way": 9}


@cli.command(
    "deploy", example="pvr deploy rootfs/trails/0 bsp.pvrexport.tgz web.pvrexport.tgz", codes=_CODES, failure=7
)
@argument("directory", required=False, default="")
@argument("repos", metavar="[REPO[#FRAGMENT]]...", nargs=-1)
@option("--nomerge", "-n", is_flag=True, help="Let each repository replace what is there, instead of merging.")
@option(
    "--objects", "-o", envvar="PVR_OBJECTS_DIR", default="", help="The pool of a new DIRECTORY (default: the shared)."
)
def command(env: Env, directory: str, repos: tuple[str, ...], nomerge: bool, objects: str) -> None:
    """Merge REPOs (default: this repository) into DIRECTORY, and check out as hard links into the pool.

    The pool must lie on the same file system: give --objects (a relative one counts from DIRECTORY, as ../../objects
    does), or prepare DIRECTORY/.pvr/config with {"ObjectsDir": "../../objects"}.
    """
    if not directory:
        raise CommandError(101, "Where to? Name the revision's folder.", hint="pvr deploy rootfs/trails/0 ...")
    target = os.path.abspath(os.path.join(env.directory, directory))
    sources = [resolve(text, repo_base=env.repo_base) for text in repos] or [_here(env)]
    talk = _Talk(env)
    talk("Starting deployment ...")
    talk("... initializing deploy repository ...")
    repo = _prepare(env, target, objects, with_spec=not repos)
    with repo.lock():
        for source in sources:
            talk(f"   - deploying {source.text}")
            fetch(env, repo, source, merge=not nomerge)
        talk("... Cleanup repo ...")
        _clean(repo)
        talk("... deploying hardlinks ...")
        repo.checkout(hardlink=True)
        talk("... deploying .pv/ links...")
        _boot_links(repo)
        # An image is made of this folder next: what we wrote must be there.
        os.sync()
    env.result({"directory": target}, [directory])


class _Talk:
    """The steps go to standard output, as scripts of the field expect; not with --json."""

    def __init__(self, env: Env) -> None:
        self._env = env

    def __call__(self, text: str) -> None:
        if not self._env.json:
            self._env.out(text)


def _here(env: Env) -> Reference:
    return resolve(env.repository().meta, repo_base=env.repo_base)


def _prepare(env: Env, target: str, objects: str, *, with_spec: bool) -> Repository:
    if os.path.exists(os.path.join(target, ".pvr", "json")):
        return Repository.open(target)
    spec = str(env.repository().pristine().get(SPEC_KEY, "")) if with_spec else ""
    prepared = os.path.exists(os.path.join(target, ".pvr", "config"))
    return Repository.init(target, spec=spec, objects_dir=objects or ("" if prepared else env.objects_dir))


def _clean(repo: Repository) -> None:
    """Remove files that are in no state, and the folders at the top that this leaves empty."""
    state = repo.pristine()
    for path in worktree.scan(repo.dir):
        if path not in state and not path.startswith(".pv/"):
            unlink_beneath(repo.dir, path)
    for name in sorted(os.listdir(repo.dir)):
        full = os.path.join(repo.dir, name)
        empty = os.path.isdir(full) and not os.path.islink(full) and not any(files for _, _, files in os.walk(full))
        if empty and name not in {".pvr", ".pv"}:
            atomic.remove_tree(full)


def _boot_links(repo: Repository) -> None:
    run = repo.pristine().get("bsp/run.json")
    if not isinstance(run, dict):
        return
    if run.get("fit"):
        wanted = {"pantavisor.fit": run["fit"]}
    else:
        kernel = run.get("kernel") or run.get("linux") or "kernel.img"
        wanted = {"pv-kernel.img": kernel, "pv-initrd.img": run.get("initrd") or "pantavisor"}
        if run.get("fdt"):
            wanted["pv-fdt.dtb"] = run["fdt"]
        # The field's client leaves these out: a device whose modules lie in an addon would boot without them.
        addons = run.get("addons")
        wanted |= {f"pv-initrd.img.{n}": addon for n, addon in enumerate(addons if isinstance(addons, list) else ())}
    state = repo.pristine()
    for name, file in wanted.items():
        sha = state.get(f"bsp/{file}")
        if not isinstance(sha, str):
            raise UserError(
                "boot-file-missing", f"bsp/run.json names {file!r} for {name}, which the state does not have."
            )
        link_beneath(repo.objects.path(sha), repo.dir, f".pv/{name}")
