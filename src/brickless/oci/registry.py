"""The client of registries: pull and push over the OCI distribution API, trusting no answer.

Every blob and manifest is checked against its digest and size before it has a name. Credentials go to the registry that
they belong to (and to the token service that it names), never further along a redirect. Plain HTTP is spoken only when
asked for, or to a loopback address, as docker does.
Source: OCI distribution specification 1.1; Docker registry v2 token authentication.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import httpx

from brickless.core.errors import HostileInputError, UserError
from brickless.oci.auth import Credentials, DockerConfig
from brickless.oci.flatten import ignore_bytes
from brickless.oci.image import Image, resolve
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import (
    INDEXES,
    MANIFESTS,
    Descriptor,
    ManifestError,
    Platform,
    check_bytes,
    digest_of,
    load,
)
from brickless.oci.reference import DIGEST, Reference
from brickless.store.objects import ObjectStore, Partial

ACCEPT = ", ".join(MANIFESTS + INDEXES)
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 4
MAX_ERROR_BYTES = 4096
MAX_TOKEN_BYTES = 1 << 20
UPLOAD_CHUNK_BYTES = 1 << 20
CHALLENGE = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
REDIRECTS = (301, 302, 303, 307, 308)
TRANSIENT = (408, 429, 500, 502, 503, 504)
# Between attempts at a registry that is overloaded or restarting; it may ask for more, up to a bound.
PAUSES_S = (0.5, 1.0, 2.0)
MAX_PAUSE_S = 30


class RegistryError(UserError):
    """A registry refused or failed; `id` is registry-unauthorized, -missing, -failed or -unreachable."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to visit registries: credentials that were given beside docker's own, and where plain HTTP is allowed."""

    credentials: Credentials | None = None
    docker: DockerConfig = field(default_factory=DockerConfig)
    plain_http: bool = False
    # A host that is asked instead of another (`docker.io` -> `mirror.example.org:5000`), by the registry's name.
    mirrors: Mapping[str, str] | None = None
    # Hears how many bytes of layers came, as they come.
    heard: Callable[[int], None] = ignore_bytes
    # How long a registry may be silent.
    timeout_s: float = READ_TIMEOUT_S
    # A proxy's URL, or whether the environment's (`https_proxy`, `no_proxy`) counts.
    proxy: str | None = None
    system_proxy: bool = False


