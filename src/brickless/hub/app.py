"""The composition root: the one place that knows every part of the hub, and the server that carries it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from brickless.hub.adapters.archive import upkeep_lock
from brickless.hub.adapters.blobs import FolderBlobs
from brickless.hub.adapters.bus import EVERYBODY, LocalEvents
from brickless.hub.adapters.certificates import X509Certificates
from brickless.hub.adapters.courier import HttpCourier
from brickless.hub.adapters.crypto import HashedSecrets, JwtSigner
from brickless.hub.adapters.database import SqlDatabase
from brickless.hub.adapters.keys import load
from brickless.hub.adapters.mail import FolderMailer, SmtpMailer, parse_server
from brickless.hub.adapters.oidc import HttpProvider
from brickless.hub.adapters.replicas import Replicas
from brickless.hub.adapters.runtime import SystemClock, SystemEntropy
from brickless.hub.adapters.s3_blobs import S3Blobs, parse_bucket
from brickless.hub.adapters.server import Tls, serve_application
from brickless.hub.adapters.zones import offset_of
from brickless.hub.domain.errors import Precondition
from brickless.hub.domain.oidc import Provider
from brickless.hub.domain.policy import Policy
from brickless.hub.http.application import Application
from brickless.hub.http.apps import AppRoutes, SubscriptionRoutes
from brickless.hub.http.audit import AuditRoutes, EventRoutes
from brickless.hub.http.auth import AuthRoutes
from brickless.hub.http.devices import DeviceRoutes
from brickless.hub.http.exports import ExportRoutes
from brickless.hub.http.fleets import FleetRoutes, RolloutRoutes
from brickless.hub.http.fleets import service as fleet_service
from brickless.hub.http.internal import InternalRoutes
from brickless.hub.http.logs import LogRoutes
from brickless.hub.http.messages import Request
from brickless.hub.http.metrics import Metrics
from brickless.hub.http.oauth import OAuthRoutes
from brickless.hub.http.objects import BlobRoutes, ObjectRoutes
from brickless.hub.http.operations import OperationRoutes
from brickless.hub.http.organisations import OrganisationRoutes
from brickless.hub.http.ownership import OwnershipRoutes
from brickless.hub.http.people import ChangeRoutes, ProfileRoutes
from brickless.hub.http.quick import QuickPolls
from brickless.hub.http.router import Route, Router, Service
from brickless.hub.http.tokens import TokenRoutes
from brickless.hub.http.trails import TrailRoutes
from brickless.hub.http.webhooks import WebhookRoutes
from brickless.hub.services.apps import Apps
from brickless.hub.services.audit import AuditLog
from brickless.hub.services.auth import Auth
from brickless.hub.services.changes import Changes
from brickless.hub.services.dashboard import Dashboard
from brickless.hub.services.devices import Devices
from brickless.hub.services.exports import Exports
from brickless.hub.services.fleet_driver import IDLE_MS, FleetDriver
from brickless.hub.services.fleets import Fleets
from brickless.hub.services.limits import Limiter
from brickless.hub.services.logs import Logs
from brickless.hub.services.mail import Post
from brickless.hub.services.metadata import Metadata
from brickless.hub.services.oauth import OAuth
from brickless.hub.services.objects import Objects
from brickless.hub.services.oidc import Oidc
from brickless.hub.services.organisations import Organisations
from brickless.hub.services.overview import Overviews
from brickless.hub.services.ownership import Ownership
from brickless.hub.services.parts import Parts
from brickless.hub.services.polls import PollCache
from brickless.hub.services.presence import Presence
from brickless.hub.services.profiles import Profiles
from brickless.hub.services.rollouts import Rollouts
from brickless.hub.services.subscriptions import Subscriptions
from brickless.hub.services.tokens import ApiTokens
from brickless.hub.services.traffic import Traffic
from brickless.hub.services.trails import Trails
from brickless.hub.services.upkeep import Collected, Upkeep
from brickless.hub.services.webhooks import Webhooks
from brickless.hub.web.api_pages import ApiPages
from brickless.hub.web.grant_pages import GrantPages
from brickless.hub.web.oidc_pages import OidcPages
from brickless.hub.web.pages import Pages
from brickless.hub.web.use_cases import UseCases
from brickless.store.lock import LockedError, lock

if TYPE_CHECKING:
    from brickless.hub.adapters.traces import Traces

log = logging.getLogger("brickless.hub")

_PRESENCE_INTERVAL_S = 10
_COLLECT_INTERVAL_S = 6 * 3600
_GRACE_S = 10
_DELIVERY_RETRY_S = 5.0
DEMO_NICKS = ("admin", "user1", "user2", "user3", "examples")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides; everything has a default that works on one machine.

    `database_url` is a SQLAlchemy URL (`postgresql+asyncpg://...`); None is SQLite in `data_dir`. `objects_url` names a
    bucket (`s3://...`); None is a folder in `data_dir`, as are the keys without `keys_dir`. `public_url` is where
    clients reach the hub; None takes what each client called, which suits one hub behind several addresses.
    """

    data_dir: str
    database_url: str | None = None
    objects_url: str | None = None
    keys_dir: str | None = None
    public_url: str | None = None
    demo_accounts: bool = False
    mail_sender: str = "hub@localhost"
    mail_url: str | None = None
    mail_ca: str = ""
    trusted_proxies: str = ""
    #: Who issues the certificates with which devices log in, PEM; nobody without it.
    device_roots: bytes = b""
    traces_url: str | None = None
    traces_share: float = 1.0
    policy: Policy = field(default_factory=Policy)
    oidc: Provider | None = None


