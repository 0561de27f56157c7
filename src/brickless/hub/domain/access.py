"""What the members of an organisation may do in its name: roles, permissions, and the permission that each route needs.

One table, asked before any handler runs. A route that has no row is refused to everybody who acts for an organisation,
so a route that somebody forgets is closed, not open (tests/contract/test_hub_roles.py tries every cell). Whoever acts
for himself is the owner of what is his and needs no row. Pure.
"""

from __future__ import annotations

from enum import StrEnum

from brickless.hub.domain.errors import Forbidden, Malformed
from brickless.hub.domain.values import Identity


class Role(StrEnum):
    """What a member is in an organisation."""

    OWNER = "owner"
    OPERATOR = "operator"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    INSTALLER = "device-installer"


class Permission(StrEnum):
    """What a route does, as far as roles care."""

    ANY = "any"  # tells only who the caller is, or what is public
    READ = "read"  # see everything but secrets
    INSTALL = "install"  # claim devices, and see that they are there
    DEPLOY = "deploy"  # post revisions to single devices
    DEVELOP = "develop"  # objects, releases
    OPERATE = "operate"  # metadata, labels, rollouts
    OWN = "own"  # members, tokens, webhooks, what cannot be undone
    SELF = "self"  # a person's own things; never in an organisation's name


_READ = frozenset({Permission.ANY, Permission.READ})
GRANTS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission) - {Permission.SELF},
    Role.OPERATOR: _READ | {Permission.INSTALL, Permission.DEPLOY, Permission.OPERATE},
    Role.DEVELOPER: _READ | {Permission.DEPLOY, Permission.DEVELOP},
    Role.VIEWER: _READ,
    Role.INSTALLER: frozenset({Permission.ANY, Permission.INSTALL}),
}

#: Routes that several permissions open: any of them is enough.
_SEEN = (Permission.READ, Permission.INSTALL)
_ANY, _READS = (Permission.ANY,), (Permission.READ,)
_INSTALL, _DEPLOY, _DEVELOP = (Permission.INSTALL,), (Permission.DEPLOY,), (Permission.DEVELOP,)
_OPERATE, _OWN, _SELF = (Permission.OPERATE,), (Permission.OWN,), (Permission.SELF,)

