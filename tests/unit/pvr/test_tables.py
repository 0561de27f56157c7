"""Tables and log lines: ages in words, hostile texts, times that people write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import UserError
from brickless.pvr import progress, tables
from brickless.pvr.env import Env
from brickless.pvr.progress import Meter
from brickless.pvr.tables import LogFilter

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a minute ago"),
        (29, "less than a minute ago"),
        (60, "1 minute ago"),
        (120, "2 minutes ago"),
        (44 * 60, "44 minutes ago"),
        (50 * 60, "about 1 hour ago"),
        (5 * 3600, "about 5 hours ago"),
        (86400, "1 day ago"),
        (41 * 3600, "1 day ago"),
        (43 * 3600, "2 days ago"),
        (29 * 86400, "29 days ago"),
        (40 * 86400, "about 1 month ago"),
        (50 * 86400, "about 2 months ago"),
        (100 * 86400, "3 months ago"),
        (366 * 86400, "about 1 year ago"),
        (500 * 86400, "over 1 year ago"),
        (700 * 86400, "almost 2 years ago"),
        (-120, "2 minutes from now"),
    ],
)
def test_ages_in_words(seconds: int, text: str) -> None:
    assert tables.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_a_table_wraps_long_cells_and_puts_numbers_to_the_right() -> None:
    lines = tables.table(("ID", "REV", "MESSAGE"), [("abc", "7", "word " * 12), ("abcdef", "1234", "short")])
    assert lines[0] == "    ID   REV             MESSAGE"
    assert lines[1] == "  abc       7 word word word word word word"
    assert lines[2] == "              word word word word word word"
    assert lines[3] == "  abcdef 1234 short"


def test_a_device_with_short_or_missing_members_is_shown() -> None:
    row = tables.ps_row(
        {"deviceid": "ab", "device-nick": "x", "status": None, "timestamp": "0001-01-01T00:00:00Z"}, NOW
    )
    assert row == ("ab", "x", "", "", "", "never", "", "")
    full = tables.ps_row(
        {
            "deviceid": "0123456789ab",
            "device-nick": "gate\x1b[31m",
            "progress-revision": 7,
            "status": "DONE",
            "state-sha": "f" * 64,
            "timestamp": "2026-11-24T11:58:00.123456789Z",
            "real-ip": "10.0.0.1",
            "status-msg": "ok",
        },
        NOW,
    )
    assert full == ("01234567", "gate\ufffd[31m", "7", "DONE", "ffffffff", "2 minutes ago", "10.0.0.1", "ok")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", {}),
        ("gate", {"dev": "gate"}),
        ("a,b/lxc@ERROR#web", {"dev": "a,b", "src": "lxc", "lvl": "ERROR", "plat": "web"}),
        ("/lxc", {"src": "lxc"}),
        ("a#web", {"dev": "a", "plat": "web"}),
        ("0123456789abcdef01234567", {"dev": "prn:::devices:/0123456789abcdef01234567"}),
    ],
)
def test_log_filters(text: str, query: dict[str, str]) -> None:
    assert LogFilter.parse(text).query() == query


def test_flags_override_what_stands_in_the_argument() -> None:
    found = LogFilter.parse("a/lxc").over(source="/var/log/x", device="", level="WARN")
    assert found.query() == {"dev": "a", "src": "/var/log/x", "lvl": "WARN"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T07:30:00", datetime(2026, 11, 24, 7, 30, tzinfo=UTC)),
        ("2026-11-24T07:30:00+02:00", datetime(2026, 11, 24, 5, 30, tzinfo=UTC)),
        ("PT1H", NOW - timedelta(hours=1)),
        ("P1DT2M", NOW - timedelta(days=1, minutes=2)),
        ("P2W", NOW - timedelta(weeks=2)),
    ],
)
def test_times_that_people_write(text: str, moment: datetime) -> None:
    assert tables.parse_moment(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "P", "PT", "P1M", "24.11.2026", "P999999D"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        tables.parse_moment(text, now=NOW)


def test_a_log_line_has_its_columns() -> None:
    entry = {
        "id": "0123456789abcdef",
        "rev": "7",
        "plat": "web",
        "src": "/var/log/nginx/access.log",
        "tsec": 1795521600,
        "msg": "GET /\x1b[2J\n",
    }
    assert tables.log_line(entry, UTC) == "0123456789(  7) Nov 24 12:00:00         web(access.log     ): GET /\ufffd[2J"


@given(
    st.dictionaries(
        st.sampled_from(["id", "rev", "plat", "src", "msg", "tsec", "time-created", "timestamp", "deviceid"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers())),
    )
)
def test_no_entry_of_a_hub_breaks_a_line_or_reaches_the_terminal(entry: dict[str, object]) -> None:
    line = tables.log_line(entry, UTC)  # type: ignore[arg-type]  # plain values that the test knows
    assert not set(line) & {chr(code) for code in range(32)} - {"\t"}
    tables.table(tables.PS_COLUMNS, [tables.ps_row(entry, NOW)])  # type: ignore[arg-type]  # plain values that the test knows


def test_a_meter_says_how_much_and_how_fast_and_makes_room_for_talk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Env()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Meter(env, "Storing") as short:
        short.add_bytes(3 << 20)
    assert capsys.readouterr().err == "", "work that is over at once shows nothing"
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with Meter(env, "Storing") as meter:
        meter.add_bytes(3 << 20)
        meter.say("Adding raw x")
        meter._drawn_s = -1.0  # as if the last drawing were long ago
        meter.add_bytes(1 << 20)
    err = capsys.readouterr().err
    assert "Storing 3.0 MiB, " in err
    assert " MiB/s\r\x1b[KAdding raw x\n" in err, "the meter's line is gone before the talk"
    assert err.endswith(" MiB/s\n")
    with Meter(env, "Downloading") as meter:
        unpacked = meter.beside("Unpacking")
        unpacked(1 << 20)
        assert meter.line().startswith("Unpacking 1.0 MiB, ")
        meter.add_bytes(2 << 20)
        assert meter.line().partition("; ")[2].startswith("Unpacking 1.0 MiB, ")
        squashed = meter.then("Squashing", 4 << 20)
        squashed(1 << 20)
        assert meter.line().startswith("Squashing 1.0/4.0 MiB, ")
    capsys.readouterr()
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Meter(env, "Downloading", 2, 10) as quiet:
        quiet.add_bytes(10)
        quiet.add_object()
        assert quiet.line().startswith("Downloading 1/2 objects, 0.0/0.0 MiB, ")
    assert capsys.readouterr().err == ""
