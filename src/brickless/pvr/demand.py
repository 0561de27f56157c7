"""Signatures demanded before anything is taken over: `pvr --verify CA get ...` (pvr.md 5.3; issue: verify on demand).

Passes only when the signatures cover *all* that is taken: every signature of the source must verify, and every entry
that the fragment selects must be spoken of by one of them. A part that nobody signed is refused, not skipped.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING

from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.core.fragment import Fragment
from brickless.pvr.env import Env

if TYPE_CHECKING:
    from brickless.pvr.signing import Trust

_SHOWN = 5
_MAX_PEM_BYTES = 4 << 20


def check(env: Env, entries: Mapping[str, JsonValue], fragment: Fragment, *, source: str) -> None:
    """Do nothing without --verify. Raises HostileInputError when what is taken is not wholly signed."""
    if not env.verify:
        return
    from brickless.pvr import signing

    believed = _trust(env.verify)
    now = datetime.datetime.now(datetime.UTC)
    documents = signing.signatures_of(entries)
    verdicts = [signing.verify(entries, path, value, believed, at=now) for path, value in documents.items()]
    bad = [f"{verdict.path}: {verdict.reason}" for verdict in verdicts if not verdict.valid]
    if bad:
        raise HostileInputError(f"{source} has signatures that do not verify; nothing was taken: {'; '.join(bad)}")
    found = signing.cover(entries, verdicts)
    unsigned = [path for path in found.uncovered if fragment.selects(path)]
    if unsigned:
        more = f" and {len(unsigned) - _SHOWN} more" if len(unsigned) > _SHOWN else ""
        raise HostileInputError(
            f"{source} has entries that nobody signed; nothing was taken: {', '.join(unsigned[:_SHOWN])}{more}"
        )
    for path in found.excluded:
        if fragment.selects(path) and not path.startswith("_sigs/"):
            env.warn(f"{path} is left out by the signature's own rule: anybody may have changed it.")


def _trust(path: str) -> Trust:
    from brickless.pvr import jws
    from brickless.pvr.signing import Trust

    try:
        with open(path, "rb") as file:
            pem = file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise UserError("verify-file", f"{path}, of --verify, cannot be read: {error.strerror}") from error
    if b"PUBLIC KEY" in pem:
        return Trust(keys=tuple(jws.load_public_keys(pem, name=path)))
    roots = tuple(jws.load_certificates(pem, name=path))
    if not roots:
        raise UserError("verify-file", f"{path}, of --verify, holds neither certificates nor public keys")
    return Trust(roots=roots)
