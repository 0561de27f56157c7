"""`src.json` and an image's configuration -> `lxc.container.conf` and `run.json`. PURE.

The bytes of `lxc.container.conf` are an object of the state, so they follow the reference line by line
(contract pvr.md 4.5 to 4.7, vectors in spec/vectors/app-template). What the reference renders into a broken line we
spell so that LXC reads what was meant, or refuse. Additions (user, stop signal) appear only for images that have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from brickless.core.errors import UserError

Json = Mapping[str, Any]
TEMPLATE = "builtin-lxc-docker"
ROOT, OVERLAY = "root.squashfs", "root.ovl.squashfs"
OVERLAY_VOLUME = "lxc-overlay"
OVL = "ovl:"
SIGNAL = re.compile(r"(SIG)?[A-Z][A-Z0-9]{1,9}([+-]\d{1,2})?|\d{1,2}")
ID = re.compile(r"\d{1,10}")


class Era(StrEnum):
    """Whose bytes: the orders of lines that releases of the reference produced."""

    R036 = "036"
    D037 = "037"
    NEWEST = "newest"


class Volume(NamedTuple):
    """A volume of the container: where it is mounted and its name in the state's storage."""

    path: str
    overlay: bool

    @property
    def key(self) -> str:
        """`docker--var-lib`, `dockerovl--var`."""
        dashed = self.path.rstrip("/").replace("/", "-")
        return f"{'dockerovl' if self.overlay else 'docker'}-{dashed}"


def check_template(src: Json) -> None:
    """Raise `UserError` unless the template is the one there is."""
    name = src.get("template")
    if not name:
        raise UserError("template-empty", "empty template")
    if name != TEMPLATE:
        raise UserError("template-unknown", f"invalid template, no handler for {name}")


def effective_config(src: Json, docker_config: Json) -> dict[str, Any]:
    """The image's configuration with what `config` of src.json overrides (values that are not null)."""
    overrides = src.get("config") or {}
    return {**docker_config, **{key: value for key, value in overrides.items() if value is not None}}


def effective_group(src: Json, groups: Sequence[Json]) -> str | None:
    """The app's group: as set, else the last one of `groups.json` unless a runlevel is set."""
    args = src.get("args") or {}
    if args.get("PV_GROUP"):
        return str(args["PV_GROUP"])
    if args.get("PV_RUNLEVEL") or not groups:
        return None
    name = groups[-1].get("name")
    return str(name) if name else None


def is_mounted_only(src: Json) -> bool:
    """Whether the app has no process: a data volume."""
    args = src.get("args") or {}
    return args.get("PV_RUNLEVEL") == "data" or args.get("PV_STATUS_GOAL") == "MOUNTED"


def volumes(src: Json, config: Json, era: Era = Era.NEWEST) -> list[Volume]:
    """The volumes that the image declares or src.json keeps, sorted by key, without the root's own overlay."""
    keys = {_untrailed(key) for key in (config.get("Volumes") or {})}
    keys |= {_untrailed(key) for key in (src.get("persistence") or {})}
    keys.discard(OVERLAY_VOLUME)
    found = []
    for key in sorted(keys):
        overlay = key.startswith(OVL) and era != Era.R036
        found.append(Volume(key.removeprefix(OVL) if overlay else key, overlay))
    return found


def render_lxc(src: Json, docker_config: Json, *, group: str | None = None, era: Era = Era.NEWEST) -> str | None:
    """The text of `lxc.container.conf`, None for an app without a process; `UserError` for what LXC cannot say."""
    del group  # the same for every group; it is part of run.json
    check_template(src)
    if is_mounted_only(src):
        return None
    return "".join(f"{line}\n" for line in _Lxc(src, docker_config, era).lines())


