"""Server-sent events: what is found now, and again as soon as there may be more. What is told, the callers know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from brickless.hub.http.messages import Request
from brickless.hub.services.ports_operators import Bus

#: A stream looks again after this long, also when nobody said that there is something; a comment keeps proxies awake.
_LOOK_AGAIN_S = 5.0
CONTENT_TYPE = "text/event-stream"
#: How long a browser waits before it connects again, in milliseconds.
RETRY = b"retry: 3000\n"
#: Something was found that this stream does not tell: look on at once.
NOT_SHOWN = b""

Look = Callable[[], Awaitable[list[bytes] | None]]


async def stream(request: Request, bus: Bus, names: tuple[str, ...], hello: bytes, look: Look) -> AsyncGenerator[bytes]:
    """`hello`, then what `look` finds, until it answers None, the client leaves or the hub stops.

    `names` are those of `Bus.following`; `look` goes on from where it ended, and finds nothing once it is at the end.
    """
    gone = asyncio.create_task(request.gone())
    try:
        yield hello
        with bus.following(*names) as waiting:
            while not bus.closed and not gone.done():
                waiting.clear()
                found = await look()
                if found is None:
                    return
                for part in filter(None, found):
                    yield part
                if not found and not await _woken(waiting, gone):
                    yield b": nothing new\n\n"
    finally:
        gone.cancel()


async def _woken(waiting: asyncio.Event, gone: asyncio.Task[None]) -> bool:
    """Wait until there may be something new, or the client left; False when it was only time to look again."""
    task = asyncio.create_task(waiting.wait())
    done, _ = await asyncio.wait({task, gone}, timeout=_LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    return bool(done)
