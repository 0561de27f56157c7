"""The ledger of a campaign: what it knows outlives the process, also one that ended inside of a line."""

from __future__ import annotations

from pathlib import Path

from brickless.main.chaos.ledger import Ledger

LINE = {"case": "commit", "state": "12+13~14:3", "faults": ["one"]}


def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    Ledger(path, resume=True).add(LINE)
    assert Ledger(path, resume=True).known == {"12+13~14:3": LINE}


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    Ledger(path, resume=True).add(LINE)
    assert Ledger(path, resume=False).known == {}
    assert not path.exists()


def test_a_torn_line_counts_for_nothing_and_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    Ledger(path, resume=True).add(LINE)
    with path.open("ab") as stream:
        stream.write(b'{"case":"commit","sta')
    again = Ledger(path, resume=True)
    assert list(again.known) == ["12+13~14:3"]
    again.add({**LINE, "state": "15"})
    again.add({**LINE, "state": "16"})
    assert list(Ledger(path, resume=True).known) == ["12+13~14:3", "15", "16"]
