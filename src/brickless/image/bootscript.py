"""The boot scripts of our boards: `core.bootselect` once more, for U-Boot (`boot.scr`) and for GRUB (`grub.cfg`).

What both do, in this order, and why a power cut anywhere in it does no harm:

    1. read the runtime's environment from the storage partition; nothing is ever written there by a bootloader, which
       knows nothing of the file system's journal
    2. read the memory from the boot partition; a damaged one counts as all attempts used up
    3. decide; if the memory changed, write it: one sector, in place, before anything is booted. A cut before it leaves
       the attempt uncounted and unmade, a cut after it leaves one attempt less: never one too many
    4. load kernel, initramfs and device tree of the candidates in turn and start the first that can be loaded; when
       none can, the copies of the factory's files on the boot partition, which nobody ever writes

Neither GRUB nor hush has functions with results or, in GRUB's case, arithmetic: counters are written out.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from brickless.core import bootenv
from brickless.core.bootselect import ENVIRONMENT_KEYS, FRESH, MARKS, MAX_ATTEMPTS, MEMORY_KEYS

MAX_ADDONS = 10
MEMORY_BYTES = 512
_NAME = re.compile(r"@([A-Z0-9_]+)@")
# What U-Boot takes as one command may be written in lines.
_ONE_LINE = re.compile(r"<<\n(.*?)>>", re.DOTALL)
GRUBENV_BYTES = 1024
GRUBENV_HEADER = b"# GRUB Environment Block\n"
RESCUE = "rescue"
# The image header of U-Boot (include/image.h): magic, CRCs, time, sizes, Linux, no particular processor, script, plain.
_IMAGE = struct.Struct(">IIIIIIIBBBB32s")
IMAGE_MAGIC = 0x27051956
OS_LINUX, ARCH_ANY, TYPE_SCRIPT, PLAIN = 5, 0, 6, 0


def check_attempts(max_attempts: int) -> None:
    """Raises `ValueError` for a bound that the scripts cannot count to."""
    if not 1 <= max_attempts <= MAX_ATTEMPTS:
        raise ValueError(f"a revision is tried between 1 and {MAX_ATTEMPTS} times, not {max_attempts}")


def uboot_memory(values: dict[str, str] | None = None) -> bytes:
    """`pv.env`: CRC-32, then the variables as U-Boot keeps them; one sector. What `env import -c` takes."""
    data = bootenv.render(dict(FRESH) if values is None else values).ljust(MEMORY_BYTES - 4, b"\0")
    return struct.pack("<I", zlib.crc32(data)) + data


def grub_memory() -> bytes:
    """`grub/grubenv` of a board that never booted; its variables lie in the first sector."""
    lines = b"".join(f"{key}={FRESH[key]}\n".encode() for key in MEMORY_KEYS if key in FRESH)
    return (GRUBENV_HEADER + lines).ljust(GRUBENV_BYTES, b"#")


def uboot_image(script: str) -> bytes:
    """A script in U-Boot's image format, as `mkimage -T script` makes it; time 2024-01-01."""
    text = script.encode()
    data = struct.pack(">II", len(text), 0) + text
    fields = (1704067200, len(data), 0, 0, zlib.crc32(data), OS_LINUX, ARCH_ANY, TYPE_SCRIPT, PLAIN)
    blank = _IMAGE.pack(IMAGE_MAGIC, 0, *fields, b"brickless")
    return _IMAGE.pack(IMAGE_MAGIC, zlib.crc32(blank), *fields, b"brickless") + data


def uboot(command_line: str, *, max_attempts: int) -> str:
    """`boot.cmd`: the memory is `pv.env` on partition 1, the environment `boot/uboot.txt` on partition 2."""
    values = _values(command_line, max_attempts) | {
        "ATTEMPTS_1": f"{max_attempts:#x}",
        "ATTEMPTS_2": f"{2 * max_attempts:#x}",
        "ATTEMPTS_3": f"{3 * max_attempts:#x}",
        "MEMORY_BYTES": f"{MEMORY_BYTES:x}",
    }
    return _ONE_LINE.sub(lambda match: "; ".join(match[1].strip().splitlines()), _filled("boot.cmd.in", values))


def grub(command_line: str, *, max_attempts: int, watchdog_s: int = 0) -> str:
    """`grub.cfg`: the memory is `grub/grubenv` on partition 1, the environment `boot/grubenv` on partition 2.

    With `watchdog_s` an i6300esb is armed before the kernel starts, so that one that hangs is reset: the kernel's
    driver stops it when it is loaded, PID 1 arms it anew.
    """
    attempts = [(str(one), f"set pv_attempts={one + 1}") for one in range(max_attempts)]
    marks = [(str(one), f"set pv_mark={one % MARKS + 1}") for one in range(1, MARKS + 1)]
    values = _values(command_line, max_attempts) | {
        "NEXT_ATTEMPT": _chain("pv_attempts", attempts),
        "NEXT_MARK": _chain("pv_mark", marks),
        "NEXT_BOOT": _chain("pv_boots", _boots(max_attempts)),
        "WATCHDOG": _watchdog(watchdog_s),
    }
    return _filled("grub.cfg.in", values)


def _values(command_line: str, max_attempts: int) -> dict[str, str]:
    check_attempts(max_attempts)
    return {
        "ENVIRONMENT": " ".join(ENVIRONMENT_KEYS),
        "MEMORY": " ".join(MEMORY_KEYS),
        "ATTEMPTS": str(max_attempts),
        "COMMAND_LINE": command_line,
        "RESCUE": RESCUE,
        "MARKS": str(MARKS),
        "ADDONS": " ".join(str(number) for number in range(MAX_ADDONS)),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    """A template beside this module with every `@NAME@` filled in; a name without a value is our mistake."""
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return _NAME.sub(lambda match: values[match[1]], text)


def _chain(name: str, cases: list[tuple[str, str]]) -> str:
    """A counter written out: the first case that the variable has is done."""
    lines = [f'if [ "${name}" = "{value}" ]; then {then}' for value, then in cases]
    return "; el".join(lines) + "; fi"


def _boots(max_attempts: int) -> list[tuple[str, str]]:
    """Value of `pv_boots` -> its successor, and how many revisions of the order are passed over."""
    cases = []
    for before in range(3 * max_attempts + 1):
        after = 1 if before >= 3 * max_attempts else before + 1
        cases.append((f"{before:x}", f"set pv_boots={after:x}; set pv_skip={(after - 1) // max_attempts}"))
    return cases


# The timer counts milliseconds, roughly, in two stages of equal length; what it takes to write each is in the chip's
# documentation (Intel 6300ESB, section 16): unlock by two writes to the reload register, then the value.
def _watchdog(timeout_s: int) -> str:
    if not timeout_s:
        return "function pv_arm { true; }"
    stage = min(timeout_s * 512, 0xFFFFF)
    return f"""function pv_arm {{
  if setpci -d 8086:25ab -v pv_bar 10.l; then
    regexp --set 1:pv_base '^(.*)0$' "$pv_bar"
    for register in 0 4; do
      write_word 0x${{pv_base}}c 0x80
      write_word 0x${{pv_base}}c 0x86
      write_dword 0x${{pv_base}}$register {stage:#x}
    done
    setpci -d 8086:25ab 68.b=2
  fi
}}"""
