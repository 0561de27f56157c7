"""Use cases of third-party applications: registered, changed, logged in themselves (contract section 6.1)."""

from __future__ import annotations

from dataclasses import replace

from brickless.hub.domain import apps as rules
from brickless.hub.domain import prn
from brickless.hub.domain.apps import App, AppRequest, Scope
from brickless.hub.domain.errors import Conflict, Forbidden, LoginFailed, Malformed, NotFound
from brickless.hub.domain.values import CallerType, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

_SECRET_CHARS = 30
_MAX_EXPOSING = 500
_MAX_APPS = 1000


class Apps:
    """Applications of people."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def _person(caller: Identity) -> None:
        if caller.type != CallerType.USER or prn.is_anonymous(caller.prn):
            raise Forbidden("Only people register applications")

    async def create(self, caller: Identity, request: AppRequest) -> tuple[App, str]:
        """A new application and its secret, which is shown this once and which only confidential ones have."""
        self._person(caller)
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        nick = request.nick or parts.entropy.pet_name("_")
        slug = rules.slug(nick)
        if not slug or slug == "base":
            raise Malformed("An application's nick needs letters or digits, and is not 'base'")
        own_prn = prn.app(slug)
        secret, secret_hash = await self._secret(request.type)
        audit.named(app=own_prn)
        async with parts.db.write() as session:
            if await session.accounts.by_prn(caller.prn) is None:
                raise Forbidden("Only accounts register applications")
            if len(await session.apps.of(caller.prn)) >= _MAX_APPS:
                raise Conflict(f"An account has at most {_MAX_APPS} applications")
            made = App(
                id=parts.entropy.record_id(),
                prn=own_prn,
                nick=nick,
                owner=caller.prn,
                name=request.name,
                logo=request.logo,
                type=request.type,
                secret_hash=secret_hash,
                redirect_uris=request.redirect_uris,
                scopes=await self._usable(session, request.scopes, own_prn),
                exposed_scopes=_own(request.exposed_scopes, own_prn),
                created_ms=now_ms,
                modified_ms=now_ms,
            )
            if not await session.apps.add(made):
                raise Conflict("The nick of an application is unique, and this one is taken")
        return made, secret

    async def _secret(self, kind: str) -> tuple[str, str]:
        if kind != "confidential":
            return "", ""
        secret = self._parts.entropy.word(_SECRET_CHARS)
        return secret, await self._parts.secrets.hash_device_secret(secret, generated=True)

    @staticmethod
    async def _usable(session: Session, wanted: tuple[Scope, ...], own_prn: str) -> tuple[Scope, ...]:
        exposing = await session.apps.exposing(_MAX_EXPOSING)
        exposed = frozenset(scope.full for app in exposing for scope in app.exposed_scopes)
        return rules.usable(wanted, own_prn, exposed)

    async def of(self, caller: Identity, service: str) -> list[App]:
        """The caller's applications, or the one that `service` names, from anyone."""
        if service:
            return [await self.get(service)]
        async with self._parts.db.read() as session:
            return await session.apps.of(caller.prn)

    async def get(self, name: str) -> App:
        """The application with this id, PRN or nick."""
        async with self._parts.db.read() as session:
            return await _found(session, name)

    async def exposed(self) -> list[Scope]:
        """Scopes that applications offer."""
        async with self._parts.db.read() as session:
            return [scope for app in await session.apps.exposing(_MAX_EXPOSING) for scope in app.exposed_scopes]

    async def update(self, caller: Identity, name: str, request: AppRequest) -> tuple[App, str]:
        """Replace what was registered; PRN and nick stay. A secret is made when there was none and one is needed."""
        self._person(caller)
        async with self._parts.db.write() as session:
            app = await self._own(session, caller, name)
            secret, secret_hash = "", app.secret_hash if request.type == "confidential" else ""
            if request.type == "confidential" and not app.secret_hash:
                secret, secret_hash = await self._secret(request.type)
            app = replace(
                app,
                type=request.type,
                name=request.name,
                logo=request.logo,
                secret_hash=secret_hash,
                redirect_uris=request.redirect_uris,
                scopes=await self._usable(session, request.scopes, app.prn),
                exposed_scopes=_own(request.exposed_scopes, app.prn),
                modified_ms=self._parts.clock.now_ms(),
            )
            await session.apps.update(app)
        return app, secret

    async def delete(self, caller: Identity, name: str) -> App:
        """Stop an application from working: its logins, its codes, and the refreshing of what it was granted."""
        self._person(caller)
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            app = replace(await self._own(session, caller, name), deleted_ms=now_ms, modified_ms=now_ms)
            await session.apps.update(app)
        return app

    @staticmethod
    async def _own(session: Session, caller: Identity, name: str) -> App:
        app = await _found(session, name)
        if app.owner != caller.prn:
            raise NotFound("There is no such application in this account")
        return app

    async def claims(self, name: str, secret: str) -> dict[str, object]:
        """The claims of an application's own login. It may exchange codes; no scope of anybody's is in its token."""
        async with self._parts.db.read() as session:
            app = await session.apps.find(name)
        if not await self._parts.secrets.verify(secret, app.secret_hash if app is not None else "") or app is None:
            raise LoginFailed
        return {
            "id": app.prn,
            "nick": app.nick,
            "prn": app.prn,
            "type": CallerType.SERVICE.value,
            "roles": "service",
            "scopes": "",
        }


def _own(exposed: tuple[Scope, ...], own_prn: str) -> tuple[Scope, ...]:
    return tuple(scope._replace(service=own_prn) for scope in exposed)


async def _found(session: Session, name: str) -> App:
    app = await session.apps.find(name)
    if app is None:
        raise NotFound("There is no such application")
    return app
