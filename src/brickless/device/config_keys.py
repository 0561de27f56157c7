"""The one table of configuration keys: parsing, defaults, levels and docs/reference/configuration.md come from it.

Only data lives here (contract: contracts/device.md 8). Reading and layering is `brickless.device.config`.
"""

from __future__ import annotations

from typing import NamedTuple

TEXT, PATH, FLAG, INTEGER, SECONDS, SIZE, WORDS = "text", "path", "flag", "integer", "seconds", "size", "words"

# Which group of levels may set a key. PV: pantavisor.config, policy, kernel command line, environment.
# PH: pantahub.config, policy, kernel command line, environment. O: OEM file of the revision. R: user-meta and commands.
PV, PH = frozenset({"PV"}), frozenset({"PH"})
PVO, PHO = PV | {"O"}, PH | {"O"}
PVOR, PHOR = PVO | {"R"}, PHO | {"R"}


class Key(NamedTuple):
    """One configuration key. `default` is text as it would stand in a file; `least` bounds numbers from below."""

    name: str
    kind: str
    default: str
    levels: frozenset[str]
    doc: str
    aliases: tuple[str, ...] = ()
    secret: bool = False
    choices: tuple[str, ...] = ()
    least: int = 0
    additive: bool = False


def _secret(name: str, doc: str, *aliases: str) -> Key:
    return Key(name, TEXT, "", PHO, doc, aliases, secret=True)


def _ours(name: str, kind: str, default: str, levels: frozenset[str], doc: str, *, least: int = 0) -> Key:
    """A key that the reference does not have: it is ignored there."""
    return Key(name, kind, default, levels, doc, least=least, additive=True)


def _choice(name: str, default: str, levels: frozenset[str], choices: str, doc: str) -> Key:
    return Key(name, TEXT, default, levels, doc, choices=tuple(choices.split()))


_TRUSTSTORE = "Name of the trust store for signatures: `pvs/trust/<name>.crt` below `PV_SYSTEM_ETCPANTAVISORDIR`."
_SECUREBOOT = (
    "What a missing or bad signature means: `disabled` looks at none, `lenient` refuses one that does not verify,"
    " `audit` also says what none covers, `strict` refuses that too and cannot be undone by the boot loader."
)

_HUB = (
    Key("PH_CREDS_HOST", TEXT, "api.pantahub.com", PHO, "Host name or address of the hub (IPv6 without brackets)."),
    Key("PH_CREDS_PORT", INTEGER, "443", PHO, "TCP port of the hub.", least=1),
    Key("PH_CREDS_ID", TEXT, "", PHO, "Id of this device at the hub: 24 hexadecimal digits, set by registration."),
    Key(
        "PH_CREDS_PRN",
        TEXT,
        "",
        PHO,
        "Full name of this device at the hub, `prn:::devices:/<id>`; empty: unregistered.",
    ),
    _secret("PH_CREDS_SECRET", "Password of this device at the hub, set by registration."),
    Key("PH_CREDS_TYPE", TEXT, "builtin", PHO, "How the device proves who it is: `builtin` is name and secret."),
    Key("PH_CREDS_PROXY_HOST", TEXT, "", PHO, "HTTP proxy for all traffic to the hub; empty: none."),
    Key("PH_CREDS_PROXY_PORT", INTEGER, "3218", PHO, "Port of the proxy.", least=1),
    Key(
        "PH_CREDS_PROXY_NOPROXYCONNECT",
        INTEGER,
        "0",
        PHO,
        "1: the proxy host terminates TLS itself, no CONNECT is sent. Its certificate must still be the hub's.",
    ),
    _secret(
        "PH_FACTORY_AUTOTOK", "Join token that claims the device for its owner at registration.", "factory.autotok"
    ),
    Key(
        "PH_LIBEVENT_HTTP_TIMEOUT",
        SECONDS,
        "60",
        PHOR,
        "Longest silence in one HTTP exchange with the hub before it is given up.",
        least=1,
    ),
    Key("PH_LIBEVENT_HTTP_RETRIES", INTEGER, "1", PHOR, "How often a failed idempotent request is sent again at once."),
    Key(
        "PH_METADATA_DEVMETA_INTERVAL",
        SECONDS,
        "10",
        PHOR,
        "How often device metadata is looked at; it is sent only when it changed.",
        ("metadata.devmeta.interval", "metadata.dev.meta.interval"),
        least=1,
    ),
    Key(
        "PH_METADATA_USRMETA_INTERVAL",
        SECONDS,
        "5",
        PHOR,
        "How often user metadata is fetched.",
        ("metadata.usrmeta.interval", "metadata.usr.meta.interval"),
        least=1,
    ),
    Key(
        "PH_ONLINE_REQUEST_THRESHOLD",
        INTEGER,
        "0",
        PHOR,
        "Failed requests in a row after which the device counts as offline.",
    ),
    Key("PH_UPDATER_INTERVAL", SECONDS, "5", PHOR, "How often the hub is asked for new steps.", least=1),
    Key(
        "PH_UPDATER_NETWORK_TIMEOUT",
        SECONDS,
        "120",
        PHOR,
        "How long a tried remote revision may take to reach the hub before it is rolled back.",
        ("updater.network_timeout",),
        least=1,
    ),
    Key("PH_UPDATER_TRANSFER_MAX_COUNT", INTEGER, "5", PHOR, "Objects that are downloaded at the same time.", least=1),
    _ours(
        "PH_CREDS_SCHEME",
        TEXT,
        "https",
        PHO,
        "`https`, or `http` for a hub on this machine: accepted only for loopback and the emulator's 10.0.2.x.",
    ),
    _ours(
        "PH_UPDATER_SKIP_TO_NEWEST",
        FLAG,
        "0",
        PHOR,
        "1: of several pending steps only the newest is taken, the older ones end as WONTGO. "
        "0: they are taken in order, as the reference does.",
    ),
    _ours(
        "PH_UPDATER_BACKOFF_MAX",
        SECONDS,
        "300",
        PHOR,
        "Longest pause between attempts while the hub is unreachable.",
        least=1,
    ),
    _ours(
        "PH_UPDATER_HUB_GATE",
        FLAG,
        "1",
        PHOR,
        "1: a remote revision is committed only after the hub was reached. 0: that never causes a rollback.",
    ),
    _ours(
        "PV_HUB_CA",
        TEXT,
        "/etc/pantavisor/certs/*.pem",
        PV,
        "PEM files (a pattern) with the certification authorities that may vouch for the hub. TLS is always verified.",
    ),
)