def is_loopback(host: str) -> bool:
    """Whether a host (with or without a port) is this machine's own."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class RegistryClient:
    """Speaks to one repository of one registry. A context manager; `cache` keeps verified blobs for the next time."""

    def __init__(
        self,
        reference: Reference,
        cache: ObjectStore,
        *,
        access: Access | None = None,
        limits: Limits = DEFAULT,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause = pause
        self.reference = reference
        self.cache = cache
        self.limits = limits
        self._access = access or Access()
        self._credentials = self._access.credentials or self._access.docker.find(reference.registry)
        host = (self._access.mirrors or {}).get(reference.registry, reference.host)
        scheme = "http" if self._access.plain_http or is_loopback(host) else "https"
        self.base = f"{scheme}://{host}/v2/{reference.repository}"
        self._host = (scheme, host)
        self._authorization: str | None = None
        timeout = httpx.Timeout(self._access.timeout_s, connect=min(CONNECT_TIMEOUT_S, self._access.timeout_s))
        # Only a proxy that the caller chose; one of the environment is for hosts that are not this one.
        trust_env = self._access.system_proxy and not is_loopback(host)
        self._http = httpx.Client(
            timeout=timeout,
            follow_redirects=False,
            trust_env=trust_env,
            proxy=self._access.proxy,
            transport=transport,
        )

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # Pull.

    def image(self, platforms: Sequence[Platform] = ()) -> Image:
        """The image that the reference names, for the first platform that is there.

        Raises `RegistryError`, `UserError` (platform), `HostileInputError` (what the registry sent).
        """
        data, media_type = self.manifest(self.reference.wanted)
        return resolve(str(self.reference), data, media_type, self, platforms=platforms, limits=self.limits)

    def manifest(self, wanted: str) -> tuple[bytes, str]:
        """The bytes of a manifest by tag or digest, and its media type. A digest is verified."""
        what = f"the manifest of {self.reference}"
        with self._request("GET", f"{self.base}/manifests/{wanted}", what, headers={"Accept": ACCEPT}) as answer:
            data = _bounded(answer, self.limits.manifest_bytes, what)
            media_type = answer.headers.get("content-type", "")
            announced = answer.headers.get("docker-content-digest")
        expected = wanted if DIGEST.fullmatch(wanted) else announced
        if expected is not None and DIGEST.fullmatch(expected):
            check_bytes(data, expected, None, what)
        return data, media_type

    def chunks(self, descriptor: Descriptor, what: str) -> Iterator[bytes]:
        """A blob's bytes, fetched into the cache first, resumed where an earlier attempt stopped (`Blobs`)."""
        if self.cache.has(descriptor.sha) and not self.cache.verify(descriptor.sha):
            self.cache.remove(descriptor.sha)  # a disk that forgets must not need a person to mend it
        if not self.cache.has(descriptor.sha):
            if descriptor.media_type in MANIFESTS + INDEXES:
                yield self._child_manifest(descriptor, what)
                return
            self._download(descriptor, what)
        with self.cache.open(descriptor.sha) as handle:
            while chunk := handle.read(UPLOAD_CHUNK_BYTES):
                yield chunk

    def _child_manifest(self, descriptor: Descriptor, what: str) -> bytes:
        data, _ = self.manifest(descriptor.digest)
        return check_bytes(data, descriptor.digest, descriptor.size, what)

    def _download(self, descriptor: Descriptor, what: str) -> None:
        """Fetch a blob; goes on where the connection broke. A broken line is tried again, a wrong answer is not."""
        self.cache.prepare()
        with self.cache.partial(descriptor.sha, max_bytes=descriptor.size) as partial:
            if self.cache.has(descriptor.sha):
                partial.discard()  # another process fetched it while we waited for its lock
                return
            failure: Exception | None = None
            for _ in range(MAX_ATTEMPTS):
                before = partial.size_bytes
                try:
                    self._append(descriptor, partial, what)
                    failure = None
                except httpx.HTTPError as error:
                    failure = error
                if partial.size_bytes == descriptor.size:
                    partial.finish()
                    return
                if failure is None and partial.size_bytes == before:
                    break  # an honest end, and not one byte more
            raise ManifestError(
                f"{what} is cut off: {partial.size_bytes} of {descriptor.size} bytes arrived"
                + (f" ({_reason(failure)})" if failure else ""),
                hint="Try again: what arrived is kept.",
            )

    def _append(self, descriptor: Descriptor, partial: Partial, what: str) -> None:
        have = partial.size_bytes
        headers = {"Range": f"bytes={have}-"} if 0 < have < descriptor.size else {}
        if have == descriptor.size:
            return
        with self._request("GET", f"{self.base}/blobs/{descriptor.digest}", what, headers=headers) as answer:
            if have and (answer.status_code != 206 or not _continues(answer, have)):
                partial.restart()
            # As they come: a chunk size would hold bytes back that a broken line then loses.
            for chunk in answer.iter_raw():
                partial.append(chunk)
                self._access.heard(len(chunk))

    # Push.

    def has_blob(self, digest: str) -> bool:
        """Whether the repository holds a blob."""
        what = f"the blob {digest}"
        with self._request("HEAD", f"{self.base}/blobs/{digest}", what, accepted=(200, 404)) as answer:
            return answer.status_code == 200

    def push_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Upload a blob unless it is there (one POST, one PUT). Raises `RegistryError`."""
        if self.has_blob(descriptor.digest):
            return
        what = f"the upload of {descriptor.digest}"
        with self._request("POST", f"{self.base}/blobs/uploads/", what, accepted=(202,)) as answer:
            location = urljoin(str(answer.request.url), answer.headers.get("location", ""))
        parts = urlsplit(location)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", descriptor.digest)])
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
        headers = {"Content-Length": str(descriptor.size), "Content-Type": "application/octet-stream"}
        with self._request("PUT", url, what, headers=headers, content=chunks, accepted=(201, 202, 204)):
            return

    def push_manifest(self, data: bytes, media_type: str, tag: str = "") -> str:
        """Store a manifest under a tag (or its digest alone); its digest."""
        what, digest = f"the push of {self.reference}", digest_of(data)
        url, headers = f"{self.base}/manifests/{tag or digest}", {"Content-Type": media_type}
        with self._request("PUT", url, what, headers=headers, content=data, accepted=(200, 201)):
            return digest

    # One request, with authentication and redirects.

    def _request(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        accepted: tuple[int, ...] = (200, 206),
    ) -> _Answer:
        """An open, accepted answer. A 401 is answered once with what the challenge asks for."""
        action = "pull,push" if method in ("POST", "PUT", "PATCH") or self._pushing(method, accepted) else "pull"
        authenticated, pauses = False, iter(PAUSES_S)
        while True:
            answer = self._send(method, url, dict(headers or {}), content, what)
            if answer.status_code in accepted:
                return _Answer(answer)
            if answer.status_code == 401 and not authenticated:
                authenticated = True
                challenge = answer.headers.get("www-authenticate", "")
                answer.close()
                self._authorization = self._authenticate(challenge, action, what)
                continue
            pause_s = next(pauses, None) if answer.status_code in TRANSIENT and method in ("GET", "HEAD") else None
            if pause_s is None:
                raise self._refusal(answer, what)
            answer.close()
            self._pause(max(pause_s, _asked_pause_s(answer)))

    @staticmethod
    def _pushing(method: str, accepted: tuple[int, ...]) -> bool:
        # A HEAD before a push: ask for the token of the push at once.
        return method == "HEAD" and 404 in accepted

    def _send(
        self, method: str, url: str, headers: dict[str, str], content: bytes | Iterable[bytes] | None, what: str
    ) -> httpx.Response:
        headers = {"Accept-Encoding": "identity", "User-Agent": "brickless", **headers}
        for _ in range(MAX_REDIRECTS):
            sent = dict(headers)
            if self._authorization is not None and self._is_ours(url):
                sent["Authorization"] = self._authorization
            try:
                request = self._http.build_request(method, url, headers=sent, content=content)
                answer = self._http.send(request, stream=True)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                host = urlsplit(url).netloc
                message = f"cannot reach {host} for {what}: {_reason(error)}"
                raise RegistryError("registry-unreachable", message) from error
            if answer.status_code not in REDIRECTS:
                return answer
            target = urljoin(url, answer.headers.get("location", ""))
            answer.close()
            self._check_redirect(url, target, what)
            url = target
        raise HostileInputError(f"{self._host[1]} redirects {what} more than {MAX_REDIRECTS} times")

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == self._host

    def _check_redirect(self, source: str, target: str, what: str) -> None:
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(source).scheme == "https"):
            raise HostileInputError(f"{self._host[1]} redirects {what} to {target!r}, which is not secure")

    def _authenticate(self, challenge: str, action: str, what: str) -> str:
        """The Authorization header that answers a challenge. Raises `RegistryError` when there is none."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._credentials is not None:
            return _basic(self._credentials)
        if scheme.lower() == "bearer":
            return f"Bearer {self._token(dict(CHALLENGE.findall(rest)), action)}"
        hint = "Log in with docker login, or give a user and a password."
        raise RegistryError("registry-unauthorized", f"{self._host[1]} wants credentials for {what}", hint=hint)

    def _token(self, fields: dict[str, str], action: str) -> str:
        realm = fields.get("realm", "")
        parts = urlsplit(realm)
        secure = parts.scheme == "https" or (parts.scheme == "http" and self._host[0] == "http")
        if not secure or not parts.netloc:
            raise HostileInputError(f"{self._host[1]} names the token service {realm!r}, which is not secure")
        scope = fields.get("scope") or f"repository:{self.reference.repository}:{action}"
        query = {"scope": scope, **({"service": fields["service"]} if "service" in fields else {})}
        who = self._credentials
        if who is not None and who.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": who.identity_token,
                "client_id": "brickless",
                **query,
            }
            request = self._http.build_request("POST", realm, data=form)
        else:
            request = self._http.build_request("GET", realm, params=[*parse_qsl(parts.query), *query.items()])
            if who is not None:
                request.headers["Authorization"] = _basic(who)
        return self._fetch_token(request, parts.netloc)

    def _fetch_token(self, request: httpx.Request, service: str) -> str:
        what = f"a token of {service}"
        try:
            answer = self._http.send(request, stream=True)
        except httpx.TransportError as error:
            raise RegistryError("registry-unreachable", f"cannot reach {service}: {_reason(error)}") from error
        with _Answer(answer) as opened:
            if opened.status_code != 200:
                raise self._refusal(opened, what)
            document = load(_bounded(opened, MAX_TOKEN_BYTES, what), what)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise HostileInputError(f"{service} answered without a token")
        return token

    def _refusal(self, answer: httpx.Response, what: str) -> RegistryError:
        """The error for a status that was not hoped for, with what the registry says of it."""
        status, host = answer.status_code, answer.request.url.netloc.decode()
        said = _said(answer)
        answer.close()
        text = f"{host} answered {status}{f' ({said})' if said else ''} for {what}"
        if status in (401, 403):
            hint = "Check the user and the password, and that this user may see the repository."
            return RegistryError("registry-unauthorized", text, hint=hint)
        if status == 404:
            return RegistryError("registry-missing", text, hint="Check the name and the tag.")
        hint = "The registry may be overloaded; try again later." if status in TRANSIENT else ""
        return RegistryError("registry-failed", text, hint=hint)


