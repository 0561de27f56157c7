"""What a rollout tells whoever follows an account's events: its beginning, each change of its state, each phase."""

from __future__ import annotations

from brickless.hub.domain.fleet import Rollout, RolloutState
from brickless.hub.domain.jsontext import Value
from brickless.hub.services.ports import Session


async def tell(session: Session, before: Rollout | None, after: Rollout, now_ms: int) -> None:
    """Append the event behind a change, in its transaction; nothing when nothing that people follow has changed."""
    kind = _kind(before, after)
    if kind is None:
        return
    data: dict[str, Value] = {
        "name": after.name,
        "release": after.release_id,
        "state": after.state.value,
        "reason": after.reason,
        "phase": after.wave,
        "devices": after.members,
    }
    await session.events.add(after.owner, f"rollout.{kind}", after.id, data, now_ms)


def _kind(before: Rollout | None, after: Rollout) -> str | None:
    if before is None:
        return "started"
    if before.state is RolloutState.PAUSED and after.state is RolloutState.RUNNING:
        return "resumed"
    if before.state is not after.state:
        return after.state.value
    return "phase" if before.wave != after.wave else None