_BOOT = (
    _choice("PV_BOOTLOADER_TYPE", "uboot", PV, "uboot uboot-pvk uboot-ab rpiab grub", "Boot loader back end."),
    Key("PV_BOOTLOADER_FITCONFIG", TEXT, "", PV, "FIT configuration node; also selects driver aliases."),
    _ours(
        "PV_BOOTLOADER_ENV",
        TEXT,
        "",
        PV,
        "Where U-Boot's variables lie: `fat:DEVICE:NAME`, `raw:DEVICE:OFFSET:OFFSET:SIZE`; else on the storage.",
    ),
    Key("PV_BOOTLOADER_MTD_ENV", TEXT, "", PV, "MTD partition with the boot loader's environment."),
    Key("PV_BOOTLOADER_MTD_ONLY", FLAG, "0", PV, "The environment lives only in that partition."),
    Key("PV_BOOTLOADER_UBOOTAB_A_NAME", TEXT, "fitA", PV, "MTD name of slot A."),
    Key("PV_BOOTLOADER_UBOOTAB_B_NAME", TEXT, "fitB", PV, "MTD name of slot B."),
    Key("PV_BOOTLOADER_UBOOTAB_ENV_NAME", TEXT, "", PV, "MTD name of the environment."),
    Key("PV_BOOTLOADER_UBOOTAB_ENV_BAK_NAME", TEXT, "", PV, "MTD name of the redundant environment."),
    Key("PV_BOOTLOADER_UBOOTAB_ENV_OFFSET", INTEGER, "0", PV, "Offset of the environment in bytes."),
    Key("PV_BOOTLOADER_UBOOTAB_ENV_SIZE", INTEGER, "0", PV, "Size of the environment in bytes."),
)

