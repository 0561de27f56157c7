"""The hub's interface as this device uses it: one method a call, checked answers, a login where one is needed.

Nothing here repeats by itself except the one login after a 401 and, `retries` times, a request without effect that was
not answered; when to try again otherwise is the agent's decision.
Sources: contracts/device.md 7.3 to 7.7 and contracts/hub.md 8.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from brickless.core.errors import BricklessError, HostileInputError
from brickless.device.link import http, wire
from brickless.device.link.http import Address, Client, Response, Transport, Upload

#: Percent-encoded as the reference does it: all but `$`, `:` and commas (contracts/device.md 7.5).
STEPS_QUERY = (
    "progress.status=%7B%22$in%22:%5B%22NEW%22,%22DOWNLOADING%22,%22INPROGRESS%22,%22TESTING%22,%22QUEUED%22%5D%7D"
)
_MAX_RETRY_AFTER_S = 3600
AUTO_TOKEN_HEADER = "Pantahub-Devices-Auto-Token-V1"  # noqa: S105 the name of a header


class HubRefusedError(BricklessError):
    """The hub answered, and the answer is no. `retry_after_s` is how long it asks to be left alone (0: it does not)."""

    def __init__(self, message: str, status: int, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class CredentialsRefusedError(HubRefusedError):
    """The hub does not know this device's name and secret (any more)."""


class Credentials(NamedTuple):
    """What a device logs in with."""

    id: str
    prn: str
    secret: str