class _Lxc:
    """The lines of one file, in order; the numbers are the rows of contract pvr.md 4.6."""

    def __init__(self, src: Json, docker_config: Json, era: Era) -> None:
        self.src = src
        self.name = str(src["name"])
        self.args: Json = src.get("args") or {}
        self.config = effective_config(src, docker_config)
        self.era = era

    def lines(self) -> Iterator[str]:
        for line in self.head():
            yield _one_line(line)
        for line in self.mounts():
            yield _one_line(line)
        for line in self.network():
            yield _one_line(line)
        if self.args.get("PV_LXC_EXTRA_CONF"):  # 27
            yield str(self.args["PV_LXC_EXTRA_CONF"])
        for line in self.imports():
            yield _one_line(line)

    def scalar(self, key: str, default: str) -> str:
        """An argument as text; missing or null means the default, an empty text is a text."""
        value = self.args.get(key)
        return default if value is None else _text(value)

    def each(self, key: str) -> Sequence[Any]:
        value = self.args.get(key) or []
        if not isinstance(value, list):
            raise UserError("template-argument", f"the argument {key} must be a list, as --arg-json gives it")
        return value

    def csv(self, key: str) -> list[str]:
        return _csv(self.args, key)

    def head(self) -> Iterator[str]:
        yield f"lxc.tty.max = {self.scalar('LXC_TTY_MAX', '8')}"  # 1
        yield f"lxc.pty.max = {self.scalar('LXC_PTY_MAX', '1024')}"  # 2
        if self.args.get("PV_DEBUG_MODE"):  # 3
            yield f"lxc.log.file = /pv/logs/{self.name}.log"
        yield from self.devices()
        lower = f"/volumes/{self.src.get('base') or self.name}/{ROOT}"
        upper = f"/volumes/{self.name}/{OVERLAY}:" if self.src.get("docker_ovl_digest") else ""
        yield f"lxc.rootfs.path = overlayfs:{upper}{lower}:/volumes/{self.name}/lxc-overlay/upper"  # 6
        yield f"lxc.init.cmd = {init_command(self.config.get('Entrypoint'), self.config.get('Cmd'))}"  # 7
        if self.config.get("WorkingDir"):  # 8
            yield f"lxc.init.cwd = {self.config['WorkingDir']}"
        yield from self.identity()
        for value in [*(self.config.get("Env") or []), *self.each("PV_LXC_EXTRA_ENV")]:  # 9, 10
            yield f"lxc.environment = {_text(value)}"
        shared_net = self.args.get("PV_LXC_NETWORK_TYPE") in (None, "", "host")
        keep = self.args.get("PV_LXC_NAMESPACE_KEEP") or ("user  net  ipc" if shared_net else "user  ipc")
        yield f"lxc.namespace.keep = {keep}"  # 11
        if self.args.get("PV_LXC_DISABLE_CONSOLE"):  # 12
            yield "lxc.console.path = none"

    def devices(self) -> Iterator[str]:
        white = self.each("PVR_LXC_CGROUP_DEVICES_WHITE")
        if white:  # 4a
            yield "lxc.cgroup.devices.deny = a"
            for value in white:
                yield f"lxc.cgroup.devices.allow = {_text(value)}"
        else:  # 4b
            yield "lxc.cgroup.devices.allow = a"
        for value in self.each("PVR_LXC_CGROUP_V1"):  # 5
            yield f"lxc.cgroup.{_text(value)}"

    def identity(self) -> Iterator[str]:
        """Ours: the image's user and its stop signal, where it has them."""
        user = resolved_user(self.src, self.config)
        if user is not None and user != (0, 0):
            yield f"lxc.init.uid = {user[0]}"
            yield f"lxc.init.gid = {user[1]}"
        stop = str(self.config.get("StopSignal") or "")
        if stop:
            if not SIGNAL.fullmatch(stop):
                raise UserError("stop-signal", f"the image's stop signal {stop!r} is no signal")
            named = stop if stop.startswith("SIG") or stop.isdigit() else f"SIG{stop}"
            yield f"lxc.signal.halt = {named}"

    def mounts(self) -> Iterator[str]:
        proc = self.scalar("LXC_MOUNT_AUTO_PROC", "proc")
        sys = self.scalar("LXC_MOUNT_AUTO_SYS", "sys:rw")
        yield f"lxc.mount.auto = {proc}  {sys}  {self.scalar('LXC_MOUNT_AUTO_GROUP', 'cgroup')}"  # 13
        if self.args.get("PV_DISABLE_AUTODEV"):  # 14
            yield "lxc.autodev = 0"
        bind = "none bind,rw,create=dir 0 0"
        for key, what in (
            ("PV_SECURITY_FULLDEV", "/dev/ dev"),  # 15
            ("PV_SECURITY_WITH_HOST", "/ host"),  # 16
            ("PV_SECURITY_WITH_HOSTPROC", "/proc/ host/proc"),  # 17
            ("PV_SECURITY_WITH_STORAGE", "/storage storage"),  # 18
        ):
            if self.args.get(key):
                yield f"lxc.mount.entry = {what} {bind}"
        yield from self.default_mounts()
        for volume in volumes(self.src, self.config, self.era):
            yield f"lxc.mount.entry = {self.volume_mount(volume)}"
        for value in self.each("PV_LXC_CAP_DROP"):  # 22
            yield f"lxc.cap.drop = {_text(value).lower()}"
        for value in self.each("PV_LXC_CAP_KEEP"):  # 23
            yield f"lxc.cap.keep = {_text(value).lower()}"

    def default_mounts(self) -> Iterator[str]:
        lines = []
        if not self.args.get("PV_RESOLV_CONF_DISABLE"):  # 19
            target = _field(self.scalar("PV_RESOLV_CONF_PATH", "etc/resolv.conf"))
            lines.append(f"lxc.mount.entry = /etc/resolv.conf {target} none bind,rw,create=file 0 0")
        if not self.args.get("PV_RUN_TMPFS_DISABLE"):  # 20
            target = _field(self.scalar("PV_RUN_TMPFS_PATH", "run"))
            lines.append(f"lxc.mount.entry = tmpfs {target} tmpfs rw,nodev,relatime,create=dir,mode=755 0 0")
        yield from reversed(lines) if self.era == Era.NEWEST else lines

    def volume_mount(self, volume: Volume) -> str:
        inside, source = _field(volume.path.lstrip("/")), _field(f"/volumes/{self.name}/{volume.key}")
        if not volume.overlay:  # 21
            return f"{source} {inside} none bind,rw,create=dir 0 0"
        lower = f"/volumes/{self.name}/{ROOT}/{inside}"  # 21'
        parts = f"lowerdir={lower},upperdir={source}/upper,workdir={source}/work,create=dir"
        return f"{source} {inside} overlay {parts} 0 0"

    def network(self) -> Iterator[str]:
        kind = self.args.get("PV_LXC_NETWORK_TYPE")
        if kind in ("empty", "phys", "veth"):
            yield f"lxc.net.0.type = {kind}"  # 24, 25, 26
        if kind == "phys":
            yield f"lxc.net.0.link ={self.scalar('PV_LXC_NETWORK_LINK', '')}"
        if kind == "veth":
            yield "lxc.net.0.link = lxcbr0"
            yield "lxc.net.0.flags = up"
            address = self.args.get("PV_LXC_NETWORK_IPV4_ADDRESS")
            if address:
                yield f"lxc.net.0.ipv4.address = {address}"
                yield f"lxc.net.0.ipv4.gateway = {self.args.get('PV_LXC_NETWORK_IPV4_GATEWAY') or 'auto'}"

    def imports(self) -> Iterator[str]:
        for item in self.csv("PV_FILEIMPORTS"):  # 28
            first, last = _ends(item)
            yield f"lxc.mount.entry = /exports/{first} {last} none bind,rw,create=file 0 0"
        for item in self.csv("PV_IMPORT_CONFIGVOLUMES"):  # 29
            first, last = _ends(item)
            yield f"lxc.mount.entry = /volumes/{first}/{self.name} {last} none bind,rw,create=dir,optional,noexec 0 0"
        for item in self.csv("PV_VOLUME_MOUNTS"):  # 30
            first, last = _ends(item)
            yield f"lxc.mount.entry = /volumes/{self.name}/{first} {last} none bind,rw,create=dir 0 0"
        for item in self.each("PV_VOLUME_IMPORTS"):  # 31
            yield f"lxc.mount.entry = {_volume_import(_text(item))}"


