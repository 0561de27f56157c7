"""What the dashboard shows: a person's devices, and what changes about them."""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.domain import jsontext
from brickless.hub.domain import progress as progresses
from brickless.hub.domain.errors import Forbidden, LoginFailed
from brickless.hub.domain.values import Account, CallerType, Summary
from brickless.hub.services.auth import Auth
from brickless.hub.services.parts import Parts

MAX_ROWS = 500
SESSION_LIFE_S = 12 * 3600
_SESSION = "dashboard session"
_FORM = "dashboard form"


class Row(NamedTuple):
    """One device. `trouble`: the newest revision failed; `running`: the revision that the device reached last."""

    id: str
    nick: str
    revision: int
    running: int
    status: str
    message: str
    percent: int
    busy: bool
    trouble: bool
    seen_ms: int
    sha: str


class Dashboard:
    """Sessions of people in browsers, and the rows that they see."""

    def __init__(self, parts: Parts, auth: Auth) -> None:
        self._parts = parts
        self._auth = auth

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, *, address: str) -> str:
        """The session's text for a cookie. Raises LoginFailed or RateLimited; only people sign in here."""
        token = await self._auth.login(name, password, "", address=address)
        caller = self._auth.verify(token)
        if caller.type != CallerType.USER or "-" in caller.prn.partition("auth:/anon")[2]:
            raise LoginFailed
        claims: dict[str, object] = {"prn": caller.prn}
        return self._parts.signer.sealed(_SESSION, claims, now_s=self._parts.now_s(), life_s=SESSION_LIFE_S)

    async def session(self, text: str) -> Account | None:
        """Whose session it is; None when it is over, forged or its account is gone."""
        try:
            claims = self._parts.signer.open_sealed(_SESSION, text)
        except Forbidden:
            return None
        async with self._parts.db.read() as session:
            return await session.accounts.by_prn(str(claims.get("prn")))

    def form_token(self, cookie: str) -> str:
        """What a form must send back: it proves that the page which this browser's cookie belongs to made the form."""
        claims: dict[str, object] = {"cookie": cookie}
        return self._parts.signer.sealed(_FORM, claims, now_s=self._parts.now_s(), life_s=SESSION_LIFE_S)

    def check_form(self, cookie: str, token: str) -> None:
        """Raise Forbidden for a form that another site made."""
        if not cookie or self._parts.signer.open_sealed(_FORM, token).get("cookie") != cookie:
            raise Forbidden("This form is too old or was not made here; load the page again")

    # -- rows --------------------------------------------------------------------------------------------------------

    async def rows(self, account: Account, device_id: str | None = None) -> list[Row]:
        """The account's devices by nick, at most MAX_ROWS, or one of them."""
        async with self._parts.db.read() as session:
            found = await session.trails.summaries(account.prn, device_id, limit=MAX_ROWS, without_trail=True)
        return [self._row(summary) for summary in found]

    def _row(self, summary: Summary) -> Row:
        device = summary.device
        progress = jsontext.load_stored(summary.newest_progress)
        status, percent = str(progress.get("status", "")), progress.get("progress", 0)
        seen = self._parts.presence.last(device.id)
        return Row(
            id=device.id,
            nick=device.nick,
            revision=summary.newest_rev,
            running=summary.done_rev,
            status=status,
            message=str(progress.get("status-msg", "")),
            percent=max(0, min(100, percent)) if isinstance(percent, int) else 0,
            busy=status in progresses.ACTIONABLE and status != progresses.NEW,
            trouble=status in {"ERROR", "WONTGO"},
            seen_ms=seen[0] if seen else device.last_seen_ms,
            sha=summary.newest_sha[:8],
        )

    def seen_lately(self, device_ids: set[str]) -> dict[str, int]:
        """When these devices called last, as far as they called within the last seconds."""
        found = {device_id: self._parts.presence.last(device_id) for device_id in device_ids}
        return {device_id: seen[0] for device_id, seen in found.items() if seen is not None}
