"""`pvr claim`: make a device yours."""

from __future__ import annotations

import sys
from urllib.parse import quote, urlsplit, urlunsplit

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("claim", example="pvr claim -c brave-tall-horse 5f3c...d1", failure=4)
@argument("device", required=False, default="")
@option("--challenge", "-c", default="", help="The words that the device shows.")
def command(env: Env, device: str, challenge: str) -> None:
    """Make a device yours: prove with its challenge that it is in your hands. DEVICE is its id or its URL."""
    from brickless.pvr.http import Client

    if not device:
        raise CommandError(3, "Which device?", hint="Give its id, as `pvr device scan` or its console shows it.")
    url = device if "://" in device else f"{env.api_base}/devices/{quote(device, safe='')}"
    words = challenge or _ask(url)
    parts = urlsplit(url)
    with Client(env) as client:
        client.name_host(url)
        target = urlunsplit(parts._replace(query=f"challenge={quote(words, safe='')}"))
        answer = client.call("PUT", target)
    if answer.status == 401:
        answer.expect(200, what="Claiming the device")
    if answer.status != 200:
        text = answer.body[:500].decode(errors="replace").strip()
        raise CommandError(
            4,
            f"claiming device failed (code={answer.status}): {text}",
            hint="Check the id and the challenge; a device that is claimed already has neither for you.",
        )
    env.result(answer.json())


def _ask(url: str) -> str:
    print(f"*** Claim with challenge @ {url} ***", file=sys.stderr)
    print("Enter Challenge: ", end="", file=sys.stderr, flush=True)
    words = sys.stdin.readline().strip()
    if not words:
        raise CommandError(3, "No challenge was given.", hint="Give it with --challenge.")
    return words