def retry_after_s(headers: Mapping[str, str]) -> int:
    """The seconds of a Retry-After header, at most an hour; 0 without one. Dates are not read."""
    text = headers.get("retry-after", "")
    return min(int(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def refused(response: Response, what: str) -> HubRefusedError:
    """The error for an answer that is not the wanted one."""
    message = f"The hub answered {response.status} to {what}"
    if 300 <= response.status < 400:
        location = response.headers.get("location", "")[:100]
        message = f"The hub answered {what} with a redirect to {location!r}; none is followed"
    return HubRefusedError(message, response.status, retry_after_s(response.headers))


class Hub:
    """The calls. `contact` is told after every answer that came, whatever it says (contracts/device.md 7.8)."""

    __slots__ = ("_client", "_contact", "_token", "_transport", "credentials", "retries")

    def __init__(
        self, address: Address, transport: Transport, contact: Callable[[], None] = lambda: None, *, retries: int = 0
    ) -> None:
        self._client = Client(address, transport)
        self._transport = transport
        self._contact = contact
        self._token = ""
        self.credentials: Credentials | None = None
        #: How often a request that may be repeated is sent again at once.
        self.retries = retries

    @property
    def address(self) -> Address:
        """Where the hub is."""
        return self._client.address

    @property
    def transport(self) -> Transport:
        """How connections to it are made; downloads use the same way."""
        return self._transport

    def use(self, transport: Transport) -> None:
        """Makes connections in another way from now on."""
        self._client.close()
        self._client = Client(self._client.address, transport)
        self._transport = transport

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    # Plumbing -------------------------------------------------------------------------------------------------------
    def _exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        left = self.retries if method in {"GET", "PUT"} else 0
        while True:
            try:
                response = self._client.request(method, path, body=body, headers=headers)
            except http.HubUnreachableError:
                if not left:
                    raise
                left -= 1
            else:
                self._contact()
                return response

    def _call(self, method: str, path: str, what: str, *, body: bytes = b"", ok: tuple[int, ...] = (200,)) -> Response:
        if not self._token:
            self.login()
        response = self._authorized(method, path, body)
        if response.status == 401:
            self.login()
            response = self._authorized(method, path, body)
        if response.status == 401:
            self._token = ""
        if response.status not in ok:
            raise refused(response, what)
        return response

    def _authorized(self, method: str, path: str, body: bytes) -> Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        if body:
            headers["Content-Type"] = "application/json"
        return self._exchange(method, path, body, headers)

    # Who we are -----------------------------------------------------------------------------------------------------
    def register(self, auto_token: str) -> wire.Registration:
        """Makes a new device at the hub. Raises HubRefusedError, for instance on a join token that it does not know."""
        headers = {AUTO_TOKEN_HEADER: auto_token} if auto_token else {}
        response = self._exchange("POST", "/devices/", b"", headers)
        if response.status != 200:
            raise refused(response, "the registration of this device" + (" with its join token" if auto_token else ""))
        found = wire.registration(response.body)
        if not found.secret:
            raise HostileInputError("The hub registered the device without giving it a secret")
        return found

    def login(self) -> None:
        """Gets a new token: at the start, after a 401, and after a claim (the token carries the owner)."""
        self._token = ""
        if self.credentials is None:
            raise CredentialsRefusedError("This device is not registered at a hub", 0)
        body = json.dumps({"username": self.credentials.prn, "password": self.credentials.secret}).encode()
        response = self._exchange("POST", "/auth/login", body, {"Content-Type": "application/json"})
        if response.status == 401:
            raise CredentialsRefusedError(f"The hub does not know {self.credentials.prn} with this secret", 401)
        if response.status != 200:
            raise refused(response, "the login")
        self._token = wire.token(response.body)

    def device(self) -> wire.Registration:
        """This device's own record."""
        device_id = self._device_id()
        found = wire.registration(self._call("GET", f"/devices/{device_id}", "a look at this device").body)
        if found.id != device_id:
            raise HostileInputError(f"Asked for device {device_id}, the hub describes {found.id}")
        return found

    def _device_id(self) -> str:
        if self.credentials is None:
            raise CredentialsRefusedError("This device is not registered at a hub", 0)
        return self.credentials.id

    # Trail and steps ------------------------------------------------------------------------------------------------
    def has_trail(self) -> bool:
        """Whether the hub knows a trail of this device."""
        return not wire.is_empty_list(self._call("GET", "/trails/", "the list of trails").body)

    def post_trail(self, state: bytes) -> None:
        """Gives the hub the factory state. A trail that is there already is right, too."""
        self._call("POST", "/trails/", "the factory state", body=state, ok=(200, 409))

    def steps(self) -> list[wire.RemoteStep]:
        """Steps that wait for this device, by ascending revision."""
        return wire.steps(
            self._call("GET", f"/trails/{self._device_id()}/steps?{STEPS_QUERY}", "the poll for steps").body
        )

    def put_progress(self, rev: str, progress: bytes) -> None:
        """Reports a step's progress. A step that the hub does not know (400, 403, 404) raises HubRefusedError."""
        self._call(
            "PUT", f"/trails/{self._device_id()}/steps/{rev}/progress", f"the progress of step {rev}", body=progress
        )

    # Objects --------------------------------------------------------------------------------------------------------
    def object_info(self, sha: str) -> wire.ObjectInfo:
        """Size and address of an object."""
        return wire.object_info(self._call("GET", f"/objects/{sha}", f"the request for object {sha[:16]}").body, sha)

    def upload_object(self, name: str, sha: str, upload: Upload) -> None:
        """Gives the hub an object of the factory revision unless it has it."""
        body = json.dumps({"objectname": name, "size": str(upload.size_bytes), "sha256sum": sha}).encode()
        response = self._call("POST", "/objects/", f"the upload of {name}", body=body, ok=(200, 409))
        if response.status == 409:
            return
        address, target = http.parse_url(wire.upload_url(response.body))
        self.check_scheme(address)
        client = Client(address, self._transport)
        try:
            answer = client.request("PUT", target, body=upload, headers={"Content-Type": "application/octet-stream"})
        finally:
            client.close()
        if answer.status != 200:
            raise refused(answer, f"the upload of {name}")

    def check_scheme(self, address: Address) -> None:
        """Refuses an address of another scheme than the hub's own: a secure hub cannot send us to an insecure place."""
        if address.scheme != self.address.scheme:
            raise HostileInputError(
                f"The hub, reached by {self.address.scheme}, gives an address with {address.scheme}"
            )

    # Metadata and logs ----------------------------------------------------------------------------------------------
    def user_meta(self) -> dict[str, str]:
        """What the owner has set for this device."""
        return wire.user_meta(
            self._call("GET", f"/devices/{self._device_id()}/user-meta", "the request for user-meta").body
        )

    def put_device_meta(self, meta: bytes) -> None:
        """Replaces what the hub knows about this device."""
        self._call("PUT", f"/devices/{self._device_id()}/device-meta", "the device metadata", body=meta)

    def post_logs(self, entries: bytes) -> None:
        """Hands over log lines, a JSON array."""
        self._call("POST", "/logs/", "log lines", body=entries)
