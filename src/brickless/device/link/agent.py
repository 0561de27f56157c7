"""The agent: one loop that registers, gets claimed, polls, updates and reports; the only process that talks to the hub.

Everything that can fail here fails into a pause: the longer nobody answers, the longer it is, with jitter, so that a
thousand devices do not come back in the same second. Containers never notice. Contract: contracts/device.md 7.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonInput
from brickless.core.errors import BricklessError
from brickless.device.config import Config
from brickless.device.control.places import private_of, put_commands
from brickless.device.link import devmeta, facts
from brickless.device.link.flash import FlashWear
from brickless.device.link.http import Address, HubUnreachableError, Transport
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.device.link.identity import Identity
from brickless.device.link.logs import LogPush
from brickless.device.link.pokes import Pokes
from brickless.device.link.reports import Reports
from brickless.device.link.supervisor import Supervisor, SupervisorError
from brickless.device.link.tls import Clock
from brickless.device.link.usermeta import UserMeta, containers_of
from brickless.device.link.wakeup import Wakeup
from brickless.device.update.engine import Engine
from brickless.store.trails import Storage

#: How often a device that may not talk to its hub looks whether it may again.
_LOCAL_LOOK_S = 30.0
#: Longest pause while a remote revision is being tried: its commit waits for the hub.
_TRIAL_PAUSE_S = 10.0
#: Timers that are nearly due go off together with the one that is: one wake-up instead of several.
_TOGETHER = 0.85


def _jitter(low: float, high: float) -> float:
    """A factor between two bounds. Not from `random`, whose import costs more than one byte of the kernel's."""
    return low + (high - low) * os.urandom(1)[0] / 255


class Places(NamedTuple):
    """Where things are: the storage partition, the run directory, and the hub."""

    storage: Storage
    run: str
    address: Address


class _Timer:
    """Something that is done every so often."""

    __slots__ = ("_key", "_last_s")

    def __init__(self, key: str) -> None:
        self._key = key
        self._last_s = float("-inf")

    def due(self, config: Config, now_s: float) -> bool:
        """Whether it is time."""
        return now_s - self._last_s >= config.seconds(self._key) * _TOGETHER

    def done(self, now_s: float) -> None:
        """It was done."""
        self._last_s = now_s


