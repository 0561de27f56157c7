"""`pvr sig add`: sign a part of the committed state."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("add", example="pvr sig --key key.pem add --part web", failure=127)
@option("--part", "-p", default="", help="Sign this part: NAME/** and _config/NAME/**, without NAME/src.json.")
@option("--raw", "-r", default="", help="Sign by this name with exactly the given globs.")
@option("--include", "-i", multiple=True, help="What is covered (default **); may be given several times.")
@option("--exclude", "-e", multiple=True, help="What is not (default src.json); may be given several times.")
@option("--noconfig", "-n", is_flag=True, help="Leave _config/NAME out.")
def command(env: Env, part: str, raw: str, include: tuple[str, ...], exclude: tuple[str, ...], noconfig: bool) -> None:
    """Sign what is committed, and write the signature to _sigs/NAME.json. Commit it like any other file."""
    from brickless.core.signature import Dialect, select
    from brickless.pvr import keyfiles, signing

    if bool(part) == bool(raw):
        raise CommandError(5, "Give either --part or --raw.", hint="pvr sig add --part web")
    name = (part or raw).strip("/")
    rule = (
        signing.part_rule(name, include=include, exclude=exclude, config=not noconfig)
        if part
        else signing.raw_rule(name, include=include, exclude=exclude)
    )
    repo = env.repository()
    with repo.lock():
        entries = signing.read_state(repo.pristine_bytes())
        for path in signing.device_hazards(entries, rule):
            env.warn(f"devices may refuse this signature: they match its globs otherwise for {path}")
        who, chain = keyfiles.signer(env)
        document = signing.sign(entries, rule, who, chain=chain, with_payload=env.parent["with_payload"])
        keyfiles.write_signature(env, repo, signing.signature_path(name), document)
    covered, _ = select(entries, rule, Dialect.CLIENT)
    if env.parent["output"] != "-":
        env.result({"signature": signing.signature_path(name), "covers": list(covered)})
