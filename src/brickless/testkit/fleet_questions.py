"""The same questions to every database of fleets: SQLite, PostgreSQL and the one in memory must answer alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from brickless.hub.domain.fleet import NEVER_MS, DeviceType, Member, MemberState, Release, Rollout, RolloutState, Spec
from brickless.hub.domain.fleet_window import Window
from brickless.hub.domain.rollout_rule import Evidence, Verdict
from brickless.hub.domain.values import Device, Step, Trail
from brickless.hub.services.ports import Database

OWNER = "prn:::accounts:/" + "a" * 24
S = MemberState


def device_id(number: int) -> str:
    """A device's id."""
    return f"{number:024x}"


def rollout(number: int, **changes: Any) -> Rollout:
    """A rollout."""
    made = Rollout(
        f"{number:x}" * 24, OWNER, f"rollout {number}", "0" * 64, "site=lab", Spec(window=Window(60, 120), priority=2),
        RolloutState.RUNNING, "because", 1, 5, 3, 2, Evidence(1, 2, 3, 4.5), 6, 7, 100 + number, 9, 10, "me",
    )  # fmt: skip
    return replace(made, **changes)


def member(record: Rollout, device: int, **changes: Any) -> Member:
    """A device of a rollout."""
    made = Member(record.id, device_id(device), S.WAITING, "its turn", 0, 1000 - device, 500, 500, 1)
    return replace(made, **changes)


async def fill(db: Database) -> None:
    """Ten devices with trails and labels, two rollouts."""
    async with db.write() as session:
        for number in range(10):
            record = Device(device_id(number), f"d{number}", OWNER, "", "", False, "{}", "{}", number, number)
            await session.devices.add(record)
            await session.trails.add(Trail(record.id, OWNER, False, b"{}", "null", 0, 0))
            await session.trails.add_step(_step(record.id, 0, "DONE"), ())
        await session.devices.update(replace(record, garbage=True, modified_ms=50))
        await session.fleets.put_labels({device_id(1): {"b": "2", "a": "1"}, device_id(2): {"a": "é"}}, 20)
        await session.fleets.put_type(DeviceType(OWNER, "board", "old", 1, 1))
        await session.fleets.put_type(DeviceType(OWNER, "board", "new", 1, 2))
        for number in (1, 2, 3):
            await session.fleets.add_rollout(rollout(number, closed=number == 3))
        first, second, third = rollout(1), rollout(2), rollout(3)
        await session.members.add([member(first, number, wave=number % 3) for number in range(8)])
        await session.members.add([member(first, 0, reason="is there already")])
        await session.fleet_trails.add_steps([_step(device_id(n), 1, "NEW") for n in range(6)], {"1" * 64: ("f" * 64,)})
        await session.members.save(
            [
                member(
                    first, 1, state=S.OFFERED, number=0, rev=1, took_rev=1, base_rev=0, due_ms=40, seen_status="NEW"
                ),
                member(
                    first, 2, state=S.UPDATED, number=1, rev=1, took_rev=1, verdict=Verdict.UPDATED, due_ms=NEVER_MS
                ),
                member(first, 3, state=S.SILENT, number=2, rev=1, took_rev=1, verdict=Verdict.SILENT, due_ms=NEVER_MS),
                member(first, 4, number=3, wave=2, not_before_ms=30, undone=(("1" * 64, 7),)),
            ]
        )
        await session.members.add([member(second, 1), member(third, 2, state=S.WITHDRAWN, rev=1, due_ms=NEVER_MS)])
        await session.trails.set_progress(device_id(3), 1, status="DONE", progress="{}", progress_ms=9, modified_ms=9)
        await session.trails.set_progress(device_id(1), 1, status="QUEUED", progress="{}", progress_ms=8, modified_ms=8)


def _step(trail_id: str, rev: int, status: str) -> Step:
    return Step(
        trail_id,
        rev,
        OWNER,
        "somebody",
        "why",
        b'{"n":%d}' % rev,
        str(rev) * 64,
        "{}",
        "null",
        status,
        "{}",
        0,
        1,
        1,
        1,
    )


