"""`make bench B=hub-fuzz`: schemathesis makes requests from the hub's own OpenAPI for ten minutes; no answer is a 500.

The time is shared by the callers: nobody, a person, a device, an administrator. HUB_FUZZ_SECONDS is the time in all.
Whatever failed is printed with the command that repeats it; the exit status says whether anything did.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile

import httpx

from brickless.linux.process import run
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision

_STATUS = re.compile(r"^\[(\d{3})\]", re.MULTILINE)
SECONDS = float(os.environ.get("HUB_FUZZ_SECONDS", "600"))


def callers(hub: HubProcess) -> dict[str, str]:
    """A token of each caller; what they own is there."""
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        nobody = Caller(client)
        user, admin = nobody.login("user1", "user1"), nobody.login("admin", "admin")
        device = claimed_device(user).start_trail()
        post_revision(user, device.id, {"#spec": SPEC, "a": user.upload(b"fuzzed")})
        return {"nobody": "", "person": user.token, "device": device.token, "administrator": admin.token}


def fuzz(hub: HubProcess, folder: str, token: str, seconds: float, seed: int) -> tuple[bool, str]:
    """One run; whether no answer was a 500, and what schemathesis said.

    501 is what the wire wants for subscriptions of who is no person (contract section 6.4), so that one is no failure.
    """
    header = ["--header", f"Authorization: Bearer {token}"] if token else []
    tool = os.path.join(os.path.dirname(sys.executable), "schemathesis")
    argv = [
        tool, "run", f"{hub.url}/swagger/doc.json", "--url", hub.url, "--checks", "not_a_server_error",
        "--max-time", str(int(seconds)), "--phases", "examples,coverage,fuzzing", "--seed", str(seed),
        "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        "--continue-on-failure", "--request-timeout", "60",
        # Streams that never end, and what would end the run for this caller.
        "--exclude-path-regex", "^/((local-s3|s3|events)/|logs/live)", *header,
    ]  # fmt: skip
    # Threads: the hub is the one that is measured by its patience.
    # Its folder takes what schemathesis leaves behind.
    done = run(argv, purpose="schemathesis", timeout_s=seconds * 4 + 600, check=False, cwd=folder)
    text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    if "generated" not in text:
        raise RuntimeError(f"schemathesis made no request:\n{text}")
    return set(_STATUS.findall(text)) <= {"501"} and done.returncode in {0, 1}, text


def main() -> None:
    """All callers, one after the other."""
    folder = tempfile.mkdtemp(prefix="hub-fuzz-")
    figures: dict[str, int] = {}
    bad = False
    try:
        with running_hub(os.path.join(folder, "data"), arguments=["--no-rate-limits"]) as hub:
            for seed, (name, token) in enumerate(callers(hub).items()):
                good, text = fuzz(hub, folder, token, SECONDS / 4, seed)
                print(f"== {name}\n{text}", file=sys.stderr, flush=True)
                found = re.search(r"(\d+) generated", text)
                figures[f"{name}_requests"] = int(found[1]) if found else 0
                bad = bad or not good
            log = hub.log()
            figures["crashes"] = log.count('"message": "crash"')
            print("\n".join(line for line in log.splitlines() if '"crash"' in line)[:8000], file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"bench": "hub-fuzz", "seconds": SECONDS, **figures, "server_errors": int(bad)}))
    sys.exit(1 if bad or figures["crashes"] else 0)


if __name__ == "__main__":
    main()
