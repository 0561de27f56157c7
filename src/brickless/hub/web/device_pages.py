"""Pages of the fleet, of devices, of their revisions, and of claiming them."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlencode

import segno

from brickless.core import canonical
from brickless.hub.domain import containers, prn
from brickless.hub.domain.access import Permission
from brickless.hub.domain.errors import Forbidden, Malformed, NotFound, Refusal
from brickless.hub.domain.filters import EVERY_STATUS
from brickless.hub.domain.fleet import MemberState, RolloutState
from brickless.hub.domain.fleet_lists import Search
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.state import check
from brickless.hub.domain.values import Device, LogEntry, Step
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route
from brickless.hub.services.devices import Draft
from brickless.hub.services.logs import Logs
from brickless.hub.services.ports import LogQuery
from brickless.hub.services.ports_operators import logs_of
from brickless.hub.services.trails import StepPage
from brickless.hub.web.site import Site, Visit
from brickless.hub.web.use_cases import UseCases

_READ, _SEEN = (Permission.READ,), (Permission.READ, Permission.INSTALL)
_STATUSES = ("NEW", "QUEUED", "DOWNLOADING", "INPROGRESS", "TESTING", "UPDATED", "DONE", "ERROR", "WONTGO", "none")
_ASKED = ("q", "labels", "status", "revision", "container")
_MAX_STEPS = 30
_MAX_CHANGES = 200
_LOG_LINES = 100
_REACHED = frozenset({"DONE", "UPDATED"})


def rollout_mood(state: RolloutState) -> str:
    """How to show a rollout's state."""
    if state in {RolloutState.STOPPED, RolloutState.ABORTED}:
        return "bad"
    if state in {RolloutState.RUNNING, RolloutState.ROLLING_BACK, RolloutState.PAUSED}:
        return "busy"
    return "good" if state in {RolloutState.SETTLED, RolloutState.FINISHED} else "still"


def member_mood(state: MemberState) -> str:
    """How to show a member's state."""
    if state in {MemberState.FAILED, MemberState.SILENT, MemberState.STUCK}:
        return "bad"
    if state in {MemberState.OFFERED, MemberState.UPDATING, MemberState.GOING_BACK}:
        return "busy"
    return "good" if state == MemberState.UPDATED else "still"


def number(text: str, what: str) -> int | None:
    """A number that a person typed; None for nothing. Raises Malformed."""
    if not text.strip():
        return None
    if not text.strip().isascii() or not text.strip().isdigit() or len(text) > 9:
        raise Malformed(f"{what} must be a number")
    return int(text)


def qr_image(text: str) -> str:
    """A QR code as an address that an image shows: black on white, so that a phone reads it on a dark page too."""
    uri: str = segno.make(text, error="m", micro=False).svg_data_uri(scale=4, border=2, light="#fff")
    return uri