def resolved_user(src: Json, config: Json) -> tuple[int, int] | None:
    """The ids the container's program runs as: as resolved when the image was added, or the numbers it says itself."""
    user = str(config.get("User") or "")
    if not user:
        return None
    kept = src.get("docker_user")
    if isinstance(kept, Mapping) and kept.get("user") == user:
        return int(kept["uid"]), int(kept["gid"])
    uid, colon, gid = user.partition(":")
    if ID.fullmatch(uid) and (not colon or ID.fullmatch(gid)):
        return int(uid), int(gid or 0)
    if user in ("root", "root:root"):
        return 0, 0
    hint = "Run pvr app update: it reads the names from the image."
    raise UserError("image-user", f"the image's user {user!r} was not resolved to numbers", hint=hint)


def init_command(entrypoint: Any, command: Any) -> str:
    """The value of `lxc.init.cmd` (contract pvr.md 4.6, second table). Raises `UserError` for what LXC cannot split."""
    if isinstance(entrypoint, str) and entrypoint:
        return entrypoint
    entry, cmd = _words(entrypoint), _words(command)
    if entry and not entry[0]:
        return (" " + "".join(_quoted(word) for word in cmd)) if cmd else "/sbin/init"
    if entry:
        head = " ".join([_program(entry[0]), *(_quoted(word) for word in entry[1:])])
        if isinstance(command, str) and command:
            return f"{head} {_quoted(command)}"
        return f"{head} {''.join(_quoted(word) for word in cmd)}" if cmd else head
    if isinstance(command, str) and command:
        return command
    return " ".join([_program(cmd[0]), *(_quoted(word) for word in cmd[1:])]) if cmd else "/sbin/init"


