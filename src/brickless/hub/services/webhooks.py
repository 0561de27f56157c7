"""Use cases of webhooks, and the work of delivering: each event at least once to each webhook that wants it.

Fanning out moves a webhook's place in the stream and queues deliveries in one transaction; sending leases a delivery
first, so two replicas do not send it at once, and one that dies leaves it to the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import NamedTuple

from brickless.hub.domain import events, webhooks
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound
from brickless.hub.domain.events import Event
from brickless.hub.domain.jsontext import load_stored, stored
from brickless.hub.domain.values import Identity
from brickless.hub.domain.webhooks import DELIVERED, FAILED, PENDING, Delivery, Webhook
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.ports_operators import Courier

MAX_WEBHOOKS = 20
_BATCH = 100
_AT_ONCE = 16
_LEASE_MS = 60_000
_LOG_PAGE = 100
_MAX_KINDS = 20


class Wanted(NamedTuple):
    """What a request says about a webhook; None means it does not say it."""

    url: str | None = None
    kinds: tuple[str, ...] | None = None
    enabled: bool | None = None


class Webhooks:
    """Webhooks of accounts."""

    def __init__(self, parts: Parts, courier: Courier) -> None:
        self._parts = parts
        self._courier = courier

    @staticmethod
    def _person(caller: Identity) -> None:
        if not caller.is_person:
            raise Forbidden("Only people have webhooks")

    def key(self, webhook: Webhook) -> bytes:
        """The secret that signs: derived, so that a copy of the database does not hold it."""
        return bytes.fromhex(self._parts.secrets.hash_token(f"webhook {webhook.id} {webhook.salt}"))

    def secret(self, webhook: Webhook) -> str:
        """The secret as its owner copies it."""
        return webhooks.secret_text(self.key(webhook))

    @staticmethod
    def _checked(webhook: Webhook) -> Webhook:
        webhooks.check_url(webhook.url)
        if not webhook.patterns or len(webhook.patterns) > _MAX_KINDS:
            raise Malformed(f"A webhook wants one to {_MAX_KINDS} kinds of events; * is all of them")
        events.check_patterns(webhook.patterns)
        return webhook

    async def create(self, caller: Identity, wanted: Wanted) -> Webhook:
        """A webhook for what happens from now on."""
        self._person(caller)
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        webhook = self._checked(
            Webhook(
                id=parts.entropy.record_id(),
                account=caller.account,
                url=wanted.url or "",
                kinds="*" if wanted.kinds is None else " ".join(wanted.kinds),
                salt=parts.entropy.word(16),
                enabled=wanted.enabled is not False,
                creator=caller.person,
                created_ms=now_ms,
                modified_ms=now_ms,
            )
        )
        audit.about(caller.account, f"id={webhook.id}")
        async with parts.db.write() as session:
            if len(await session.webhooks.of(caller.account)) >= MAX_WEBHOOKS:
                raise Conflict(f"An account has at most {MAX_WEBHOOKS} webhooks")
            await session.webhooks.add(webhook, await session.events.end())
        return webhook

    async def of(self, caller: Identity) -> list[Webhook]:
        """The account's webhooks, oldest first."""
        self._person(caller)
        async with self._parts.db.read() as session:
            return await session.webhooks.of(caller.account)

    async def _own(self, session: Session, caller: Identity, record_id: str) -> Webhook:
        self._person(caller)
        found = await session.webhooks.get(caller.account, record_id)
        if found is None:
            raise NotFound("There is no such webhook")
        return found

    async def get(self, caller: Identity, record_id: str) -> Webhook:
        """One webhook of the account."""
        async with self._parts.db.read() as session:
            return await self._own(session, caller, record_id)

    async def change(self, caller: Identity, record_id: str, wanted: Wanted) -> Webhook:
        """Another address, other kinds, on or off."""
        async with self._parts.db.write() as session:
            old = await self._own(session, caller, record_id)
            changed = replace(
                old,
                url=old.url if wanted.url is None else wanted.url,
                kinds=old.kinds if wanted.kinds is None else " ".join(wanted.kinds),
                enabled=old.enabled if wanted.enabled is None else wanted.enabled,
                modified_ms=self._parts.clock.now_ms(),
            )
            await session.webhooks.update(self._checked(changed))
        return changed

    async def remove(self, caller: Identity, record_id: str) -> None:
        """Forget a webhook and its deliveries."""
        async with self._parts.db.write() as session:
            await session.webhooks.remove((await self._own(session, caller, record_id)).id)

    async def deliveries(self, caller: Identity, record_id: str) -> list[Delivery]:
        """The newest deliveries, newest first."""
        async with self._parts.db.read() as session:
            webhook = await self._own(session, caller, record_id)
            return await session.webhooks.deliveries(webhook.id, limit=_LOG_PAGE)

    async def retry(self, caller: Identity, record_id: str, delivery_id: str) -> Delivery:
        """Send a delivery once more, whatever became of it."""
        async with self._parts.db.write() as session:
            webhook = await self._own(session, caller, record_id)
            found = await session.webhooks.delivery(webhook.id, delivery_id)
            if found is None:
                raise NotFound("There is no such delivery")
            again = replace(found, state=PENDING, attempts=0, due_ms=self._parts.clock.now_ms(), done_ms=0)
            await session.webhooks.settle(again)
        self._parts.events.happened(caller.account)
        return again

    async def ping(self, caller: Identity, record_id: str) -> Delivery:
        """Queue an event that means nothing, to try the webhook."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            webhook = await self._own(session, caller, record_id)
            event = Event(events.Cursor(), webhook.account, "webhook.ping", webhook.id, "{}", now_ms)
            delivery = self._delivery(webhook, event, now_ms)
            payload = stored({**load_stored(delivery.payload), "id": delivery.id})
            delivery = replace(delivery, event_id=delivery.id, payload=payload)
            await session.webhooks.queue([delivery])
        self._parts.events.happened(caller.account)
        return delivery

    def _delivery(self, webhook: Webhook, event: Event, now_ms: int) -> Delivery:
        return Delivery(
            id=self._parts.entropy.record_id(),
            webhook_id=webhook.id,
            event_id=str(event.cursor),
            kind=event.kind,
            payload=stored(events.cloud_event(event)),
            state=PENDING,
            attempts=0,
            due_ms=now_ms,
            status=0,
            error="",
            created_ms=now_ms,
            done_ms=0,
        )

    # -- the work ------------------------------------------------------------------------------------------------------

    async def work(self) -> float:
        """Queue what happened and send what is due; returns after how many seconds there is something to do again."""
        async with self._parts.db.read() as session:
            behind = await session.webhooks.behind()
        for record_id in behind:
            await self._fan_out(record_id)
        while await self._send_due():
            continue
        async with self._parts.db.read() as session:
            due_ms = await session.webhooks.next_due_ms()
        # What was behind may still be, while a transaction that began earlier is not over: look again soon.
        idle_s = 1.0 if behind else 30.0
        wait_s = idle_s if due_ms is None else (due_ms - self._parts.clock.now_ms()) / 1000
        return max(0.1, min(idle_s, wait_s))

    async def _fan_out(self, record_id: str) -> None:
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            taken = await session.webhooks.take(record_id)
            if taken is None:
                return  # another replica does it, or it is gone
            webhook, cursor = taken
            while found := await session.events.after(webhook.account, cursor, limit=_BATCH):
                wanted = [event for event in found if events.matches(event.kind, webhook.patterns)]
                await session.webhooks.queue([self._delivery(webhook, event, now_ms) for event in wanted])
                cursor = found[-1].cursor
            await session.webhooks.move(webhook.id, cursor)

    async def _send_due(self) -> bool:
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.read() as session:
            due_ms = await session.webhooks.next_due_ms()
        if due_ms is None or due_ms > now_ms:
            return False
        async with self._parts.db.write() as session:
            due = await session.webhooks.due(now_ms, _LEASE_MS, limit=_AT_ONCE)
        await asyncio.gather(*map(self._send, due))
        return bool(due)

    async def _send(self, delivery: Delivery) -> None:
        async with self._parts.db.read() as session:
            webhook = await session.webhooks.by_id(delivery.webhook_id)
        if webhook is None:
            return  # removed since, and its deliveries with it
        if webhook.enabled:
            body = delivery.payload.encode()
            headers = webhooks.headers(self.key(webhook), delivery.id, self._parts.now_s(), body)
            status, error = await self._courier.post(webhook.url, headers, body)
        else:
            status, error = 0, "the webhook was switched off"
        async with self._parts.db.write() as session:
            await session.webhooks.settle(self._settled(delivery, status, error, enabled=webhook.enabled))

    def _settled(self, delivery: Delivery, status: int, error: str, *, enabled: bool) -> Delivery:
        now_ms = self._parts.clock.now_ms()
        if not error:
            return replace(delivery, state=DELIVERED, status=status, error="", done_ms=now_ms)
        due_ms = webhooks.next_due_ms(delivery.attempts, now_ms) if enabled else None
        if due_ms is None:
            return replace(delivery, state=FAILED, status=status, error=error, done_ms=now_ms)
        return replace(delivery, status=status, error=error, due_ms=due_ms)