class _Answer:
    """An open answer as a context manager."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    def __enter__(self) -> httpx.Response:
        return self._answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.close()


def _basic(who: Credentials) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{who.username}:{who.password}".encode()).decode()


def _bounded(answer: httpx.Response, limit_bytes: int, what: str) -> bytes:
    """The whole body, if it is small and complete. Raises `HostileInputError`, `RegistryError`."""
    data = bytearray()
    try:
        for chunk in answer.iter_raw():
            data += chunk
            if len(data) > limit_bytes:
                raise HostileInputError(f"{what} has more than {limit_bytes} bytes")
    except httpx.TransportError as error:
        raise RegistryError("registry-unreachable", f"the connection broke in {what}: {_reason(error)}") from error
    return bytes(data)


def _continues(answer: httpx.Response, have: int) -> bool:
    return str(answer.headers.get("content-range", "")).startswith(f"bytes {have}-")


def _asked_pause_s(answer: httpx.Response) -> int:
    """What Retry-After asks for, in seconds (its form as a date is not heeded)."""
    text = str(answer.headers.get("retry-after", ""))
    return min(int(text), MAX_PAUSE_S) if text.isascii() and text.isdigit() else 0


def _reason(error: BaseException | None) -> str:
    return str(error) or type(error).__name__


def _said(answer: httpx.Response) -> str:
    """The registry's own words, one line, bounded; nothing if it said nothing readable."""
    data = b""
    try:
        for chunk in answer.iter_raw(MAX_ERROR_BYTES):
            data += chunk
            if len(data) >= MAX_ERROR_BYTES:
                break
    except httpx.TransportError:
        return "and broke off"
    text = " ".join(data[:MAX_ERROR_BYTES].decode("utf-8", "replace").split())
    messages = re.findall(r'"message":\s*"([^"]*)"', text)
    return "; ".join(messages) or re.sub(r"[^\x20-\x7e]", "?", text)[:200]
