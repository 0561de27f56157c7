"""The signature policy of a step, as far as this release goes: what it cannot verify it never calls verified.

The cryptography is not on the device yet. So `strict`, which promises that every member of a state is covered by a
valid signature, refuses every step; the weaker modes let a step pass, refuse a signature that is not even well formed,
and say how many were not verified (contracts/device.md 1.16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brickless.core.errors import HostileInputError
from brickless.core.progress import Message

if TYPE_CHECKING:
    from brickless.core.state import State


class Verdict(NamedTuple):
    """`message` refuses the step and `detail` says why; without a message, `detail` is a remark for the log, or ""."""

    message: str
    detail: str


def judge(state: State, mode: str) -> Verdict:
    """What `PV_SECUREBOOT_MODE` says about a state."""
    if mode == "disabled":
        return Verdict("", "")
    if mode == "strict":
        reason = "PV_SECUREBOOT_MODE is strict, and this release cannot verify signatures"
        return Verdict(Message.BAD_SIGNATURE, f"{reason}: it refuses what it cannot check")
    from brickless.core.signature import find_signatures

    try:
        found = find_signatures(state.entries)
    except HostileInputError as error:
        return Verdict(Message.BAD_SIGNATURE, str(error))
    if not found:
        return Verdict("", "")
    names = ", ".join(signature.path for signature in found[:5])
    return Verdict("", f"{len(found)} signatures ({names}) are carried along and not verified by this release")
