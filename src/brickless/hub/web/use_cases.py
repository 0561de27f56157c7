"""The use cases behind the pages, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from brickless.hub.services.audit import AuditLog
from brickless.hub.services.devices import Devices
from brickless.hub.services.fleets import Fleets
from brickless.hub.services.logs import Logs
from brickless.hub.services.metadata import Metadata
from brickless.hub.services.organisations import Organisations
from brickless.hub.services.overview import Overviews
from brickless.hub.services.presence import Presence
from brickless.hub.services.rollouts import Rollouts
from brickless.hub.services.tokens import ApiTokens
from brickless.hub.services.trails import Trails
from brickless.hub.services.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class UseCases:
    """What pages may do: the same as the API, through the same services."""

    devices: Devices
    trails: Trails
    metadata: Metadata
    logs: Logs
    fleets: Fleets
    rollouts: Rollouts
    organisations: Organisations
    webhooks: Webhooks
    audit: AuditLog
    tokens: ApiTokens
    overviews: Overviews
    presence: Presence
