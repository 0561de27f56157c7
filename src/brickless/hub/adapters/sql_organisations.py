"""Members and invitations of organisations in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.domain import prn
from brickless.hub.domain.access import Role
from brickless.hub.domain.values import Invitation, Membership

_INVITATION = ("id", "org", "email", "role", "token_hash", "inviter", "created_ms", "expires_ms")
_MEMBERS = tables.members.c


def _member(org: str, member: str) -> ColumnElement[bool]:
    return and_(_MEMBERS.org == org, _MEMBERS.account == member)


class SqlOrganisations:
    """`services.ports.Organisations` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def role(self, org: str, member: str) -> str | None:
        """See `services.ports.Organisations.role`."""
        token_id = prn.api_token_id(member)
        if token_id is None:
            found = await self._connection.scalar(select(_MEMBERS.role).where(_member(org, member)))
            return found if isinstance(found, str) else None
        tokens = tables.api_tokens.c
        own = select(tokens.id).where(tokens.id == token_id, tokens.owner == org)
        return Role.OWNER if await self._connection.scalar(own) is not None else None

    async def set_role(self, org: str, member: str, role: str, now_ms: int) -> None:
        """See `services.ports.Organisations.set_role`."""
        done = await self._connection.execute(update(tables.members).where(_member(org, member)).values(role=role))
        if done.rowcount == 0:
            row = {"org": org, "account": member, "role": role, "created_ms": now_ms}
            await self._connection.execute(insert(tables.members).values(**row))

    async def remove(self, org: str, member: str) -> bool:
        """See `services.ports.Organisations.remove`."""
        done = await self._connection.execute(delete(tables.members).where(_member(org, member)))
        return done.rowcount == 1

    async def _memberships(self, condition: ColumnElement[bool], order: str) -> list[Membership]:
        org, account = tables.accounts.alias("org"), tables.accounts.alias("account")
        joined = tables.members.join(org, org.c.prn == _MEMBERS.org).join(account, account.c.prn == _MEMBERS.account)
        columns = (
            _MEMBERS.org, org.c.nick.label("org_nick"), _MEMBERS.account, account.c.nick.label("account_nick"),
            _MEMBERS.role, _MEMBERS.created_ms,
        )  # fmt: skip
        rows = await self._connection.execute(select(*columns).select_from(joined).where(condition).order_by(order))
        return [Membership(**row) for row in rows.mappings()]

    async def members(self, org: str) -> list[Membership]:
        """See `services.ports.Organisations.members`."""
        return await self._memberships(_MEMBERS.org == org, "account_nick")

    async def of(self, member: str) -> list[Membership]:
        """See `services.ports.Organisations.of`."""
        return await self._memberships(_MEMBERS.account == member, "org_nick")

    async def invite(self, invitation: Invitation) -> None:
        """See `services.ports.Organisations.invite`."""
        row: dict[str, Any] = {name: getattr(invitation, name) for name in _INVITATION}
        await self._connection.execute(insert(tables.invitations).values(**row))

    async def invitations(self, org: str) -> list[Invitation]:
        """See `services.ports.Organisations.invitations`."""
        columns = tables.invitations.c
        statement = select(tables.invitations).where(columns.org == org).order_by(columns.created_ms.desc())
        return [Invitation(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def take_invitation(self, token_hash: str) -> Invitation | None:
        """See `services.ports.Organisations.take_invitation`."""
        statement = delete(tables.invitations).where(tables.invitations.c.token_hash == token_hash)
        row = (await self._connection.execute(statement.returning(tables.invitations))).mappings().first()
        return None if row is None else Invitation(**row)

    async def revoke(self, org: str, record_id: str) -> bool:
        """See `services.ports.Organisations.revoke`."""
        columns = tables.invitations.c
        done = await self._connection.execute(
            delete(tables.invitations).where(columns.org == org, columns.id == record_id)
        )
        return done.rowcount == 1

    async def dissolve(self, org: str) -> None:
        """See `services.ports.Organisations.dissolve`."""
        for table, column in (
            (tables.members, tables.members.c.org),
            (tables.invitations, tables.invitations.c.org),
            (tables.api_tokens, tables.api_tokens.c.owner),
            (tables.join_tokens, tables.join_tokens.c.owner),
            (tables.accounts, tables.accounts.c.prn),
        ):
            await self._connection.execute(delete(table).where(column == org))

    async def hand_over(self, device_id: str, old: str, new: str) -> None:
        """See `services.ports.Organisations.hand_over`."""
        named = select(tables.step_objects.c.sha).where(tables.step_objects.c.trail_id == device_id)
        theirs = select(tables.objects.c.sha).where(tables.objects.c.owner == new)
        columns = tables.objects.c
        rows = await self._connection.execute(
            select(tables.objects).where(columns.owner == old, columns.sha.in_(named), columns.sha.not_in(theirs))
        )
        copies = [{**row, "owner": new} for row in rows.mappings()]
        if copies:
            await self._connection.execute(insert(tables.objects), copies)
        steps, logs = tables.steps, tables.logs
        await self._connection.execute(update(steps).where(steps.c.trail_id == device_id).values(owner=new))
        await self._connection.execute(update(logs).where(logs.c.device == prn.device(device_id)).values(owner=new))