async def answers(db: Database) -> list[tuple[str, Any]]:
    """What the database says to everything."""
    first, ids = rollout(1).id, [device_id(number) for number in range(12)]
    found: list[tuple[str, Any]] = []
    async with db.read() as session:
        fleets, members, trails = session.fleets, session.members, session.fleet_trails

        def note(name: str, value: Any) -> None:
            found.append((name, value))

        note("labelled", await fleets.labelled(OWNER))
        note("labelled gone", await fleets.labelled(OWNER, since_ms=5, gone=True))
        note("labelled page", await fleets.labelled(OWNER, after="d3", limit=2))
        note("labels", await fleets.labels(ids))
        note("types", await fleets.types(OWNER))
        note("rollout", await fleets.rollout(first))
        note("named", await fleets.named(OWNER, "rollout 2"))
        note("rollouts", await fleets.rollouts(OWNER, offset=1, limit=5))
        note("open", await fleets.open_rollouts())
        note("get", await members.get(first, ids[:5]))
        note("page", await members.page(first, state=None, after=ids[2], limit=3))
        note("page state", await members.page(first, state=S.WAITING, after="", limit=30))
        note("of device", sorted(await members.of_device(ids[1]), key=repr))
        note("counts", await members.counts([first, rollout(2).id, "0" * 24]))
        note("news", await members.news(first, 10))
        note("news of closed", await members.news(None, 10))
        note("due", await members.due(first, 45, 10))
        note("next due", (await members.next_due_ms(first), await members.next_due_ms(rollout(3).id)))
        for wave, now_ms in ((0, 0), (1, 0), (2, 0), (2, 30)):
            note(f"queue {wave} {now_ms}", await members.queue(first, wave=wave, now_ms=now_ms, limit=4))
            note(f"turn {wave}", await members.next_turn_ms(first, wave=wave))
            note(f"open {wave}", await members.open_in(first, wave=wave))
        note("open in", (await members.open_in(first), await members.last_wave(first), await members.last_wave("x")))
        for frontier in range(4):
            note(f"verdicts {frontier}", await members.verdicts(first, frontier))
        note("in state", sorted(await members.in_state(first, [S.OFFERED, S.SILENT], 10), key=repr))
        note("took", sorted(await members.took(first, 0, 10), key=repr))
        for since_ms in (0, 1000):
            elsewhere = await members.elsewhere(rollout(2).id, ids, since_ms=since_ms)
            note(f"elsewhere {since_ms}", sorted(elsewhere, key=repr))
        note("heads", await trails.heads(ids))
        note("hashes", await trails.hashes([(ids[0], 0), (ids[0], 1), (ids[7], 1)]))
        note("state", (await trails.state(ids[0], 1), await trails.state(ids[7], 9)))
    return [*found, *await answers_to_writes(db)]


async def answers_to_writes(db: Database) -> list[tuple[str, Any]]:
    """What it says to what changes it."""
    first, ids = rollout(1).id, [device_id(number) for number in range(12)]
    found: list[tuple[str, Any]] = []
    async with db.write() as session:
        found.append(("lease", await session.fleets.lease("x", "me", now_ms=0, until_ms=10)))
        found.append(("lease kept", await session.fleets.lease("x", "me", now_ms=5, until_ms=20)))
        found.append(("lease of another", await session.fleets.lease("x", "you", now_ms=15, until_ms=30)))
        found.append(("holds", (await session.fleets.holds("x", "me"), await session.fleets.holds("x", "you"))))
        found.append(("lease run out", await session.fleets.lease("x", "you", now_ms=21, until_ms=30)))
        keys = [(ids[0], 1), (ids[1], 1), (ids[3], 1), (ids[9], 1)]
        found.append(("cancelled", await session.fleet_trails.cancel_new(keys, progress="{}", now_ms=60)))
        found.append(("halted", await session.members.halt(first, "over", 70)))
        found.append(("after", await session.members.counts([first])))
        taken = Release("0" * 64, OWNER, "r", "", ("a",), (), ("t",), b"{}", 1, "s", "c", 1)
        found.append(("release", await session.fleets.add_release(taken, ("e" * 64,))))
        found.append(("twice", await session.fleets.add_release(replace(taken, id="2" * 64), ())))
        found.append(
            ("read", (await session.fleets.release(OWNER, "r"), await session.fleets.release(OWNER, "0" * 64)))
        )
        found.append(("in use", await session.fleets.release_in_use(OWNER, "0" * 64)))
        found.append(("no type", await session.fleets.remove_type(OWNER, "none")))
    return found