class Agent:
    """The loop. `stop` and `hurry` may be called from a signal handler."""

    def __init__(
        self,
        config: Config,
        places: Places,
        transport: Callable[[Config], Transport],
        clock: Clock,
        report: Callable[[str], None],
    ) -> None:
        storage, run, address = places
        self._config = config
        self._storage = storage
        self._transport = transport
        self._clock = clock
        self._report = report
        self.wakeup = Wakeup()
        self._stopping = False
        self._hurried = False
        self._identity = Identity(config, storage.root, run)
        self._hub = Hub(address, transport(config), self._reached, retries=config.integer("PH_LIBEVENT_HTTP_RETRIES"))
        self._hub.credentials = self._identity.credentials()
        self._supervisor = Supervisor(run)
        self._reports = Reports(storage, report)
        self._run, self._private = run, private_of(run)
        self._pokes = Pokes(self._private, self.wakeup)
        self._engine = Engine(
            storage,
            config,
            self._hub,
            self._supervisor,
            self._reports,
            private=self._private,
            wake=self.wakeup.wake,
            report=report,
        )
        self._trail = f"{storage.root}/trails/current"
        self._user_meta = UserMeta(config, config.text("PV_CACHE_USRMETADIR"), run, self._trail, report)
        self._logs = LogPush(config, storage.root, report)
        self._changes = facts.Changes()
        self._flash = FlashWear(storage.root, report)
        self._poll = _Timer("PH_UPDATER_INTERVAL")
        self._pull = _Timer("PH_METADATA_USRMETA_INTERVAL")
        self._push = _Timer("PH_METADATA_DEVMETA_INTERVAL")
        self._synced = False
        self._hub_due_s = 0.0
        self._failures = 0
        # Whether the hub can be reached, and what the supervisor was told about it; None: not known, not told.
        self._reachable: bool | None = None
        self._told: bool | None = None

    # The loop -------------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Ends `run` soon."""
        self._stopping = True
        self.wakeup.wake()

    def hurry(self) -> None:
        """Whatever waits for a timer is done now: the network came up, or somebody does not want to wait."""
        self._hurried = True
        self.wakeup.wake()

    def run(self) -> None:
        """Works until `stop`. An error that is nobody's fault but ours goes up: the process is started again."""
        self._user_meta.restore()
        put_commands(self._config, self._private)
        self._identity.publish(self._hub.address, "")
        try:
            while not self._stopping:
                self.wakeup.wait(self.turn(time.monotonic()))
                self._heed(self._pokes.take())
        finally:
            self._pokes.close()
            self._engine.stop()
            self._logs.close()
            self._flash.save()
            self._hub.close()

    def _heed(self, words: set[str]) -> None:
        """What local control has changed meanwhile (`control.places`)."""
        if "user-meta" in words:
            self._user_meta.restore()
            put_commands(self._config, self._private)
        if "device-meta" in words:
            self._push.done(float("-inf"))
        if "identity" in words:
            self._report("the device was taken from its owner: it registers anew")
            self.stop()
        if words:
            self.hurry()

    def turn(self, now_s: float) -> float:
        """Does what is due; returns the seconds until something is due again."""
        self._guarded(lambda _: self._engine.collect_when_due(), now_s)
        if not self._remote():
            self._guarded(self._publish, now_s)
            return _LOCAL_LOOK_S
        if self._hurried:
            self._hurried = False
            self._hub_due_s = now_s
            self._poll.done(float("-inf"))
            self._engine.hurry()
        self._guarded(self._engine.turn, now_s)
        owed = self._reports.owed and not self._failures
        if (owed or self._hub_due_s <= now_s) and self._guarded(self._talk, now_s):
            self._failures = 0
            self._hub_due_s = time.monotonic() + self._interval_s()
        self._guarded(self._engine.turn, now_s)  # a step that was just taken does not wait for the next turn
        self._tell_supervisor()
        return self._wait_s(time.monotonic())

    def _wait_s(self, now_s: float) -> float:
        if self._reports.owed and not self._failures:
            return 0.0
        engine_s = self._engine.due_in_s(now_s)
        hub_s = max(0.0, self._hub_due_s - now_s)
        return hub_s if engine_s is None else min(engine_s, hub_s)

    def _remote(self) -> bool:
        """Whether this device may talk to its hub now (contracts/device.md 2.1 and 7.8)."""
        return devmeta.is_remote(self._config, self._storage.current() or "", self._private)

    def _interval_s(self) -> float:
        """Seconds to the next exchange: the shortest of the timers that lead to one, a little earlier or later."""
        keys = ["PH_UPDATER_INTERVAL"]
        if self._synced:
            keys += ["PH_METADATA_USRMETA_INTERVAL", "PH_METADATA_DEVMETA_INTERVAL"]
        return min(self._config.seconds(key) for key in keys) * _jitter(0.9, 1.1)

    def _guarded(self, work: Callable[[float], None], now_s: float) -> bool:
        """Runs a part that talks to the hub; what goes wrong there becomes a pause. True when nothing did."""
        try:
            work(now_s)
        except BricklessError as error:
            self._failed(error)
        except OSError as error:
            self._failed(BricklessError(f"The storage refuses {error.filename or 'a file'}: {error.strerror}"))
        else:
            return True
        return False

    def _failed(self, error: BricklessError) -> None:
        self._failures += 1
        if isinstance(error, HubUnreachableError) and (
            self._failures > self._config.integer("PH_ONLINE_REQUEST_THRESHOLD")
        ):
            self._reachable = False
        most_s = self._config.seconds("PH_UPDATER_BACKOFF_MAX")
        pause_s = min(most_s, self._config.seconds("PH_UPDATER_INTERVAL") * 2.0 ** min(self._failures - 1, 16))
        if self._engine.in_trial:
            pause_s = min(pause_s, _TRIAL_PAUSE_S)
        asked_s = error.retry_after_s if isinstance(error, HubRefusedError) else 0
        pause_s = max(asked_s, pause_s * _jitter(0.5, 1.0))
        self._hub_due_s = time.monotonic() + pause_s
        self._report(f"{error} Next attempt in {pause_s:.0f} s.")

    # What is said to the hub ----------------------------------------------------------------------------------------
    def _talk(self, now_s: float) -> None:
        if self._hub.credentials is None:
            self._register()
        if not self._identity.claimed and not self._is_claimed():
            return
        if not self._synced:
            if not self._hub.has_trail():
                from brickless.device.link import factory

                factory.sync(self._hub, self._storage, self._report)
            self._synced = True
        self._reports.send(self._hub)
        if self._poll.due(self._config, now_s):
            self._engine.offer(self._hub.steps(), now_s)
            self._poll.done(now_s)
            self._reports.send(self._hub)
        if self._pull.due(self._config, now_s):
            self._take_user_meta()
            self._pull.done(now_s)
        if self._push.due(self._config, now_s):
            self._send_facts(now_s)
            self._push.done(now_s)
        self._logs.push(self._hub)

    def _register(self) -> None:
        found = self._hub.register(self._config.text("PH_FACTORY_AUTOTOK"))
        self._hub.credentials = self._identity.save(found)
        self._identity.publish(self._hub.address, found.challenge)
        self._report(f"registered as device {found.id}")

    def _is_claimed(self) -> bool:
        found = self._hub.device()
        self._identity.publish(self._hub.address, found.challenge)
        if not found.owner:
            return False
        self._identity.claim()
        self._report("this device has an owner")
        self._hub.login()  # only a new token carries the owner (contracts/hub.md 1.2)
        return True

    def _take_user_meta(self) -> None:
        if self._user_meta.replace(self._hub.user_meta()):
            put_commands(self._config, self._private)
            self._configure_supervisor()
        self._hub.retries = self._config.integer("PH_LIBEVENT_HTTP_RETRIES")
        transport = self._transport(self._config)
        if transport.timeout_s != self._hub.transport.timeout_s:
            self._hub.use(transport)

    def _facts(self, *, online: bool) -> dict[str, JsonInput]:
        """All device metadata, shown to the containers as files."""
        address = self._hub.address
        revision = self._storage.current() or ""
        about = facts.About(
            revision=revision,
            claimed=self._identity.claimed,
            online=online,
            state=self._engine.state_name if online else "init",
            address=f"{address.host}:{address.port}",
            status=self._status(),
            flash=self._flash.look(revision),
            mode="remote" if self._remote() else "local",
        )
        reserved = self._config.integer("PV_STORAGE_GC_RESERVED")
        kept = facts.local_keys(self._config.text("PV_CACHE_DEVMETADIR"))
        local = {key: devmeta.embedded(text) for key, text in kept.items()}
        current = facts.facts(about, self._storage.root, reserved, local)
        devmeta.publish(self._run, current, containers_of(self._trail))
        return current

    def _publish(self, _now_s: float) -> None:
        self._facts(online=False)

    def _send_facts(self, now_s: float) -> None:
        current = self._facts(online=True)
        if self._changes.due(current, now_s):
            self._hub.put_device_meta(canonical.dumps(current))
            self._changes.sent(current, now_s)

    def _configure_supervisor(self) -> None:
        try:
            self._supervisor.ask("configure")
        except SupervisorError as error:
            self._report(str(error))  # it reads everything when it is started again

    def _status(self) -> str:
        try:
            answer = self._supervisor.status()
        except SupervisorError:
            return "UNKNOWN"
        status = answer.get("status")
        return status if isinstance(status, str) else "UNKNOWN"

    # The supervisor -------------------------------------------------------------------------------------------------
    def _reached(self) -> None:
        """The hub has answered something, whatever it was."""
        self._reachable = True
        self._clock.hub_reached()

    def _tell_supervisor(self) -> None:
        """The supervisor is told each change, and all the time while a trial waits for it."""
        if self._reachable is None or (self._told is self._reachable and not self._engine.in_trial):
            return
        try:
            self._supervisor.hub(reachable=self._reachable)
        except SupervisorError as error:
            if self._told is not None:
                self._report(str(error))
            self._told = None
            return
        self._told = self._reachable