class DevicePages:
    """Handlers of `/` and of `/dash-ui/devices`."""

    def __init__(self, site: Site, use: UseCases, base_url: Callable[[Request], str]) -> None:
        self._site = site
        self._use = use
        self._base_url = base_url

    def front(self) -> Route:
        """The first page."""
        return self._site.get("", self.fleet, *_SEEN)

    def routes(self) -> tuple[Route, ...]:
        """Everything below `/dash-ui/`."""
        get, post, one = self._site.get, self._site.post, "devices/{id}"
        deploy, operate, install = Permission.DEPLOY, Permission.OPERATE, Permission.INSTALL
        return (
            get("devices", self.devices, *_SEEN),
            get(one, self.device, *_READ),
            get(f"{one}/revisions/{{rev}}", self.revision, *_READ),
            post(f"{one}/rollback", self.roll_back, deploy),
            post(f"{one}/meta", self.set_meta, operate),
            post(f"{one}/labels", self.set_labels, operate),
            post(f"{one}/rename", self.rename, install),
            post(f"{one}/delete", self.delete, Permission.OWN),
            get("claim", self.claim_form, install),
            post("claim", self.claim, install),
        )

    async def fleet(self, request: Request, visit: Visit) -> Response:
        """GET /."""
        if not visit.may(Permission.READ):
            return self._site.see("/dash-ui/devices")
        fleet = await self._use.overviews.fleet(visit.caller)
        rollouts = await self._use.rollouts.all(visit.caller, limit=6)
        return self._site.page(request, "fleet.html", visit, fleet=fleet, rollouts=rollouts, rollout_mood=rollout_mood)

    async def devices(self, request: Request, visit: Visit) -> Response:
        """GET devices: searched, a page at a time."""
        asked = {
            name: (request.field(name) or "").strip() for name in ("q", "labels", "status", "revision", "container")
        }
        after = (request.field("after") or "", request.field("id") or "")
        search, error = Search(asked["q"], asked["labels"], asked["status"], None, asked["container"], after), ""
        try:
            search = search._replace(revision=number(asked["revision"], "The revision"))
            page = await self._use.overviews.search(visit.caller, search)
        except Malformed as refusal:
            error = refusal.message
            page = await self._use.overviews.search(visit.caller, Search(limit=0))
        kept = {name: value for name, value in asked.items() if value}
        following = ""
        if page.more and page.devices:
            last = page.devices[-1]
            following = "/dash-ui/devices?" + urlencode({**kept, "after": last.nick, "id": last.id})
        first = "/dash-ui/devices?" + urlencode(kept) if after != ("", "") else ""
        return self._site.page(
            request, "devices.html", visit, search=search, page=page, words=_STATUSES, following=following,
            first=first, error=error,
        )  # fmt: skip

    # -- one device --------------------------------------------------------------------------------------------------

    async def _device(self, visit: Visit, record_id: str) -> Device:
        """A device of the account that is shown; others, public ones too, have no page here."""
        found = await self._use.devices.get(visit.caller, prn.require_id(record_id))
        if found.device.owner != visit.caller.account:
            raise NotFound("There is no such device in this account")
        return found.device

    async def _steps(self, visit: Visit, device: Device) -> list[Step]:
        """The newest revisions, newest first; none before the device handed in its factory state."""
        try:
            newest = await self._use.trails.newest_rev(visit.caller, device.id)
        except NotFound:
            return []
        page = StepPage(status=EVERY_STATUS, offset=0, limit=_MAX_STEPS, after_rev=newest - _MAX_STEPS)
        return (await self._use.trails.steps(visit.caller, device.id, page))[::-1]

    async def device(self, request: Request, visit: Visit) -> Response:
        """GET devices/{id}."""
        device = await self._device(visit, request.params["id"])
        steps = await self._steps(visit, device)
        newest = steps[0] if steps else None
        progress = load_stored(newest.progress) if newest else {}
        percent = progress.get("progress", 0)
        reached = [step for step in steps if step.status in _REACHED]
        seen = self._use.presence.last(device.id)
        end = await self._use.logs.end()
        lines = await self._lines(visit, device)
        return self._site.page(
            request, "device.html", visit, device=device, steps=steps, newest=newest,
            running=reached[0].rev if reached else "–", target=_target(steps),
            percent=percent if isinstance(percent, int) else 0, message=str(progress.get("status-msg", "")),
            seen_ms=seen[0] if seen else device.last_seen_ms,
            parts=containers.containers(containers.parse(newest.state)) if newest else (),
            rollouts=await self._use.rollouts.of_device(visit.caller, device.id),
            lines=lines, last_line=max((line.id for line in lines), default=end),
            user_meta=_meta_text(load_stored(device.user_meta)),
            device_meta={key: _shown(value) for key, value in load_stored(device.device_meta).items()},
            found_labels=await self._use.fleets.labels(visit.caller, device.id),
        )  # fmt: skip

    async def tail(self, request: Request, visit: Visit) -> Tail:
        """The lines of the device `logs` behind the line `line`, or behind what the browser saw last."""
        if not visit.may(Permission.READ):
            raise Forbidden("Your role does not see logs")
        device = await self._device(visit, request.field("logs") or "")
        place = request.header("last-event-id") or request.field("line") or ""
        return Tail(self._use.logs, self._site, visit, device.prn, number(place, "A line") or 0)

    async def _lines(self, visit: Visit, device: Device) -> list[LogEntry]:
        query = LogQuery(owner=visit.caller.account, sort=(("time-created", True),), page=_LOG_LINES)
        page = await self._use.logs.find(visit.caller, query, (device.id,), cursor=False)
        return page.entries[::-1]

    async def revision(self, request: Request, visit: Visit) -> Response:
        """GET devices/{id}/revisions/{rev}: what it changed."""
        device = await self._device(visit, request.params["id"])
        rev = number(request.params["rev"], "A revision")
        step = await self._use.trails.step(visit.caller, device.id, -1 if rev is None else rev)
        base = step.rev - 1 if step.rev else None
        old = (
            {} if base is None else containers.parse((await self._use.trails.step(visit.caller, device.id, base)).state)
        )
        changes = containers.difference(old, containers.parse(step.state))
        newest_rev = await self._use.trails.newest_rev(visit.caller, device.id)
        return self._site.page(
            request, "revision.html", visit, device=device, step=step, base=base, changes=changes[:_MAX_CHANGES],
            more=max(0, len(changes) - _MAX_CHANGES), newest_rev=newest_rev,
        )  # fmt: skip

    async def roll_back(self, request: Request, visit: Visit) -> Response:
        """POST devices/{id}/rollback: the state of an older revision as a new one."""
        device = await self._device(visit, request.params["id"])
        rev = number(visit.fields.get("rev", ""), "A revision")
        step = await self._use.trails.step(visit.caller, device.id, -1 if rev is None else rev)
        state = check(canonical.loads(step.state))
        message = f"roll back to revision {step.rev}"
        await self._use.trails.post(
            visit.caller, device.id, rev=-1, message=message, state=state, meta={}, autolink=False
        )
        return self._site.see(f"/dash-ui/devices/{device.id}")

    async def set_meta(self, request: Request, visit: Visit) -> Response:
        """POST devices/{id}/meta: the lines of the form become the user metadata."""
        device = await self._device(visit, request.params["id"])
        found = _meta(visit.fields.get("meta", ""), load_stored(device.user_meta))
        await self._use.metadata.put_user_meta(visit.caller, device.id, found)
        return self._site.see(f"/dash-ui/devices/{device.id}")

    async def set_labels(self, request: Request, visit: Visit) -> Response:
        """POST devices/{id}/labels: `key=value` sets, `key-` removes, commas between."""
        device = await self._device(visit, request.params["id"])
        changes: dict[str, str | None] = {}
        for word in filter(None, map(str.strip, visit.fields.get("change", "").split(","))):
            key, equals, value = word.partition("=")
            removes = not equals and word.endswith("-")
            changes[key.strip().removesuffix("-" if removes else "")] = None if removes else value.strip()
        await self._use.fleets.set_labels(visit.caller, device.id, changes)
        return self._site.see(f"/dash-ui/devices/{device.id}")

    async def rename(self, request: Request, visit: Visit) -> Response:
        """POST devices/{id}/rename."""
        device = await self._device(visit, request.params["id"])
        await self._use.devices.rename(visit.caller, device.id, visit.fields.get("nick", ""))
        return self._site.see(f"/dash-ui/devices/{device.id}")

    async def delete(self, request: Request, visit: Visit) -> Response:
        """POST devices/{id}/delete."""
        device = await self._device(visit, request.params["id"])
        await self._use.devices.delete(visit.caller, device.id)
        return self._site.see("/dash-ui/devices")

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def claim_form(self, request: Request, visit: Visit) -> Response:
        """GET claim: the form, filled in from the address that a QR code holds."""
        return self._claim_page(request, visit, request.field("device") or "", request.field("challenge") or "")

    def _claim_page(
        self, request: Request, visit: Visit, device: str, challenge: str, *, error: str = "", status: int = 200
    ) -> Response:
        address = f"{self._base_url(request)}/dash-ui/claim"
        text = "Open this page on a phone, beside the device."
        if prn.is_id(device) and challenge:
            address += "?" + urlencode({"device": device, "challenge": challenge})
            text = "Whoever opens this on a phone finds the form filled in: print it on the device, or hand it on."
        return self._site.page(
            request, "claim.html", visit, status=status, device=device[:100], challenge=challenge[:100], error=error,
            qr=qr_image(address[:500]), address=address, qr_text=text,
        )  # fmt: skip

    async def claim(self, request: Request, visit: Visit) -> Response:
        """POST claim."""
        device, challenge = (visit.fields.get(name, "").strip() for name in ("device", "challenge"))
        try:
            if not challenge:
                raise Malformed("The challenge is missing")
            await self._use.devices.put(visit.caller, device, Draft(), challenge=challenge, address=request.address)
        except Refusal as error:
            return self._claim_page(request, visit, device, challenge, error=error.message, status=400)
        return self._site.see(f"/dash-ui/devices/{device}")


