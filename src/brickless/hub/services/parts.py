"""What every use case is built from: one value, made by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from brickless.hub.domain.policy import Policy
from brickless.hub.services.limits import Limiter
from brickless.hub.services.mail import Post
from brickless.hub.services.polls import PollCache
from brickless.hub.services.ports import Blobs, Clock, Database, Entropy, Events, Secrets, Signer
from brickless.hub.services.presence import Presence
from brickless.hub.services.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Parts:
    """Adapters, caches and limits; `changed` is the one way to say that a device changed."""

    db: Database
    blobs: Blobs
    clock: Clock
    entropy: Entropy
    secrets: Secrets
    signer: Signer
    events: Events
    post: Post
    polls: PollCache
    presence: Presence
    traffic: Traffic
    logins: Limiter
    claims: Limiter
    registrations: Limiter
    policy: Policy

    def now_s(self) -> int:
        """Unix time in whole seconds."""
        return self.clock.now_ms() // 1000

    def changed(self, owner: str, *device_ids: str) -> None:
        """Call after a write is durable: remembered answers go, dashboards and other replicas hear of it."""
        for device_id in device_ids:
            self.polls.forget(device_id)
            self.events.device_changed(owner, device_id)