_SYSTEM = (
    Key("PV_CACHE_DEVMETADIR", PATH, "/storage/cache/devmeta", PV, "Where device metadata is kept, one file a key."),
    Key(
        "PV_CACHE_USRMETADIR",
        PATH,
        "/storage/cache/usrmeta",
        PV,
        "Where user metadata is kept, one file a key.",
        ("cache.usrmetadir", "meta.cache.dir"),
    ),
    Key("PV_CONTROL_REMOTE", FLAG, "1", PVO, "0: the device never talks to a hub."),
    Key("PV_CONTROL_REMOTE_ALWAYS", FLAG, "0", PVO, "1: it talks to the hub while a `locals/` revision runs, too."),
    Key("PV_DEBUG_SHELL", FLAG, "1", PV, "Offer a shell on the console."),
    Key("PV_DEBUG_SHELL_AUTOLOGIN", FLAG, "0", PV, "Open that shell without asking."),
    Key("PV_DEBUG_SHELL_TIMEOUT", SECONDS, "60", PV, "How long an open shell may hold back a reboot."),
    Key("PV_DEBUG_SSH", FLAG, "1", PVOR, "Run the SSH server."),
    Key(
        "PV_DEBUG_SSH_AUTHORIZED_KEYS",
        TEXT,
        "",
        PVOR,
        "Keys that may log in by SSH; `__default__` is the user-meta key.",
    ),
    Key("PV_DISK_EXPORTSDIR", PATH, "/exports", PV, "Where containers' exported paths appear."),
    Key("PV_DISK_VOLDIR", PATH, "/volumes", PV, "Where volumes are mounted."),
    Key("PV_DISK_WRITABLEDIR", PATH, "/writable", PV, "Where writable disks are mounted."),
    Key("PV_DROPBEAR_CACHE_DIR", PATH, "/storage/cache/dropbear", PV, "Where SSH host keys are kept."),
    Key("PV_LIBEVENT_DEBUG_MODE", FLAG, "0", PVO, "Read for compatibility; without effect."),
    Key("PV_LIBTHTTP_CERTSDIR", PATH, "/certs", PV, "Another folder whose `*.pem` files are trusted, as PV_HUB_CA."),
    Key("PV_LIBTHTTP_LOG_LEVEL", INTEGER, "3", PVOR, "Read for compatibility; without effect."),
    Key("PV_LOOP_INDEX_BASE", TEXT, "-1", PV, "First loop device that may be used; -1: any free one."),
    Key("PV_LXC_LOG_LEVEL", INTEGER, "2", PVO, "Level of liblxc's own log."),
    Key("PV_NET_BRADDRESS4", TEXT, "10.0.3.1", PVO, "Address of the default bridge."),
    Key("PV_NET_BRDEV", TEXT, "lxcbr0", PVO, "Name of the default bridge."),
    Key("PV_NET_BRMASK4", TEXT, "255.255.255.0", PVO, "Network mask of the default bridge."),
    Key("PV_OEM_NAME", TEXT, "", PV, "Folder of the revision with the OEM's configuration."),
    Key("PV_POLICY", TEXT, "", PV, "Name of the policy file below `<etc>/pantavisor/policies`."),
    Key("PV_SYSTEM_APPARMOR_PROFILES", TEXT, "", PV, "AppArmor profiles to load, separated by commas."),
    Key("PV_SYSTEM_CONFDIR", PATH, "/configs", PV, "Where `_config` overlays appear, one folder a container."),
    Key("PV_SYSTEM_ETCDIR", PATH, "/etc", PV, "System configuration."),
    Key(
        "PV_SYSTEM_ETCPANTAVISORDIR",
        PATH,
        "/etc/pantavisor",
        PV,
        "The runtime's own files: policies, defaults, certificates.",
    ),
    Key("PV_SYSTEM_LIBDIR", PATH, "/lib", PV, "Libraries, hooks and helpers."),
    Key("PV_SYSTEM_MEDIADIR", PATH, "/media", PV, "Where disks are mounted."),
    Key("PV_SYSTEM_RUNDIR", PATH, "/run/pantavisor/pv", PV, "Sockets and hint files; empty at each boot."),
    Key("PV_SYSTEM_DISKSDIR", PATH, "/run/pantavisor/disks", PV, "State of disks; empty at each boot."),
    Key("PV_SYSTEM_USRDIR", PATH, "/usr", PV, "Programs."),
    Key(
        "PV_SYSTEM_DRIVERS_LOAD_EARLY_AUTO",
        FLAG,
        "0",
        PV,
        "Load drivers for the hardware that is found before containers start.",
    ),
    Key("PV_SYSTEM_MOUNT_SECURITYFS", FLAG, "0", PV, "Mount securityfs."),
    _choice("PV_SYSTEM_INIT_MODE", "embedded", PV, "embedded standalone appengine", "How the runtime was started."),
    Key("PV_VOLMOUNT_DM_EXTRA_ARGS", TEXT, "", PVO, "Extra arguments for dm-verity mounts."),
    _choice("PV_WDT_MODE", "shutdown", PV, "disabled shutdown startup always", "When the hardware watchdog is armed."),
    Key("PV_WDT_TIMEOUT", SECONDS, "15", PV, "After how long the watchdog resets the board.", least=1),
    Key("PV_XCONNECT_DBUS_SYSTEMBUS_ENABLED", FLAG, "1", PVO, "Offer a hosted system bus to containers."),
    _ours(
        "PV_CONTROL_HTTP_LISTEN",
        TEXT,
        "",
        PVO,
        "Address and port at which `pvr clone IP` finds this device, such as `0.0.0.0:12368`; empty: nowhere. "
        "Takes effect only together with PV_CONTROL_HTTP_SECRET.",
    ),
    Key(
        "PV_CONTROL_HTTP_SECRET",
        TEXT,
        "",
        PVO,
        "What a client of that endpoint must know: its access token, or the password of the user `device`. "
        "At least 16 characters.",
        secret=True,
        additive=True,
    ),
    _ours(
        "PV_CONTROL_HTTP_CERTIFICATE",
        TEXT,
        "",
        PV,
        "PEM file with certificate and key for that endpoint; empty: it speaks plain HTTP, for trusted networks only.",
    ),
    _ours(
        "PV_ROLES_DEFAULT_MGMT",
        FLAG,
        "0",
        PVO,
        "1: a container without `roles` may manage the device, as the reference has it. 0: it may not.",
    ),
)

