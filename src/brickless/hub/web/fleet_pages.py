"""Pages of releases and rollouts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from brickless.hub.domain.access import Permission
from brickless.hub.domain.errors import Malformed, Refusal
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.fleet import MemberState, Phase, Spec
from brickless.hub.http.errors import STATUS
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route
from brickless.hub.services.fleets import ReleaseDraft
from brickless.hub.services.rollouts import Overview, Preview, RolloutDraft
from brickless.hub.web.device_pages import member_mood, number, rollout_mood
from brickless.hub.web.site import Site, Visit
from brickless.hub.web.use_cases import UseCases

_READ, _OPERATE = Permission.READ, Permission.OPERATE
_PAGE = 30
_MEMBERS = 100
_CHOICES = 100
_NO_DRAFT = {"release": "", "selector": "", "name": "", "canary": "1"}


class FleetPages:
    """Handlers of `/dash-ui/releases` and `/dash-ui/rollouts`."""

    def __init__(self, site: Site, use: UseCases) -> None:
        self._site = site
        self._use = use

    def routes(self) -> tuple[Route, ...]:
        """The pages and their forms."""
        get, post, rollouts, one = self._site.get, self._site.post, self._use.rollouts, "rollouts/{id}"
        return (
            get("releases", self.releases, _READ),
            post("releases", self.create_release, Permission.DEVELOP),
            get("rollouts", self.rollouts, _READ),
            post("rollouts", self.start, _OPERATE),
            get(one, self.rollout, _READ),
            post(f"{one}/pause", self._then(rollouts.pause), _OPERATE),
            post(f"{one}/resume", self._then(rollouts.resume), _OPERATE),
            post(f"{one}/abort", self._then(rollouts.abort), _OPERATE),
            post(f"{one}/rollback", self._then(rollouts.roll_back), _OPERATE),
        )

    async def releases(self, request: Request, visit: Visit) -> Response:
        """GET releases."""
        offset = page_number(request.field("offset"), "offset", default=0, maximum=10**6)
        found = await self._use.fleets.releases(visit.caller, offset=offset, limit=_PAGE)
        following = f"/dash-ui/releases?offset={offset + _PAGE}" if len(found) == _PAGE else ""
        return self._site.page(request, "releases.html", visit, releases=found, following=following)

    async def create_release(self, _request: Request, visit: Visit) -> Response:
        """POST releases."""
        fields = visit.fields
        draft = ReleaseDraft(
            device=fields.get("device", "").strip(),
            rev=number(fields.get("rev", ""), "The revision"),
            fragment=fields.get("fragment", "").strip(),
            name=fields.get("name", "").strip(),
            note=fields.get("note", "").strip(),
            allow_unsigned="allow_unsigned" in fields,
        )
        await self._use.fleets.create_release(visit.caller, draft)
        return self._site.see("/dash-ui/releases")

    async def rollouts(self, request: Request, visit: Visit) -> Response:
        """GET rollouts."""
        draft = {**_NO_DRAFT, "release": request.field("release") or ""}
        return await self._rollouts(request, visit, draft)

    async def _rollouts(
        self,
        request: Request,
        visit: Visit,
        draft: dict[str, str],
        *,
        preview: Preview | None = None,
        error: Refusal | None = None,
    ) -> Response:
        offset = page_number(request.field("offset"), "offset", default=0, maximum=10**6)
        found = await self._use.rollouts.all(visit.caller, offset=offset, limit=_PAGE)
        releases = await self._use.fleets.releases(visit.caller, limit=_CHOICES) if visit.may(_OPERATE) else []
        following = f"/dash-ui/rollouts?offset={offset + _PAGE}" if len(found) == _PAGE else ""
        return self._site.page(
            request, "rollouts.html", visit, status=STATUS[type(error)] if error else 200, rollouts=found,
            releases=releases, following=following, draft=draft, preview=preview,
            error=error.message if error else "", rollout_mood=rollout_mood, member_mood=member_mood,
        )  # fmt: skip

    async def start(self, request: Request, visit: Visit) -> Response:
        """POST rollouts: look at what would happen, or begin."""
        typed = {name: visit.fields.get(name, "").strip() for name in _NO_DRAFT}
        try:
            canary = number(typed["canary"], "The canary")
            spec = Spec(phases=(Phase(count=canary),)) if canary else Spec()
            draft = RolloutDraft(typed["release"], typed["selector"], typed["name"], spec)
            if visit.fields.get("do") == "preview":
                preview = await self._use.rollouts.preview(visit.caller, draft)
                return await self._rollouts(request, visit, typed, preview=preview)
            made = await self._use.rollouts.create(visit.caller, draft)
        except Refusal as error:
            return await self._rollouts(request, visit, typed, error=error)
        return self._site.see(f"/dash-ui/rollouts/{made.rollout.id}")

    async def rollout(self, request: Request, visit: Visit) -> Response:
        """GET rollouts/{id}."""
        one = await self._use.rollouts.get(visit.caller, request.params["id"])
        asked = request.field("state") or ""
        try:
            state = MemberState(asked) if asked else None
        except ValueError as error:
            raise Malformed(f"{asked[:40]!r} is no state of a device") from error
        after = request.field("after") or ""
        members = await self._use.rollouts.members(
            visit.caller, one.rollout.id, state=state, after=after, limit=_MEMBERS
        )
        following = ""
        if len(members) == _MEMBERS:
            following = f"/dash-ui/rollouts/{one.rollout.id}?state={asked}&after={members[-1].member.device_id}"
        return self._site.page(
            request, "rollout.html", visit, one=one, members=members, state=asked, following=following,
            rollout_mood=rollout_mood, member_mood=member_mood,
        )  # fmt: skip

    def _then(self, act: Callable[..., Awaitable[Overview]]) -> Callable[[Request, Visit], Awaitable[Response]]:
        async def handler(request: Request, visit: Visit) -> Response:
            await act(visit.caller, request.params["id"], f"by {visit.account.nick}")
            return self._site.see(f"/dash-ui/rollouts/{request.params['id']}")

        return handler
