"""A recording: the disk before, every write since, and what each case allows. A folder that can be judged again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brickless.core.errors import UserError
from brickless.testkit.crashlab import writelog
from brickless.testkit.crashlab.judge import Expected

BASE = "base.img"
CASES = "cases.json"
LOGS = "writes.*"


class Case(NamedTuple):
    """One part of a recording: the entries from `begin` to `end`, and the disks that they may leave.

    `kept` are files that have, in every one of those disks, one of these contents (None: it is not there).
    `pages` is what the device may serve once it booted.
    """

    name: str
    begin: int
    end: int
    revisions: tuple[str, ...]
    kept: Mapping[str, tuple[bytes | None, ...]]
    pages: tuple[str, ...]
    identity: bool = True

    @property
    def expected(self) -> Expected:
        """As the judge wants it."""
        kept = {path: frozenset(contents) for path, contents in self.kept.items()}
        return Expected(frozenset(self.revisions), kept)


class Recording:
    """The folder of a recording."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.base = folder / BASE

    @property
    def is_whole(self) -> bool:
        """Whether a recording was made there to its end: the cases are written last."""
        return (self.folder / CASES).exists() and self.base.exists()

    def logs(self) -> list[Path]:
        """The logs, a file a boot, in order."""
        return sorted(self.folder.glob(LOGS), key=lambda path: int(path.suffix[1:]))

    def entries(self) -> list[writelog.Entry]:
        """Every request of the guest."""
        return writelog.read(self.logs())

    def sector(self, number: int) -> bytes:
        """One sector of the disk before the recording."""
        with self.base.open("rb") as stream:
            stream.seek(number * writelog.SECTOR_BYTES)
            return stream.read(writelog.SECTOR_BYTES)

    def keep(self, view: str, cases: Iterable[Case]) -> None:
        """Write what was recorded, and what the cases are."""
        about = {"view": view, "cases": [_plain(case) for case in cases]}
        (self.folder / CASES).write_text(json.dumps(about, indent=1) + "\n")

    @property
    def view(self) -> str:
        """How the recorded device's bootloader sees the disk: a name in `crashlab.views`."""
        return str(self._about()["view"])

    def cases(self) -> list[Case]:
        """The cases. Raises `UserError` when the folder holds no recording."""
        return [_case(entry) for entry in self._about()["cases"]]

    def _about(self) -> dict[str, Any]:
        if not self.is_whole:
            raise UserError(
                "no-recording", f"{self.folder} holds no recording", hint="`brickless chaos --keep DIR` makes one."
            )
        about: dict[str, Any] = json.loads((self.folder / CASES).read_text())
        return about


def _plain(case: Case) -> dict[str, Any]:
    kept = {path: [None if one is None else one.hex() for one in contents] for path, contents in case.kept.items()}
    return {**case._asdict(), "kept": kept}


def _case(entry: dict[str, Any]) -> Case:
    kept = {
        path: tuple(None if one is None else bytes.fromhex(one) for one in contents)
        for path, contents in entry["kept"].items()
    }
    return Case(
        **{**entry, "kept": kept, "revisions": tuple(entry["revisions"]), "pages": tuple(entry["pages"])},
    )
