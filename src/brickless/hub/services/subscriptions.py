"""Use cases of plans: what an account may have, who changes that, and the refusal beyond it (contract 6.4, 4.6)."""

from __future__ import annotations

import json

from brickless.hub.domain import plans, prn
from brickless.hub.domain.errors import Forbidden, NotFound, Precondition, TooLarge, Unsupported
from brickless.hub.domain.plans import Limits, Subscription
from brickless.hub.domain.values import CallerType, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

ISSUER = "prn::subscriptions:/admin"
_MAX_HISTORY = 100


async def limits_of(parts: Parts, session: Session, owner: str) -> tuple[str, Limits]:
    """The plan of an account and what it allows. One statement."""
    found = await session.subscriptions.of(owner)
    plan = found.plan if found is not None else parts.policy.default_plan
    return plan, plans.limits(plan, json.loads(found.attrs) if found is not None else {})


async def require_space(parts: Parts, session: Session, owner: str, more_bytes: int) -> None:
    """Raise TooLarge when an account would store more than its plan allows."""
    _, allowed = await limits_of(parts, session, owner)
    if allowed.objects_bytes is None or more_bytes <= 0:
        return
    if await session.objects.usage_bytes(owner) + more_bytes > allowed.objects_bytes:
        raise TooLarge(f"Quota exceeded; the account may store {allowed.objects_bytes} bytes")


async def require_device(parts: Parts, session: Session, owner: str) -> None:
    """Raise TooLarge when an account would have more devices than its plan allows."""
    _, allowed = await limits_of(parts, session, owner)
    if allowed.devices is not None and len(await session.devices.ids_of(owner)) >= allowed.devices:
        raise TooLarge(f"Quota exceeded; the account may have {allowed.devices} devices")


class Subscriptions:
    """Plans of accounts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def of(self, caller: Identity) -> Subscription:
        """The caller's subscription; one of the default plan when nobody made one."""
        if caller.type != CallerType.USER or prn.is_anonymous(caller.prn):
            raise Unsupported("Only people have subscriptions")
        async with self._parts.db.read() as session:
            found = await session.subscriptions.of(caller.prn)
        return found or self._default(caller.prn)

    def _default(self, subject: str) -> Subscription:
        return Subscription("0" * 24, subject, self._parts.policy.default_plan, ISSUER, "{}", "[]", 0, 0)

    async def change(self, caller: Identity, subject: str, plan: str, attrs: dict[str, object]) -> Subscription:
        """Give an account a plan. Only administrators; what was before is kept as history."""
        if caller.role != "admin":
            raise Forbidden("Only administrators change subscriptions")
        name = plans.plan_name(plan)
        plans.limits(name, attrs)
        if not subject or prn.device_id(subject) is not None:
            raise Precondition("A subscription's subject is the PRN of an account")
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        audit.named(subject=subject, plan=name)
        async with parts.db.write() as session:
            if await session.accounts.by_prn(subject) is None:
                raise NotFound("There is no such account")
            before = await session.subscriptions.of(subject)
            made = Subscription(
                id=before.id if before is not None else parts.entropy.record_id(),
                subject=subject,
                plan=name,
                issuer=caller.prn,
                attrs=json.dumps(attrs, sort_keys=True),
                history=_history(before),
                created_ms=before.created_ms if before is not None else now_ms,
                modified_ms=now_ms,
            )
            await session.subscriptions.put(made)
        return made


def _history(before: Subscription | None) -> str:
    if before is None:
        return "[]"
    entry = {"plan": before.plan, "attrs": json.loads(before.attrs), "issuer": before.issuer, "ms": before.modified_ms}
    return json.dumps([entry, *json.loads(before.history)][:_MAX_HISTORY])