def _words(value: Any) -> list[str]:
    return [_text(word) for word in value] if isinstance(value, list) else []


def _program(word: str) -> str:
    # LXC strips quotes that begin and end a whole value, so the first word cannot be quoted reliably.
    if not word or any(blank in word for blank in " \t") or word[0] in "'\"":
        raise UserError("init-command", f"the image starts the program {word!r}: LXC cannot start such a name")
    return word


def _quoted(word: str) -> str:
    """A word in the quotes that LXC's splitter takes off again; it knows no escapes, and takes a backslash as it is."""
    if '"' not in word:
        return f'"{word}"'
    if "'" not in word:
        return f"'{word}'"
    hint = "Put the command into a script of the image, or override Cmd with --config."
    raise UserError("init-command", f"LXC cannot express both kinds of quotes in one argument: {word!r}", hint=hint)


def _one_line(line: str) -> str:
    if "\n" in line or "\r" in line or "\0" in line:
        hint = "Put it into a file of the image."
        raise UserError("lxc-line", f"a line of lxc.container.conf cannot hold a line break: {line!r}", hint=hint)
    return line


def _field(text: str) -> str:
    """A path in a line of fields (fstab's escapes), as LXC reads mount entries."""
    return text.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | Decimal):
        return str(value)
    raise UserError("template-argument", f"a text or a number is needed, not {value!r}")


def _csv(args: Json, key: str) -> list[str]:
    value = args.get(key)
    if value is None:
        return []
    return [item for item in _text(value).split(",") if item]


def _untrailed(key: str) -> str:
    return key.rstrip("/")


def _ends(item: str) -> tuple[str, str]:
    return _field(item.partition(":")[0]), _field(item.rpartition(":")[2])


