"""Foreign bytes for minutes against every reader of `pvr`: see brickless.testkit.fuzz_readers.

`make bench B=fuzz-readers` runs a minute; `python -m bench.fuzz_readers SECONDS SEED` as long as you like. Inputs that
broke a promise are kept as `fuzz-TARGET-NUMBER.bin`, and the exit status is 1.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bench.report import report
from brickless.testkit.fuzz_readers import campaign


def main(seconds: float = 60.0, seed: int = 1) -> int:
    """Fuzz; the number of findings."""
    outcome = campaign(seed, seconds=seconds)
    for number, finding in enumerate(outcome.findings):
        path = Path(f"fuzz-{finding.target}-{number}.bin")
        path.write_bytes(finding.data)
        print(f"finding: {path}: {finding.reason}", file=sys.stderr)
    figures = {
        "inputs": outcome.inputs,
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "findings": len(outcome.findings),
        "slowest_s": outcome.slowest_s,
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    report("fuzz-readers", figures | {f"{name}_inputs": count for name, count in sorted(outcome.by_target.items())})
    return len(outcome.findings)


if __name__ == "__main__":
    sys.exit(1 if main(*(float(a) if n == 0 else int(a) for n, a in enumerate(sys.argv[1:3]))) else 0)
