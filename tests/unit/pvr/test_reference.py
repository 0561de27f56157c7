"""What a repository argument means (pvr.md 3.1)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import BricklessError
from brickless.pvr.reference import Reference, resolve

BASE = "https://pvr.example.org"


@pytest.mark.parametrize(
    ("text", "location", "name"),
    [
        ("me/dev", f"{BASE}/me/dev", "dev"),
        ("me/dev#web", f"{BASE}/me/dev", "dev"),
        ("me/dev#_config/web,web", f"{BASE}/me/dev", "dev"),
        ("10.0.0.5", "http://10.0.0.5:12368/cgi-bin/pvr", "10.0.0.5"),
        ("10.0.0.5#web", "http://10.0.0.5:12368/cgi-bin/pvr", "10.0.0.5"),
        ("fe80::1", "http://[fe80::1]:12368/cgi-bin/pvr", "fe80::1"),
        ("http://10.0.0.5:12368", "http://10.0.0.5:12368/cgi-bin/pvr", "10.0.0.5"),
        ("http://10.0.0.5:12368/cgi-bin", "http://10.0.0.5:12368/cgi-bin/pvr", "10.0.0.5"),
        ("http://10.0.0.5:12368/cgi-bin/pvr", "http://10.0.0.5:12368/cgi-bin/pvr", "10.0.0.5"),
        ("https://h.example/trails/1/steps/2", "https://h.example/trails/1/steps/2", "2"),
        ("https://h.example/me/dev/?x=1#a", "https://h.example/me/dev/?x=1", "dev"),
    ],
)
def test_remote_references(text: str, location: str, name: str) -> None:
    found = resolve(text, repo_base=BASE)
    assert found.remote
    assert found.location == location
    assert found.name == name


def test_a_fragment_keeps_slashes_and_removals() -> None:
    found = resolve("me/dev#app/sub,-old", repo_base=BASE)
    assert found.fragment.include == ("app/sub",)
    assert found.fragment.remove == ("old",)
    assert resolve("me/dev#app%2Fsub", repo_base=BASE).fragment.include == ("app/sub",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x.tgz", "x"), ("x.pvrexport.tgz", "x"), ("x.tar.gz", "x"), ("plain", "plain"), ("repo/.pvr", "repo")],
)
def test_a_path_that_exists_comes_before_the_shorthand(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    found = resolve(f"{name}#web", repo_base=BASE)
    assert not found.remote
    assert found.location == name
    assert found.text == f"{tmp_path}/{name}#web"
    assert found.name == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one", "device nick is missing"),
        ("a/b/c", "neither a path that exists nor"),
        ("a//b", "neither a path that exists nor"),
        ("./nowhere", "does not exist"),
        ("/nowhere", "does not exist"),
        ("", "does not exist"),
        ("ftp://h/x", "only http"),
        ("http:///x", "only http"),
        ("http://[", "no repository"),
        ("http://h:99999/x", "no repository"),
        ("me/dev#a,,b", "empty item"),
    ],
)
def test_what_is_no_reference_says_why(text: str, words: str) -> None:
    with pytest.raises(BricklessError, match=words):
        resolve(text, repo_base=BASE)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda tail: f"http://{tail}"))
def test_any_text_is_a_reference_or_a_users_error(text: str) -> None:
    try:
        found = resolve(text, repo_base=BASE)
    except BricklessError:
        return
    assert isinstance(found, Reference)