class Hub:
    """A hub without its sockets: `start`, use `application` as an ASGI app, `stop`."""

    def __init__(self, settings: Settings) -> None:
        os.makedirs(settings.data_dir, mode=0o700, exist_ok=True)
        self.settings = settings
        self.database = SqlDatabase(settings.database_url or _sqlite_url(settings.data_dir))
        self.blobs = _blobs(settings)
        self.events = LocalEvents()
        self.traces = self._make_traces()
        self.database.on_events = self.events.happened
        self.parts = self._make_parts()
        self.auth = Auth(self.parts)
        self.oauth = OAuth(self.parts)
        self.organisations = Organisations(self.parts)
        self.oidc = HttpProvider(settings.oidc) if settings.oidc else None
        self.courier = HttpCourier(settings.policy.webhook_networks)
        self.webhooks = Webhooks(self.parts, self.courier)
        self.devices = Devices(self.parts)
        self.metadata = Metadata(self.parts)
        self.trails = Trails(self.parts)
        self.objects = Objects(self.parts, self.trails)
        self.logs = Logs(self.parts)
        self.replicas = None if self.database.is_sqlite else Replicas(self.database.url, self.parts.polls, self.events)
        self.upkeep = Upkeep(self.parts)
        self.fleet_driver = FleetDriver(self.parts, offset_of, holder=self.parts.entropy.record_id())
        self.fleets = Fleets(self.parts, self.trails)
        self.rollouts = Rollouts(self.parts, self.fleet_driver.wake)
        self.dashboard = Dashboard(self.parts, self.auth)
        self.application = self._make_application()
        self._keepers: list[asyncio.Task[None]] = []

    def _make_traces(self) -> Traces | None:
        if self.settings.traces_url is None:
            return None
        from brickless.hub.adapters.traces import Traces  # loaded only where it is wanted

        traces = Traces(self.settings.traces_url, share=self.settings.traces_share)
        for engine in self.database.engines:
            traces.watch(engine)
        return traces

    def _make_parts(self) -> Parts:
        settings, policy, clock, entropy = self.settings, self.settings.policy, SystemClock(), SystemEntropy()
        self.keys = keys = load(settings.keys_dir or os.path.join(settings.data_dir, "keys"))

        def limiter(per_minute: int, what: str) -> Limiter:
            return Limiter(clock, per_minute, what, enabled=policy.rate_limits)

        return Parts(
            db=self.database,
            blobs=self.blobs,
            clock=clock,
            entropy=entropy,
            secrets=HashedSecrets(keys.pepper),
            signer=JwtSigner(keys),
            events=self.events,
            post=Post(self.database, clock, entropy, _mailer(settings)),
            polls=PollCache(),
            presence=Presence(self.database, clock),
            traffic=Traffic(self.database, clock),
            logins=limiter(policy.failed_logins_per_minute, "failed logins"),
            claims=limiter(policy.failed_claims_per_minute, "failed claims"),
            registrations=limiter(policy.registrations_per_minute, "registrations"),
            policy=policy,
        )

    def _make_application(self) -> Application:
        routes: list[Service] = []

        def base_url(request: Request) -> str:
            return application.base_url(request)

        oauth = OAuthRoutes(self.oauth, self.auth, base_url)
        ownership = OwnershipRoutes(Ownership(self.parts, X509Certificates(), self.settings.device_roots))
        auth = AuthRoutes(self.auth, base_url, (*oauth.routes(), *ownership.of_auth()))
        trails = TrailRoutes(self.parts, self.trails, self.objects, base_url, auth.auth_status)
        named = Service(
            "/",
            (
                Route("GET", "{user}/{device}/.pvrremote", trails.named_remote, summary="A trail by names"),
                Route("GET", "{user}/{device}/{rev}/.pvrremote", trails.named_remote, summary="A revision by names"),
            ),
            canonical=True,
        )
        page, *page_parts = self._pages(base_url)

        def by_name(request: Request) -> Service | None:
            if request.path == "/":
                return page
            return named if request.path.endswith("/.pvrremote") else None

        router = Router(routes, by_name)
        metrics = Metrics(self._gauges())
        self.quick = self._make_quick(metrics)
        application = Application(
            router,
            self.auth,
            self.organisations,
            self.parts.presence,
            metrics,
            public_url=self.settings.public_url,
            tracer=self.traces,
            quick=self.quick,
        )
        router.add(auth.service())
        devices = DeviceRoutes(self.devices, self.metadata, application.optional_identity, auth.auth_status, ownership)
        router.add(devices.service())
        router.add(trails.service())
        router.add(ObjectRoutes(self.objects, base_url, auth.auth_status).service())
        router.add(ExportRoutes(Exports(self.parts), application.optional_identity).service())
        router.add(LogRoutes(self.parts, self.logs, self.events).service())
        router.add(ProfileRoutes(Profiles(self.parts), self.metadata).service())
        changes = ChangeRoutes(Changes(self.parts), base_url, auth.auth_status)
        shown = ApiPages(self.site, router).routes()
        operations = OperationRoutes(self.parts, metrics, router, self.keys.operator, shown)
        for service in (
            *BlobRoutes(self.objects).services(),
            *operations.services(),
            *InternalRoutes(self.parts, operations).services(),
            *self._for_accounts(),
            *changes.services(),
            *self._for_operators(base_url),
            *page_parts,
        ):
            router.add(service)
        return application

    def _make_quick(self, metrics: Metrics) -> QuickPolls | None:
        # Traced requests are spans, and a proxy's headers name the caller: then every request goes the ordinary way.
        if self.traces is not None or self.settings.trusted_proxies:
            return None
        return QuickPolls(self.parts.polls, self.parts.presence, metrics)

    def _for_accounts(self) -> tuple[Service, ...]:
        return (
            TokenRoutes(ApiTokens(self.parts)).service(),
            AppRoutes(Apps(self.parts)).service(),
            SubscriptionRoutes(Subscriptions(self.parts)).service(),
        )

    def _for_operators(self, base_url: Callable[[Request], str]) -> tuple[Service, ...]:
        return (
            AuditRoutes(AuditLog(self.parts)).service(),
            WebhookRoutes(self.webhooks).service(),
            EventRoutes(self.parts, self.events).service(),
            OrganisationRoutes(self.organisations, self.auth, base_url).service(),
            fleet_service(FleetRoutes(self.fleets), RolloutRoutes(self.rollouts)),
        )

    def _pages(self, base_url: Callable[[Request], str]) -> tuple[Service, ...]:
        provider = self.settings.oidc
        pages = Pages(self.dashboard, self._use_cases(), self.events, base_url, oidc=provider.name if provider else "")
        self.site = pages.site
        grants = GrantPages(pages.site, self.oauth, self.auth)
        more = grants.routes()
        if provider is not None and self.oidc is not None:
            oidc = Oidc(self.parts, self.auth, provider, self.oidc)
            more += OidcPages(pages.site, oidc, base_url).routes()
        return (*pages.services(*more), *grants.services())

    def _use_cases(self) -> UseCases:
        return UseCases(
            devices=self.devices,
            trails=self.trails,
            metadata=self.metadata,
            logs=self.logs,
            fleets=self.fleets,
            rollouts=self.rollouts,
            organisations=self.organisations,
            webhooks=self.webhooks,
            audit=AuditLog(self.parts),
            tokens=ApiTokens(self.parts),
            overviews=Overviews(self.parts),
            presence=self.parts.presence,
        )

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        polls, presence, events, post = self.parts.polls, self.parts.presence, self.events, self.parts.post
        return {
            "hub_poll_cache_hits_total": ("Idle polls answered from memory.", lambda: polls.hits),
            "hub_poll_cache_misses_total": ("Polls that asked the database.", lambda: polls.misses),
            "hub_devices_seen": ("Devices that called since the last save.", presence.unsaved),
            "hub_mails_sent_total": ("Mails that a server, or the folder, took.", lambda: post.sent),
            "hub_mails_failed_total": ("Attempts to send a mail that did not work.", lambda: post.failed),
            "hub_mails_given_up_total": ("Mails that no attempt could send.", lambda: post.given_up),
            "hub_dashboards": ("Open dashboards.", events.subscribers),
        }

    async def start(self) -> None:
        """Bring the schema up to date, sweep what a crash left, begin to keep presence."""
        await self.database.start()
        await asyncio.to_thread(self.blobs.start)
        if self.settings.demo_accounts:
            await self._make_demo_accounts()
        if self.replicas is not None:
            await self.replicas.start()
        keepers = (self._keep_presence, self._keep_tidy, self._drive, self.parts.post.keep, self._keep_delivering)
        self._keepers = [asyncio.create_task(keep()) for keep in keepers]

    async def _drive(self) -> None:
        """Move rollouts on; a failure is said and tried again, because what is known lies in the database."""
        while True:
            try:
                until_ms = await self.fleet_driver.tick()
            except Exception:
                log.exception("rollouts could not be moved on; it is tried again")
                until_ms = self.parts.clock.now_ms() + IDLE_MS
            await self.fleet_driver.pause(until_ms)

    async def _make_demo_accounts(self) -> None:
        for nick in DEMO_NICKS:
            try:
                await self.auth.create_account(
                    f"no-reply-{nick}@accounts.pantahub.com",
                    nick,
                    nick,
                    role="admin" if nick == "admin" else "user",
                    demo=True,
                )
            except Precondition:
                continue  # there since an earlier start

    async def _keep_presence(self) -> None:
        while True:
            await asyncio.sleep(_PRESENCE_INTERVAL_S)
            try:
                await self.parts.presence.save()
                await self.parts.traffic.save()
            except Exception:
                log.exception("last-seen times and traffic could not be written; they are kept for the next attempt")

    async def collect_garbage(self, *, minutes: float | None = None) -> Collected:
        """One collection, never during a backup. `minutes` takes the place of the days that things are kept."""
        limits = {} if minutes is None else {"unclaimed_ms": int(minutes * 60_000), "garbage_ms": int(minutes * 60_000)}
        grace = {} if minutes is None else {"grace_s": int(minutes * 60)}
        with lock(upkeep_lock(self.settings.data_dir), timeout_s=0):
            return await self.upkeep.collect(**limits, **grace)

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(_COLLECT_INTERVAL_S)
            try:
                log.info("garbage", extra=(await self.collect_garbage())._asdict())
            except LockedError:
                log.info("no garbage collection: a backup or another replica's collection runs")
            except Exception:
                log.exception("the garbage collection failed; it is tried again later")

    async def _keep_delivering(self) -> None:
        with self.events.following(EVERYBODY) as waiting:
            while True:
                waiting.clear()
                try:
                    wait_s = await self.webhooks.work()
                except Exception:
                    log.exception("webhooks could not be delivered; they are kept for the next attempt")
                    wait_s = _DELIVERY_RETRY_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiting.wait(), wait_s)

    def stopping(self) -> None:
        """Streams end, and every answer goes the ordinary way, which can say that the connection closes."""
        self.events.close()
        if self.quick is not None:
            self.quick.stopped = True

    async def stop(self) -> None:
        """Write what is only in memory and close the database."""
        for keeper in self._keepers:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        if self._keepers:
            await self.parts.presence.save()
            await self.parts.traffic.save()
        if self.replicas is not None:
            await self.replicas.stop()
        await self.courier.close()
        if self.oidc is not None:
            await self.oidc.close()
        await self.database.stop()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.stop)