class Tail:
    """What a device says, for one open page: each look finds what was not told yet."""

    def __init__(self, logs: Logs, site: Site, visit: Visit, device: str, line_id: int) -> None:
        self._logs, self._site, self._visit, self._device = logs, site, visit, device
        self._line_id = line_id
        self.name = logs_of(device)

    async def look(self) -> list[bytes] | None:
        """The new lines as one event whose id is the last one's; None when they may not be seen any more."""
        lines = await self._logs.after(self._visit.caller, self._device, self._line_id)
        if not lines:
            return None if lines is None else []
        self._line_id = lines[-1].id
        shown = json.dumps(self._site.fragment("logs.html", lines=lines))
        return [f"id: {self._line_id}\nevent: lines\ndata: {shown}\n\n".encode()]


def _target(steps: list[Step]) -> Step | None:
    """Where a roll back leads: the newest revision before the newest one that the device reached."""
    return next((step for step in steps[1:] if step.status in _REACHED), None)


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else canonical.dumps(value).decode()


def _meta_text(meta: dict[str, Value]) -> str:
    return "\n".join(f"{key}={_shown(value)}" for key, value in sorted(meta.items()))


def _meta(text: str, before: dict[str, Value]) -> dict[str, Value]:
    """The lines as a map; what was no text and looks as it was shown stays what it was."""
    found: dict[str, Value] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or not key:
            raise Malformed(f"{line[:60]!r} is not key=value")
        found[key] = before[key] if key in before and _shown(before[key]) == value else value
    return found