#: `METHOD path` as the OpenAPI document writes it, and what opens it.
ROUTES: dict[str, tuple[Permission, ...]] = {
    "GET /auth/login": _ANY,
    "GET /auth/auth_status": _ANY,
    "GET /auth/": _ANY,
    "GET /auth/accounts": _ANY,
    "GET /devices/auth_status": _ANY,
    "GET /trails/auth_status": _ANY,
    "GET /objects/auth_status": _ANY,
    "GET /dash/auth_status": _ANY,
    "GET /dash/": _READS,
    "POST /devices/": _INSTALL,
    "GET /devices/": _SEEN,
    "GET /devices/{id}": _SEEN,
    "GET /devices/np/{user}/{device}": _SEEN,
    "PUT /devices/{id}": _INSTALL,
    "PATCH /devices/{id}": _INSTALL,
    "DELETE /devices/{id}": _OWN,
    "PUT /devices/{id}/public": _OWN,
    "DELETE /devices/{id}/public": _OWN,
    "POST /devices/tokens": _OWN,
    "GET /devices/tokens": _OWN,
    "GET /devices/tokens/{id}": _OWN,
    "DELETE /devices/tokens/{id}": _OWN,
    "POST /devices/{id}/ownership/validate": _INSTALL,
    "GET /devices/{id}/user-meta": _READS,
    "PUT /devices/{id}/user-meta": _OPERATE,
    "PATCH /devices/{id}/user-meta": _OPERATE,
    "GET /trails/": _READS,
    "GET /trails/summary": _SEEN,
    "GET /trails/{id}": _READS,
    "GET /trails/{id}/summary": _SEEN,
    "GET /trails/{id}/.pvrremote": _READS,
    "GET /trails/{id}/steps": _READS,
    "POST /trails/{id}/steps": _DEPLOY,
    "GET /trails/{id}/steps/{rev}": _READS,
    "GET /trails/{id}/steps/{rev}/.pvrremote": _READS,
    "GET /trails/{id}/steps/{rev}/state": _READS,
    "PUT /trails/{id}/steps/{rev}/state": _DEPLOY,
    "GET /trails/{id}/steps/{rev}/meta": _READS,
    "PUT /trails/{id}/steps/{rev}/meta": _DEPLOY,
    "GET /trails/{id}/steps/{rev}/objects": _READS,
    "POST /trails/{id}/steps/{rev}/objects": _DEPLOY,
    "GET /trails/{id}/steps/{rev}/objects/{sha}": _READS,
    "GET /trails/{id}/steps/{rev}/objects/{sha}/blob": _READS,
    "PUT /trails/{id}/steps/{rev}/cancel": _OPERATE,
    "PUT /trails/{id}/steps/{rev}/wontgo": _OPERATE,
    "GET /{user}/{device}/.pvrremote": _READS,
    "GET /{user}/{device}/{rev}/.pvrremote": _READS,
    "GET /objects/": _READS,
    "POST /objects/": _DEVELOP,
    "GET /objects/{sha}": _READS,
    "GET /objects/{sha}/blob": _READS,
    "PUT /objects/{sha}": _DEVELOP,
    "DELETE /objects/{sha}": _DEVELOP,
    "GET /exports/{owner}/{device}/{rev}/{filename}": _READS,
    "GET /logs/": _READS,
    "GET /logs/live": _READS,
    "GET /logs/cursor": _READS,
    "POST /logs/cursor": _READS,
    "GET /profiles/": _READS,
    "GET /profiles/{nick}": _READS,
    "PUT /profiles/": _OWN,
    "GET /profiles/config/meta": _READS,
    "PUT /profiles/config/meta": _OPERATE,
    "POST /tokens/": _OWN,
    "GET /tokens/": _OWN,
    "GET /tokens/{id}": _OWN,
    "DELETE /tokens/{id}": _OWN,
    "GET /changes/devices": _SEEN,
    "GET /changes/trails": _READS,
    "GET /changes/steps": _READS,
    "GET /fleets/devices": _SEEN,
    "PATCH /fleets/devices": _OPERATE,
    "GET /fleets/devices/{id}/labels": _SEEN,
    "PATCH /fleets/devices/{id}/labels": _OPERATE,
    "GET /fleets/types": _SEEN,
    "PUT /fleets/types/{name}": _DEVELOP,
    "DELETE /fleets/types/{name}": _DEVELOP,
    "GET /fleets/releases": _READS,
    "POST /fleets/releases": _DEVELOP,
    "GET /fleets/releases/{release}": _READS,
    "DELETE /fleets/releases/{release}": _DEVELOP,
    "GET /fleets/rollouts": _READS,
    "POST /fleets/rollouts": _OPERATE,
    "POST /fleets/preview": _READS,
    "GET /fleets/rollouts/{rollout}": _READS,
    "GET /fleets/rollouts/{rollout}/devices": _READS,
    "GET /fleets/devices/{id}/rollouts": _READS,
    "POST /fleets/rollouts/{rollout}/pause": _OPERATE,
    "POST /fleets/rollouts/{rollout}/resume": _OPERATE,
    "POST /fleets/rollouts/{rollout}/abort": _OPERATE,
    "POST /fleets/rollouts/{rollout}/finish": _OPERATE,
    "POST /fleets/rollouts/{rollout}/rollback": _OPERATE,
    "POST /orgs/": _SELF,
    "GET /orgs/": _SELF,
    "POST /orgs/accept": _SELF,
    "POST /orgs/{org}/token": _SELF,
    "GET /orgs/{org}": _ANY,
    "DELETE /orgs/{org}": _OWN,
    "GET /orgs/{org}/members": _READS,
    "PUT /orgs/{org}/members/{member}": _OWN,
    "DELETE /orgs/{org}/members/{member}": _ANY,
    "GET /orgs/{org}/invitations": _OWN,
    "POST /orgs/{org}/invitations": _OWN,
    "DELETE /orgs/{org}/invitations/{id}": _OWN,
    "PUT /orgs/{org}/devices/{id}": _SELF,
    "POST /apps/": _OWN,
    "GET /apps/": _READS,
    "GET /apps/{app}": _READS,
    "PUT /apps/{app}": _OWN,
    "DELETE /apps/{app}": _OWN,
    "POST /auth/authorize": _SELF,
    "POST /auth/code": _SELF,
    "GET /subscriptions/": _READS,
    "GET /audit/": _READS,
    "GET /audit/verify": _READS,
    "GET /events/": _READS,
    "GET /webhooks/": _OWN,
    "POST /webhooks/": _OWN,
    "GET /webhooks/{id}": _OWN,
    "PUT /webhooks/{id}": _OWN,
    "DELETE /webhooks/{id}": _OWN,
    "POST /webhooks/{id}/ping": _OWN,
    "GET /webhooks/{id}/deliveries": _OWN,
    "POST /webhooks/{id}/deliveries/{delivery}/retry": _OWN,
}


def role(text: str) -> Role:
    """The role of this name. Raises Malformed."""
    try:
        return Role(text)
    except ValueError as error:
        raise Malformed(f"{text[:40]!r} is no role; the roles are {', '.join(Role)}") from error


def granted(member_role: str, permissions: tuple[Permission, ...]) -> bool:
    """Whether a member of this role has one of the permissions."""
    return not GRANTS[Role(member_role)].isdisjoint(permissions)


def allows(caller: Identity, *permissions: Permission) -> bool:
    """Whether the caller may do what one of the permissions opens; for himself he may do everything."""
    return not caller.actor or granted(caller.member_role, permissions)


def require(caller: Identity, *permissions: Permission) -> None:
    """Raise Forbidden when `allows` says no."""
    if not allows(caller, *permissions):
        raise Forbidden(f"The role {caller.member_role!r} does not allow this in the organisation {caller.nick}")


def require_route(caller: Identity, key: str) -> None:
    """Raise Forbidden when the caller acts for an organisation and his role does not open the route `key`."""
    require(caller, *ROUTES.get(key, ()))
