"""What can go wrong with an emulated device, each with the tail of its console."""

from __future__ import annotations

from brickless.core.errors import BricklessError


class TwinError(BricklessError):
    """An emulated device did not do what was asked of it."""


class ConsoleTimeoutError(TwinError):
    """The console did not say what was waited for in time; the message ends with what it said last."""


class MachineEndedError(TwinError):
    """The machine ended, or was stopped, while something was expected from it."""
