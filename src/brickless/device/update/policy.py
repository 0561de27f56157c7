"""The signature policy of a revision: what `PV_SECUREBOOT_MODE` makes of what its signatures cover (device.md 1.16).

`disabled` looks at nothing. In every other mode each signature that a state carries must verify; `strict` also asks
that every member which the device acts upon is covered, `audit` says which are not. The trust lies below
`<PV_SYSTEM_ETCPANTAVISORDIR>/pvs/trust`. When dates of certificates count, docs/adr/0045 says.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from brickless.core.errors import HostileInputError
from brickless.core.progress import Message

if TYPE_CHECKING:
    from brickless.core.state import State
    from brickless.core.trust import Trust
    from brickless.device.config import Config

#: No clock that runs right shows less (see `device.link.tls`): 1 January 2026, in seconds since 1970.
RELEASED_S = 1767225600
FOLDER = "pvs/trust"
MAX_NAMED = 5


class Verdict(NamedTuple):
    """`message` refuses the revision and `detail` says why; without a message, `detail` is a remark, or ""."""

    message: str
    detail: str


ACCEPTED = Verdict("", "")


class Policy(NamedTuple):
    """The mode, and where the trust lies; nothing is read before a state has signatures, or must have some."""

    mode: str = "disabled"
    folder: str = ""
    store: str = ""
    oem_name: str = ""
    oem_store: str = ""


def policy_of(config: Config) -> Policy:
    """What the configuration says."""
    return Policy(
        config.text("PV_SECUREBOOT_MODE"),
        os.path.join(config.text("PV_SYSTEM_ETCPANTAVISORDIR"), FOLDER),
        config.text("PV_SECUREBOOT_TRUSTSTORE"),
        config.text("PV_OEM_NAME"),
        config.text("PV_SECUREBOOT_OEM_TRUSTSTORE"),
    )


def judge(state: State, policy: Policy, *, dated: bool) -> Verdict:
    """What the policy says about a state. `dated`: whether a certificate that has ended is refused.

    It is not where a revision was accepted before: nothing that runs today may stop booting because time went by.
    """
    if policy.mode == "disabled" or (policy.mode != "strict" and not _has_signatures(state)):
        return ACCEPTED
    # Imported where it is used: most states of most devices carry no signature.
    from brickless.core import trust as signatures

    try:
        found = signatures.verified(state, trust_of(policy, dated=dated))
    except HostileInputError as error:
        return Verdict(Message.BAD_SIGNATURE, str(error))
    except OSError as error:
        return Verdict(Message.BAD_SIGNATURE, f"the trust cannot be read: {error}")
    open_ = signatures.unprotected(found)
    if not open_:
        return ACCEPTED
    names = ", ".join(open_[:MAX_NAMED]) + (" and others" if len(open_) > MAX_NAMED else "")
    detail = f"{len(open_)} members are covered by no signature: {names}"
    if policy.mode == "strict":
        return Verdict(Message.NOT_COVERED, detail)
    return Verdict("", detail if policy.mode == "audit" else "")


def trust_of(policy: Policy, *, dated: bool) -> Trust:
    """Read the files of the trust; one that is not there is empty. Raises OSError, and `HostileInputError`."""
    from brickless.core.trust import Trust

    now_s = time.time()
    return Trust(
        key=_read(policy.folder, "pub.pem"),
        store=_read(policy.folder, f"{policy.store}.crt"),
        oem_name=policy.oem_name,
        oem_store=_read(policy.folder, f"{policy.oem_store}.crt") if policy.oem_name else b"",
        at_s=now_s if dated and now_s >= RELEASED_S else None,
    )


def _has_signatures(state: State) -> bool:
    return any(isinstance(value, dict) and value.get("#spec") == "pvs@2" for value in state.entries.values())


def _read(folder: str, name: str) -> bytes:
    from brickless.core.certificate import MAX_PEM_BYTES

    if "/" in name or name.startswith("."):
        raise HostileInputError(f"{name[:80]!r} is no plain name of a trust store")
    try:
        with open(os.path.join(folder, name), "rb") as stream:
            data = stream.read(MAX_PEM_BYTES + 1)
    except FileNotFoundError:
        return b""
    if len(data) > MAX_PEM_BYTES:
        raise HostileInputError(f"{os.path.join(folder, name)} is larger than {MAX_PEM_BYTES} bytes")
    return data