_LOG = (
    Key("PV_LOG_AUTO_DEVLOG", FLAG, "1", PVO, "Give each container a `/dev/log`."),
    Key("PV_LOG_CAPTURE", FLAG, "1", PVO, "Capture the logs of containers."),
    Key("PV_LOG_CAPTURE_DMESG", FLAG, "1", PVO, "Capture the kernel's log."),
    Key("PV_LOG_LOGGERS", FLAG, "1", PVO, "Follow the log files that containers declare."),
    Key("PV_LOG_BUF_NITEMS", INTEGER, "128", PVO, "Size of the log buffer in KiB.", ("log.buf_nitems",), least=1),
    Key("PV_LOG_DIR", PATH, "/storage/logs/", PV, "Where logs are kept, one folder a revision."),
    Key(
        "PV_LOG_DIR_MAXSIZE",
        SIZE,
        "16777216",
        PVOR,
        "Most that all kept logs may take, 0: unlimited.",
        ("log.dir.maxsize", "log.maxsize"),
    ),
    Key("PV_LOG_LEVEL", INTEGER, "0", PVOR, "0 fatal to 6 all."),
    Key("PV_LOG_PUSH", FLAG, "1", PVOR, "Send logs to the hub.", ("log.push", "pantahub.log.push")),
    _ours(
        "PV_LOG_PUSH_MAX",
        SIZE,
        "4194304",
        PVOR,
        "Most that may wait for the hub while it cannot be reached; the oldest goes first.",
        least=4096,
    ),
    Key(
        "PV_LOG_HYSTERESIS_FACTOR",
        INTEGER,
        "4",
        PVOR,
        "How much below its limit the log folder is brought, 1/n.",
        least=1,
    ),
    _ours(
        "PV_LOG_WEAR_MAX",
        SIZE,
        "67108864",
        PVOR,
        "Most that one container's messages may write to flash in a day; what is beyond is dropped and counted.",
        least=65536,
    ),
    Key("PV_LOG_ROTATE_FACTOR", INTEGER, "5", PVOR, "How many pieces a log is rotated into.", least=1),
    Key(
        "PV_LOG_SERVER_OUTPUTS",
        WORDS,
        "filetree",
        PVOR,
        "Where logs go: `filetree`, `singlefile`, `stdout`, `update`, by commas.",
    ),
    Key("PV_LOG_FILETREE_TIMESTAMP_FORMAT", TEXT, "", PVOR, "Time format in the file tree, as strftime."),
    Key("PV_LOG_SINGLEFILE_TIMESTAMP_FORMAT", TEXT, "", PVOR, "Time format in the single file, as strftime."),
    Key("PV_LOG_STDOUT_TIMESTAMP_FORMAT", TEXT, "", PVOR, "Time format on the console, as strftime."),
    _choice("PV_LOG_TIMESTAMP", "relative", PVOR, "relative absolute", "Time since boot, or of day."),
)

_POWER = (
    _choice("PV_POWER_MODE", "locks", PVOR, "disabled locks managed", "Use of wake locks and autosleep."),
    Key("PV_POWER_DEVMETA_EAGER_PUSH", FLAG, "0", PVOR, "Stay awake to send metadata."),
    Key("PV_POWER_WAKE_INTERVAL", SECONDS, "3600", PVOR, "How often a sleeping device wakes up to ask the hub."),
    Key("PV_POWER_WAKE_RUN_WINDOW", SECONDS, "0", PVOR, "How long it then stays awake at least."),
    Key("PV_POWER_AUTOSLEEP_SETTLE", SECONDS, "90", PVOR, "How long after boot the device may first sleep."),
    Key("PV_POWER_WAKE_MIN_AWAKE", SECONDS, "10", PVOR, "Shortest time awake."),
    Key("PV_POWER_WAKE_MAX_AWAKE", SECONDS, "60", PVOR, "Longest time awake for one poll."),
    Key("PV_POWER_DEVMETA_MAX_HELD", SECONDS, "300", PVOR, "Longest time that metadata may keep it awake."),
    Key("PV_POWER_SYSFS_DIR", PATH, "/sys/power", PVOR, "The kernel's power interface."),
)

