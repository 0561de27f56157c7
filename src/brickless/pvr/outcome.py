"""What became of a revision on its device: followed until it ended, for whoever posts and must know (`post --wait`)."""

from __future__ import annotations

import time
from typing import NamedTuple

from brickless.core.errors import BricklessError
from brickless.pvr.http import Client
from brickless.pvr.hub import Step

POLL_S = 2.0
GOOD = frozenset({"DONE", "UPDATED"})
BAD = frozenset({"ERROR", "WONTGO", "CANCELLED"})


class RevisionFailedError(BricklessError):
    """The device did not take the revision, or has not said so in time."""


class Outcome(NamedTuple):
    """The last that the device said of a revision."""

    status: str
    message: str


def follow(client: Client, post_url: str, step: Step, *, timeout_s: float) -> Outcome:
    """Ask the hub about a step until the device is done with it, telling each change.

    Raises RevisionFailedError when the device refused it, failed, or is not done after `timeout_s`; KeyboardInterrupt.
    """
    url = f"{post_url.rstrip('/')}/{step.rev}"
    end_s = time.monotonic() + timeout_s
    told = Outcome("", "")
    while True:
        progress = (
            client.call("GET", url, anonymous=True).expect(200, what=f"Asking about revision {step.rev}").object()
        )
        found = progress.get("progress")
        members = found if isinstance(found, dict) else {}
        now = Outcome(str(members.get("status") or ""), str(members.get("status-msg") or ""))
        if now != told:
            client.env.say(f"Revision {step.rev}: {now.status} {now.message}".rstrip())
            told = now
        if now.status in GOOD:
            return now
        if now.status in BAD:
            raise RevisionFailedError(
                f"Revision {step.rev} did not come to life: {now.status}: {now.message}",
                hint="The device went back to the revision before. See its logs with `pvr device logs`.",
            )
        if time.monotonic() >= end_s:
            raise RevisionFailedError(
                f"Revision {step.rev} is still {now.status or 'new'} after {timeout_s:g} s.",
                hint="The post itself is done; follow it with `pvr log`, or give --wait more time.",
            )
        if client.stop.wait(min(POLL_S, max(0.0, end_s - time.monotonic()))):
            raise KeyboardInterrupt
