"""Names that would leave their folder do not get through."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import paths
from brickless.core.errors import HostileInputError


@pytest.mark.parametrize(
    "path", ["web/root.squashfs", "a", "a b/c", "é/ü", ".hidden/x", "web/.pv", "..a/b", "a..", "-x", "x" * 255]
)
def test_good_paths(path: str) -> None:
    paths.check_state_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc", "..", ".", "a/..", "a/../b", "./a", "a//b", "a/", "//a", ".pv", ".pv/x", ".pvr/json"),
        *(".pvrremote", "a\0b", "a\nb", "\x7f", "x" * 256, "/".join(["x" * 200] * 6), "a\ufffd", "a\ud800", "é" * 128),
    ],
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(HostileInputError) as caught:
        paths.check_state_path(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(alphabet="a./\\\0 \n-", max_size=12))
def test_what_gets_through_stays_below_its_folder(path: str) -> None:
    if paths.fault(path) is None:
        assert os.path.normpath(os.path.join("/root", path)) == "/root/" + path


@pytest.mark.parametrize("name", ["0", "1", "42", "9999999999", "locals/a", "locals/pvtx-1-ab-2", "locals/" + "x" * 64])
def test_good_revisions(name: str) -> None:
    assert paths.revision_dir(name) == name
    assert paths.is_local(name) is name.startswith("locals/")


@pytest.mark.parametrize(
    "name",
    [
        *("", "-1", "01", "1.0", "current", "locals", "locals/", "locals/a/b", "locals/..", "locals/.a", "../1"),
        *("locals/" + "x" * 65, "1\n", "1 ", "12345678901", "locals/a b", "remote/a", "\u0661"),
    ],
)
def test_bad_revisions(name: str) -> None:
    with pytest.raises(HostileInputError):
        paths.check_revision(name)
