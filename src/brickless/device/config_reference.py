"""Writes docs/reference/configuration.md from the table of keys: `python -m brickless.device.config_reference`."""

from __future__ import annotations

import sys

from brickless.device.config_keys import KEYS, Key

_HEAD = """# Configuration of the runtime

Made from the table in `src/brickless/device/config_keys.py` by `python -m brickless.device.config_reference`:
change it there.

A value is taken from the last of these levels that sets it: default, arguments of the program,
`/etc/pantavisor.config`, `<storage>/config/pantahub.config`, the policy `<etc>/pantavisor/policies/<PV_POLICY>.config`,
the OEM file `<PV_OEM_NAME>/<PV_POLICY or default>.config` of the revision, the kernel command line, the environment,
user-meta at the hub, a local command. Files have lines `KEY=value`; lines that begin with `#` are comments.
What is not allowed is reported in the log and leaves the value of the level below.

The column *levels* says who may set a key: **PV** `pantavisor.config`, policy, command line and environment;
**PH** `pantahub.config`, policy, command line and environment; **O** the OEM file; **R** user-meta and commands.
Old dotted names are accepted everywhere with a warning; on the kernel command line with `pv_` or `ph_` before them.
Flags take 1/0/true/false/yes/no/on/off, seconds take s, min or h, sizes k, m or g. `PV_SYSCTL_<a_b_c>` sets
`/proc/sys/a/b/c` (`sysctl.a.b.c` where a part has an underscore). A key marked + is ours: others ignore it.

| key | type | default | levels | old names | meaning |
|---|---|---|---|---|---|
"""


def _row(key: Key) -> str:
    levels = " ".join(group for group in ("PV", "PH", "O", "R") if group in key.levels)
    kind = ", ".join(key.choices) if key.choices else key.kind
    old = ", ".join(f"`{alias}`" for alias in key.aliases)
    default = f"`{key.default}`" if key.default else "-"
    doc = key.doc + (" Secret: never shown." if key.secret else "")
    return f"| `{key.name}`{' +' if key.additive else ''} | {kind} | {default} | {levels} | {old} | {doc} |\n"


def reference() -> str:
    """The whole document."""
    return _HEAD + "".join(_row(key) for key in sorted(KEYS.values()))


if __name__ == "__main__":
    sys.stdout.write(reference())
