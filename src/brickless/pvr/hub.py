"""The hub's protocol as a client speaks it (pvr.md 7): discover, read a state, objects, steps, devices."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.pvr.errors import RefusedError, TransferError
from brickless.pvr.http import Answer, Client
from brickless.store.entries import check_entries

_REMOTE_KEYS = (
    "pvr-spec",
    "json-get-url",
    "json-key",
    "objects-endpoint",
    "post-url",
    "post-fields",
    "post-fields-opt",
)


class Remote(NamedTuple):
    """What `.pvrremote` says about a repository: where its state, its objects and new steps go."""

    url: str
    document: dict[str, JsonValue]

    def _url(self, key: str) -> str:
        value = self.document.get(key)
        if not isinstance(value, str) or urlsplit(value).scheme not in {"http", "https"}:
            raise TransferError(f"{self.url}/.pvrremote names no usable {key}.")
        return value

    @property
    def state_url(self) -> str:
        """Where the state is read."""
        return self._url("json-get-url")

    @property
    def objects_url(self) -> str:
        """Where objects are, without a slash at the end."""
        return self._url("objects-endpoint").rstrip("/")

    @property
    def post_url(self) -> str:
        """Where a new step is posted."""
        return self._url("post-url")

    @property
    def state_key(self) -> str:
        """The member of the posted document that holds the state."""
        value = self.document.get("json-key")
        return value if isinstance(value, str) and value else "post"

    @property
    def step_url(self) -> str:
        """The step that the state belongs to: the folder of its URL."""
        parts = urlsplit(self.state_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0], query=""))

    def known(self) -> dict[str, JsonValue]:
        """The members that `remoteinfo` prints, in their order."""
        return {key: self.document[key] for key in _REMOTE_KEYS if key in self.document}


class ObjectInfo(NamedTuple):
    """An object as the hub describes it; `size_bytes` is None when it does not say."""

    sha: str
    size_bytes: int | None
    get_url: str
    put_url: str
    link: bool
    present: bool


class Step(NamedTuple):
    """What the hub made of a post."""

    rev: str
    state_sha: str
    trail_id: str
    document: dict[str, JsonValue]


def discover(client: Client, url: str) -> Remote:
    """Ask a repository how it is reached. Raises RefusedError, TransferError."""
    parts = urlsplit(url)
    target = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/.pvrremote", fragment=""))
    answer = client.call("GET", target, anonymous=True).expect(200, what=f"Finding the repository {url}")
    return Remote(url, answer.object())


def state(client: Client, remote: Remote) -> dict[str, JsonValue]:
    """The repository's current state, checked."""
    answer = client.call("GET", remote.state_url, anonymous=True).expect(200, what="Reading the state")
    try:
        return check_entries(answer.json(), source=remote.state_url)
    except HostileInputError as error:
        raise TransferError(f"The server's state is refused: {error}") from error


def object_info(client: Client, objects_url: str, sha: str) -> ObjectInfo:
    """Where an object can be fetched, and its size."""
    answer = client.call("GET", f"{objects_url}/{sha}", anonymous=True).expect(200, what=f"Finding object {sha}")
    return _object(answer, sha)


def register_object(client: Client, objects_url: str, path: str, sha: str, size_bytes: int) -> ObjectInfo:
    """Tell the hub about an object (pvr.md 7.4). `present` when it needs no upload."""
    body: JsonValue = {
        "id": "",
        "storage-id": "",
        "owner": "",
        "objectname": path,
        "sha256sum": sha,
        "size": str(size_bytes),
        "mime-type": "application/octet-stream",
        "signed-puturl": "",
        "signed-geturl": "",
        "now": "",
        "expire-time": "",
    }
    answer = client.call("POST", f"{objects_url}/", body=body)
    if answer.status not in {200, 201, 409}:
        answer.expect(200, what=f"Error posting object {answer.status}: {path}")
    return _object(answer, sha)


def _object(answer: Answer, sha: str) -> ObjectInfo:
    document = answer.object()
    named = document.get("sha256sum", sha)
    if named not in (sha, ""):
        raise TransferError(f"{answer.url} answered about another object: {str(named)[:80]!r}.")
    return ObjectInfo(
        sha,
        _size(document),
        _absolute(answer.url, document.get("signed-geturl")),
        _absolute(answer.url, document.get("signed-puturl")),
        answer.headers.get("pantahub-object-type", "") == "link",
        answer.status == 409,
    )


def _size(document: dict[str, JsonValue]) -> int | None:
    for key in ("size", "sizeint"):
        value = document.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
    return None


def _absolute(base: str, value: JsonValue) -> str:
    if not isinstance(value, str) or not value:
        return ""
    url = urljoin(base, value)
    return url if urlsplit(url).scheme in {"http", "https"} else ""


def post_step(client: Client, remote: Remote, envelope: dict[str, JsonValue]) -> Step:
    """Post a new step. Not repeated after an error that leaves open whether the hub took it."""
    answer = client.call("POST", remote.post_url, body=envelope, retry=False)
    if answer.status not in {200, 201}:
        text = answer.body[:4096].decode(errors="replace").strip()
        raise RefusedError(f"REST call failed. {answer.status}\n\t{text}\n", status=answer.status)
    document = answer.object()
    rev = document.get("rev")
    if str(rev) == "-1" and isinstance(document.get("revlocal"), str):
        rev = document["revlocal"]
    return Step(str(rev), str(document.get("state-sha", "")), str(document.get("trail-id", "")), document)


def put_state(client: Client, remote: Remote, entries: dict[str, JsonValue]) -> None:
    """Replace the whole state (pvr.md 3.6)."""
    client.call("PUT", remote.state_url, body=entries).expect(200, what="Putting the state")


def device(client: Client, text: str) -> dict[str, JsonValue]:
    """A device by nick, id or `user/nick`."""
    owner, slash, nick = text.partition("/")
    path = f"{quote(nick, safe='')}?owner-nick={quote(owner, safe='')}" if slash else quote(text, safe="")
    url = f"{client.env.api_base}/devices/{path}"
    return client.call("GET", url, anonymous=True).expect(200, what=f"Finding device {text}").object()


def state_sha(entries: dict[str, JsonValue]) -> str:
    """The hash by which hub and client name a state."""
    return canonical.sha256_hex(canonical.dumps(entries))
