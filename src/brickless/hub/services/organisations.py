"""Use cases of organisations: accounts without a login of their own, in whose name members act by their role.

A member acts with a token whose `prn` is the organisation's: everything else in the hub sees an account like any other.
"""

from __future__ import annotations

import re
from dataclasses import replace

from brickless.hub.domain import access, prn
from brickless.hub.domain.access import Permission, Role
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound
from brickless.hub.domain.values import Account, CallerType, Device, Identity, Invitation, Membership
from brickless.hub.services import audit
from brickless.hub.services.auth import RESERVED_NICKS
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

_NICK = re.compile(r"[a-zA-Z0-9_\-]{3,23}\Z")
_EMAIL = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9.-]{1,190}\Z")
_INVITATION_LIFE_MS = 7 * 24 * 3600 * 1000
MAX_OPEN_INVITATIONS = 100


class Organisations:
    """Organisations, their members, and the devices that are given to them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def current(self, caller: Identity) -> Identity:
        """The caller with the role that he has now. Raises Forbidden when he is no member any more."""
        if not caller.actor:
            return caller
        async with self._parts.db.read() as session:
            role = await session.organisations.role(caller.prn, caller.actor)
        if role is None:
            raise Forbidden("You do not belong to this organisation any more")
        return replace(caller, member_role=role)

    async def member(self, person: Account, org: str) -> Membership | None:
        """The membership of a person in the organisation of this PRN."""
        async with self._parts.db.read() as session:
            found = await session.organisations.of(person.prn)
        return next((membership for membership in found if membership.org == org), None)

    async def create(self, caller: Identity, nick: str) -> Account:
        """A new organisation with the caller as its owner. Raises Forbidden, Malformed, Conflict (nick taken)."""
        if not _NICK.match(nick) or nick.lower() in RESERVED_NICKS:
            raise Malformed(
                "An organisation's nick has 3 to 23 letters, digits, '_' and '-', and is none of the hub's own words"
            )
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        record_id = parts.entropy.record_id()
        org = Account(
            id=record_id,
            prn=prn.account(record_id),
            nick=nick,
            email=f"{record_id}@organisations.invalid",  # never mailed to; addresses are unique
            type=CallerType.ORG.value,
            role="org",
            password_hash="",  # matches nothing: nobody logs in as the organisation itself
            challenge="",
            meta="{}",
            profile="{}",
            created_ms=now_ms,
            modified_ms=now_ms,
        )
        audit.belongs_to(org.prn)
        audit.named(org=org.nick)
        async with parts.db.write() as session:
            await self._person(session, caller)
            if not await session.accounts.add(org):
                raise Conflict("The nick is taken")
            await session.organisations.set_role(org.prn, caller.prn, Role.OWNER, now_ms)
        return org

    @staticmethod
    async def _person(session: Session, caller: Identity) -> Account:
        account = await session.accounts.by_prn(caller.prn)
        if account is None or caller.actor or caller.type != CallerType.USER or account.type == CallerType.ORG:
            raise Forbidden("Only people with an account of their own do this")
        return account

    async def mine(self, caller: Identity) -> list[Membership]:
        """The caller's memberships."""
        async with self._parts.db.read() as session:
            return await session.organisations.of(caller.person)

    async def _org(self, session: Session, caller: Identity, nick: str, *needed: Permission) -> tuple[Account, Role]:
        """The organisation and the caller's role in it.

        Raises NotFound for outsiders, and for somebody who acts for another organisation; Forbidden for a lesser role.
        """
        org = await session.accounts.by_nick(nick)
        if org is None or org.type != CallerType.ORG or (caller.actor and caller.prn != org.prn):
            raise NotFound("There is no such organisation")
        role = await session.organisations.role(org.prn, caller.person)
        if role is None:
            raise NotFound("There is no such organisation")
        if needed and not access.granted(role, needed):
            raise Forbidden(f"The role {role!r} does not allow this in the organisation {org.nick}")
        audit.belongs_to(org.prn)
        return org, Role(role)

    async def get(self, caller: Identity, nick: str) -> tuple[Account, Role]:
        """The organisation, and what the caller is in it."""
        async with self._parts.db.read() as session:
            return await self._org(session, caller, nick)

    async def dissolve(self, caller: Identity, nick: str) -> None:
        """Remove an organisation that owns no device. Raises Conflict while it does."""
        async with self._parts.db.write() as session:
            org, _ = await self._org(session, caller, nick, Permission.OWN)
            audit.belongs_to(caller.person)  # nobody reads the log of what is gone
            if await session.devices.ids_of(org.prn):
                raise Conflict("The organisation still owns devices; delete them or give them away first")
            await session.organisations.dissolve(org.prn)

    async def members(self, caller: Identity, nick: str) -> list[Membership]:
        """Members by nick."""
        async with self._parts.db.read() as session:
            org, _ = await self._org(session, caller, nick, Permission.READ)
            return await session.organisations.members(org.prn)

    async def set_role(self, caller: Identity, nick: str, member: str, role: str) -> None:
        """Change a member's role. Raises NotFound without such a member, Conflict for the last owner's."""
        wanted = access.role(role)
        async with self._parts.db.write() as session:
            org, _ = await self._org(session, caller, nick, Permission.OWN)
            membership = await self._membership(session, org, member)
            audit.named(role=wanted)
            if wanted != Role.OWNER:
                await self._keep_an_owner(session, org, membership)
            await session.organisations.set_role(org.prn, membership.account, wanted, self._parts.clock.now_ms())

    @staticmethod
    async def _membership(session: Session, org: Account, member: str) -> Membership:
        found = await session.organisations.members(org.prn)
        for membership in found:
            if membership.account_nick.lower() == member.lower():
                return membership
        raise NotFound("There is no such member")

    @staticmethod
    async def _keep_an_owner(session: Session, org: Account, leaving: Membership) -> None:
        members = await session.organisations.members(org.prn)
        owners = {member.account for member in members if member.role == Role.OWNER}
        if owners == {leaving.account}:
            raise Conflict("An organisation keeps at least one owner")

    async def remove(self, caller: Identity, nick: str, member: str) -> None:
        """End a membership: an owner ends anybody's, everybody his own."""
        async with self._parts.db.write() as session:
            org, role = await self._org(session, caller, nick)
            own = await session.accounts.by_prn(caller.person)
            if role != Role.OWNER and (own is None or own.nick.lower() != member.lower()):
                raise Forbidden(f"The role {role!r} does not allow this in the organisation {org.nick}")
            membership = await self._membership(session, org, member)
            await self._keep_an_owner(session, org, membership)
            await session.organisations.remove(org.prn, membership.account)

    async def invite(
        self, caller: Identity, nick: str, email: str, role: str, *, accept_url: str
    ) -> tuple[Invitation, str]:
        """An offer of a role, mailed to an address; its token is shown this once to whoever invites, too."""
        parts, now_ms, wanted = self._parts, self._parts.clock.now_ms(), access.role(role)
        if not _EMAIL.match(email):
            raise Malformed("This is not an e-mail address")
        token = parts.entropy.token()
        async with parts.db.write() as session:
            org, _ = await self._org(session, caller, nick, Permission.OWN)
            if len(await session.organisations.invitations(org.prn)) >= MAX_OPEN_INVITATIONS:
                raise Conflict(f"{MAX_OPEN_INVITATIONS} invitations are open; revoke some first")
            invitation = Invitation(
                id=parts.entropy.record_id(),
                org=org.prn,
                email=email,
                role=wanted,
                token_hash=parts.secrets.hash_token(token),
                inviter=caller.person,
                created_ms=now_ms,
                expires_ms=now_ms + _INVITATION_LIFE_MS,
            )
            audit.named(id=invitation.id, email=email, role=wanted)
            await session.organisations.invite(invitation)
            link = f"{accept_url}#{token}"
            text = f"You are invited to the organisation {org.nick} as {wanted}.\n\nOpen this address:\n\n{link}\n"
            await parts.post.post(session, email, f"Invitation to {org.nick}", text)
        await parts.post.hurry()
        return invitation, token

    async def invitations(self, caller: Identity, nick: str) -> list[Invitation]:
        """Open invitations."""
        async with self._parts.db.read() as session:
            org, _ = await self._org(session, caller, nick, Permission.OWN)
            return await session.organisations.invitations(org.prn)

    async def revoke(self, caller: Identity, nick: str, record_id: str) -> None:
        """Withdraw an invitation."""
        async with self._parts.db.write() as session:
            org, _ = await self._org(session, caller, nick, Permission.OWN)
            if not await session.organisations.revoke(org.prn, record_id):
                raise NotFound("There is no such invitation")

    async def accept(self, caller: Identity, token: str) -> Membership:
        """Become what the invitation says. Raises NotFound for a token that is wrong, used or over."""
        parts, now_ms = self._parts, self._parts.clock.now_ms()
        async with parts.db.write() as session:
            person = await self._person(session, caller)
            invitation = await session.organisations.take_invitation(parts.secrets.hash_token(token.strip()))
            if invitation is None or invitation.expires_ms <= now_ms:
                raise NotFound("The invitation is wrong, used or over")
            if await session.organisations.role(invitation.org, person.prn) is not None:
                raise Conflict("You are a member of this organisation already")
            audit.belongs_to(invitation.org)
            audit.named(member=person.nick, role=invitation.role)
            await session.organisations.set_role(invitation.org, person.prn, invitation.role, now_ms)
            found = await session.organisations.of(person.prn)
        return next(membership for membership in found if membership.org == invitation.org)

    async def give(self, caller: Identity, nick: str, device_id: str) -> Device:
        """Give one's own device to an organisation in which one may install devices. Its history goes with it."""
        parts = self._parts
        async with parts.db.write() as session:
            await self._person(session, caller)
            org, _ = await self._org(session, caller, nick, Permission.INSTALL)
            device = await session.devices.get(prn.require_id(device_id))
            if device is None:
                raise NotFound("There is no such device")
            if device.owner != caller.prn:
                raise Forbidden("This device belongs to somebody else")
            changed = replace(device, owner=org.prn, public=False, modified_ms=parts.clock.now_ms())
            if not await session.devices.update(changed):
                raise Conflict("The organisation has a device of this nick; rename one of them first")
            await session.organisations.hand_over(device_id, caller.prn, org.prn)
        parts.changed(caller.prn, device_id)
        parts.changed(org.prn, device_id)
        return changed
