"""Lists the functions of the device's interpreter that a device runs (`src/brickless/image/native/hot.txt`, ADR 0075).

Run by `make bench B=hot`, after a change of the sources of the interpreter or of what the runtime does all day. The
guest is that of `bench.footprint`; QEMU writes down the code that it translates, which is all code that ran. The list
is written in the order of the addresses: what belongs together stays together.
"""

from __future__ import annotations

import bisect
import re
import tempfile
import time
from pathlib import Path

from bench import footprint
from brickless.image import native
from brickless.main.artefacts import Artefacts
from brickless.main.lab import Lab
from brickless.main.talk import Talk
from brickless.twin.qemu import Hardware

# As QEMU's disassembly shows an address; the interpreter lies below 16 MB, where nothing else of a guest runs for long.
ADDRESS = re.compile(r"^0x0*([0-9a-f]{6}):", re.MULTILINE)
RANGE = "0x400000..0x9fffff"
CODE = frozenset("tTwW")


def main() -> None:
    """Boot, idle, read, write."""
    artefacts = Artefacts(footprint.CACHE.absolute(), own=True)
    built = native.build(artefacts.folder)
    with tempfile.TemporaryDirectory(prefix="brickless-hot-") as scratch:
        log = Path(scratch) / "translated"
        hardware = Hardware(options=("-d", "in_asm", "-dfilter", RANGE, "-D", str(log)))
        begin_s = time.monotonic()
        with Lab(Path(scratch) / "lab", artefacts, Talk()) as lab:
            footprint.device(lab, artefacts, hardware)
        ran = {int(found, 16) for found in ADDRESS.findall(log.read_text(errors="replace"))}
    names = functions(ran, (built.root / native.FUNCTIONS).read_text())
    native.HOT.write_text("".join(f"{name}\n" for name in names))
    print(f"hot: {len(names)} functions ran in {time.monotonic() - begin_s:.0f} s")


def functions(ran: set[int], listed: str) -> list[str]:
    """The functions of a listing by `nm -n -S` that have one of the addresses, in its order, each once."""
    rows = [line.split() for line in listed.splitlines()]
    known = [(int(row[0], 16), int(row[1], 16), row[3]) for row in rows if len(row) == 4 and row[2] in CODE]
    starts = [start for start, _, _ in known]
    found = set()
    for address in ran:
        place = bisect.bisect_right(starts, address) - 1
        if place >= 0 and address < starts[place] + known[place][1]:
            found.add(place)
    return list(dict.fromkeys(known[place][2] for place in sorted(found)))


if __name__ == "__main__":
    main()