def _volume_import(item: str) -> str:
    """`container:[sub@]path:dest[:mode]`."""
    parts = item.split(":")
    if len(parts) not in (3, 4):
        raise UserError(
            "template-argument", f"a volume import looks like container:[sub@]path:dest[:mode], not {item!r}"
        )
    container, path, dest = parts[:3]
    mode = parts[3] if len(parts) == 4 else "rw"
    sub, at, rest = path.partition("@")
    source = f"/volumes/{container}/docker-{(rest if at else path).rstrip('/').replace('/', '-')}" + (
        f"/{sub}" if at else ""
    )
    return f"{_field(source)} {_field(dest.lstrip('/'))} none bind,{mode},create=dir 0 0"


def render_run(src: Json, docker_config: Json, *, group: str | None = None, era: Era = Era.NEWEST) -> dict[str, Any]:
    """The value of `run.json` (contract pvr.md 4.7). `group` is the effective group, None to leave it out."""
    check_template(src)
    args: Json = src.get("args") or {}
    process = not is_mounted_only(src)
    run: dict[str, Any] = {"#spec": "service-manifest-run@1", "name": src["name"]}
    if process:
        run["config"] = "lxc.container.conf"
    if args.get("PV_CONDITIONS"):
        run["conditions"] = args["PV_CONDITIONS"]
    run["drivers"] = {
        kind: list(args.get(f"PV_DRIVERS_{kind.upper()}") or []) for kind in ("manual", "required", "optional")
    }
    if group:
        run["group"] = group
    for key in ("runlevel", "restart_policy", "status_goal"):
        if args.get(f"PV_{key.upper()}"):
            run[key] = args[f"PV_{key.upper()}"]
    if era != Era.R036:
        run |= _newer(src, args)
    run["storage"] = _storage(src, effective_config(src, docker_config), era)
    if process:
        run |= {key: src[key] for key in ("exports", "logs") if src.get(key)}
        run["type"] = "lxc"
        if args.get("PV_ROLES"):
            run["roles"] = args["PV_ROLES"]
    run |= _roots(src, args)
    return run


def _newer(src: Json, args: Json) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: args[f"PV_{key.upper()}"] for key in ("automodfw", "remount") if args.get(f"PV_{key.upper()}")
    }
    if args.get("PV_NETWORK_POOL"):
        network = {"pool": args["PV_NETWORK_POOL"], "hostname": args.get("PV_NETWORK_HOSTNAME") or src["name"]}
        network |= {
            key: args[f"PV_NETWORK_{key.upper()}"] for key in ("ip", "mac") if args.get(f"PV_NETWORK_{key.upper()}")
        }
        found["network"] = network
    kinds = ("required", "optional")
    services = {kind: args[f"PV_SERVICES_{kind.upper()}"] for kind in kinds if args.get(f"PV_SERVICES_{kind.upper()}")}
    if services:
        found["services"] = services
    if args.get("PV_AUTO_RECOVERY"):
        found["auto_recovery"] = args["PV_AUTO_RECOVERY"]
    return found


def _storage(src: Json, config: Json, era: Era) -> dict[str, Any]:
    modes = {_untrailed(key): value for key, value in (src.get("persistence") or {}).items()}
    storage = {}
    for volume in volumes(src, config, era):
        key = OVL + volume.path if volume.overlay else volume.path
        storage[volume.key] = _persistence(str(modes.get(key, "permanent")))
    storage[OVERLAY_VOLUME] = _persistence(str(modes.get(OVERLAY_VOLUME, "boot")))
    return storage


def _persistence(mode: str) -> dict[str, str]:
    kind, at, disk = mode.partition("@")
    return {"persistence": kind, "disk": disk} if at else {"persistence": kind}


def _roots(src: Json, args: Json) -> dict[str, Any]:
    overlay, base = bool(src.get("docker_ovl_digest")), bool(src.get("base"))
    verity = src.get("dm_enabled") or {}
    prefix = "dm:" if verity.get(OVERLAY) is True or verity.get(ROOT) is True else ""
    names = _csv(args, "PV_EXTRA_VOLUMES")
    names += [item.partition(":")[0] for item in _csv(args, "PV_VOLUME_MOUNTS")]
    if overlay and not base:
        names.append(OVERLAY)
    return {"root-volume": prefix + (OVERLAY if overlay and base else ROOT), "volumes": names}