def _sqlite_url(data_dir: str) -> str:
    return f"sqlite+aiosqlite:///{os.path.join(os.path.abspath(data_dir), 'hub.sqlite')}"


def _mailer(settings: Settings) -> FolderMailer | SmtpMailer:
    if settings.mail_url is None:
        return FolderMailer(os.path.join(settings.data_dir, "mail"), settings.mail_sender)
    return SmtpMailer(parse_server(settings.mail_url, settings.mail_ca), settings.mail_sender)


def _blobs(settings: Settings) -> FolderBlobs | S3Blobs:
    if settings.objects_url is None:
        return FolderBlobs(os.path.join(settings.data_dir, "objects"))
    return S3Blobs(parse_bucket(settings.objects_url))


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Hub]:
    """A started hub that is stopped at the end."""
    hub = Hub(settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def create_app(settings: Settings) -> Application:
    """The ASGI app alone, for tests and for other servers; whoever serves it runs `Hub.start` and `Hub.stop` around."""
    return Hub(settings).application


async def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 12365,
    tls: Tls | None = None,
    ready: Callable[[list[str]], None],
    inherited: Sequence[int] = (),
) -> list[int]:
    """Serve until a signal; see `adapters.server.serve_application`. Port 0 takes a free one.

    Raises UserError when an address cannot be bound or the TLS files cannot be read.
    """
    async with running(settings) as hub:
        return await serve_application(
            hub.application,
            host=host,
            port=port,
            tls=tls,
            ready=ready,
            stopping=hub.stopping,
            inherited=inherited,
            trusted_proxies=settings.trusted_proxies,
        )
