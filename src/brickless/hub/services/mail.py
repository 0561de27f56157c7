"""Mail that is not lost: written down with what it is about, sent afterwards, tried again until it is too old.

`post` is called inside the unit of work that the mail belongs to, so an account and its verification mail are there
together or not at all. Several replicas may deliver: each message is leased to one of them at a time. A crash between
the server's "accepted" and our forgetting it sends a mail twice; none is sent zero times without a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from brickless.hub.services.ports import Clock, Database, Entropy, Mailer, MailRefused, Session
from brickless.hub.services.ports_apps import Mail

log = logging.getLogger("brickless.hub")
_LEASE_MS = 2 * 60_000
_FIRST_RETRY_MS = 10_000
_LONGEST_RETRY_MS = 3600_000
#: The links in our mails are over long before.
GIVE_UP_MS = 24 * 3600_000
_LOOK_S = 15.0


class Post:
    """The queue and who empties it."""

    def __init__(self, db: Database, clock: Clock, entropy: Entropy, mailer: Mailer) -> None:
        self._db = db
        self._clock = clock
        self._entropy = entropy
        self._mailer = mailer
        self._wake = asyncio.Event()
        self.sent = 0
        self.failed = 0
        self.given_up = 0

    async def post(self, session: Session, to: str, subject: str, text: str) -> None:
        """Write a message down; the caller calls `hurry` once its unit of work is durable."""
        now_ms = self._clock.now_ms()
        await session.mails.add(Mail(self._entropy.record_id(), to, subject, text, now_ms, now_ms))

    async def hurry(self) -> None:
        """Deliver soon; at once where that is only writing a file."""
        if self._mailer.is_local:
            while await self.deliver_one():
                continue
        else:
            self._wake.set()

    async def keep(self) -> None:
        """Deliver for ever."""
        while True:
            self._wake.clear()
            try:
                while await self.deliver_one():
                    continue
            except Exception:
                log.exception("waiting mails could not be read; they stay")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_S)

    async def deliver_one(self) -> bool:
        """Try the next message; False when none is due."""
        async with self._db.write() as session:
            mail = await session.mails.due(self._clock.now_ms(), lease_ms=_LEASE_MS)
        if mail is None:
            return False
        try:
            await self._mailer.send(mail.recipient, mail.subject, mail.body)
        except MailRefused as error:
            await self._failed(mail, str(error), final=error.final)
        else:
            self.sent += 1
            async with self._db.write() as session:
                await session.mails.remove(mail.id)
        return True

    async def _failed(self, mail: Mail, why: str, *, final: bool) -> None:
        now_ms = self._clock.now_ms()
        self.failed += 1
        fields = {"mail": mail.id, "subject": mail.subject, "attempts": mail.attempts + 1, "failure": why[:400]}
        if final or now_ms - mail.created_ms > GIVE_UP_MS:
            self.given_up += 1
            log.error("a mail is given up", extra=fields)
            async with self._db.write() as session:
                await session.mails.remove(mail.id)
            return
        wait_ms = min(_LONGEST_RETRY_MS, _FIRST_RETRY_MS * 2 ** min(mail.attempts, 12))
        later = replace(mail, attempts=mail.attempts + 1, next_ms=now_ms + wait_ms, failure=why[:400])
        async with self._db.write() as session:
            await session.mails.again(later)
        log.warning("a mail could not be sent; it is tried again", extra=fields)