_REVISION = (
    Key(
        "PV_REVISION_RETRIES",
        INTEGER,
        "10",
        PVOR,
        "Attempts at one step; reaching this number ends it as WONTGO.",
        least=1,
    ),
    Key("PV_SECUREBOOT_CHECKSUM", FLAG, "1", PV, "Hash every object at boot."),
    Key("PV_SECUREBOOT_HANDLERS", FLAG, "1", PV, "Use dm-verity where a revision has it."),
    _choice("PV_SECUREBOOT_MODE", "lenient", PV, "disabled audit lenient strict", _SECUREBOOT),
    Key(
        "PV_SECUREBOOT_TRUSTSTORE",
        TEXT,
        "ca-certificates",
        PV,
        _TRUSTSTORE,
    ),
    Key(
        "PV_SECUREBOOT_OEM_TRUSTSTORE",
        TEXT,
        "ca-oem-certificates",
        PV,
        "Name of the OEM's trust store.",
        ("secureboot.oem.truststore", "PV_SECUREBOOT_OEM_TRUSTORE", "secureboot.oem.trustore"),
    ),
    Key("PV_STORAGE_DEVICE", TEXT, "", PV, "Storage partition: a device, `LABEL=`, `UUID=` or a UBI volume."),
    Key("PV_STORAGE_FSTYPE", TEXT, "ext4", PV, "Its file system."),
    Key("PV_STORAGE_MNTPOINT", PATH, "/storage", PV, "Where it is mounted."),
    Key("PV_STORAGE_MNTTYPE", TEXT, "", PV, "Name of a helper `/btools/pvmnt.<type>` that mounts it."),
    Key("PV_STORAGE_LOGTEMPSIZE", TEXT, "", PV, "Size of a tmpfs for logs; empty: logs go to storage."),
    Key("PV_STORAGE_WAIT", SECONDS, "5", PV, "How long the storage device may take to appear."),
    Key(
        "PV_STORAGE_GC_KEEP_FACTORY",
        FLAG,
        "1",
        PVOR,
        "Never collect revision 0. The reference's default is 0, which makes a factory reset impossible.",
        ("storage.gc.keep_factory", "updater.keep_factory"),
    ),
    Key("PV_STORAGE_GC_RESERVED", INTEGER, "5", PVOR, "Percentage of storage that updates may not use."),
    Key(
        "PV_STORAGE_GC_THRESHOLD",
        INTEGER,
        "0",
        PVOR,
        "Percentage in use above which old revisions are collected, 0: only when needed.",
    ),
    Key(
        "PV_STORAGE_GC_THRESHOLD_DEFERTIME",
        SECONDS,
        "600",
        PVOR,
        "How long that collection waits after an object was put by hand.",
        ("storage.gc.threshold.defertime",),
    ),
    Key("PV_STORAGE_FIRMWARE_VOL", FLAG, "0", PV, "Keep changed firmware on the volume `pv--firmware`."),
    Key("PV_STORAGE_PHCONFIG_VOL", FLAG, "0", PV, "Keep the hub's credentials on the volume `pv--phconfig`."),
    Key(
        "PV_UPDATER_COMMIT_DELAY",
        SECONDS,
        "25",
        PVOR,
        "How long a tried revision must stay good before it is committed.",
    ),
    Key(
        "PV_UPDATER_GOALS_TIMEOUT",
        SECONDS,
        "120",
        PVO,
        "How long containers may take to reach their status goals.",
        least=1,
    ),
    Key(
        "PV_UPDATER_USE_TMP_OBJECTS",
        FLAG,
        "0",
        PVOR,
        "Read for compatibility; without effect: partial downloads stay where they can be resumed.",
        ("updater.use_tmp_objects",),
    ),
)


def _with_alias(key: Key) -> Key:
    """The dotted legacy name of a key: its name without prefix, in lower case, dots for underscores."""
    dotted = key.name[3:].lower().replace("_", ".")
    if key.additive or dotted in key.aliases:
        return key
    return key._replace(aliases=(dotted, *key.aliases))


KEYS: dict[str, Key] = {k.name: _with_alias(k) for k in (*_HUB, *_BOOT, *_SYSTEM, *_LOG, *_POWER, *_REVISION)}
