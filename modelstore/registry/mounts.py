"""What the machine tells about folders and processes."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["boot_id", "compares_times", "keeps_names", "machine_id", "network_filesystem", "process_is_alive"]

_NETWORK: Final = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "pvfs2",
        "orangefs", "wekafs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone",
        "fuse.ceph", "fuse.mfs", "fuse.juicefs", "fuse.goofys", "fuse.blobfuse", "fuse.davfs", "davfs",
    )
)  # fmt: skip

_TABLE: Final = "/proc/self/mountinfo"
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


def network_filesystem(folder: Path) -> str | None:
    """Return the kind of network filesystem that a folder lies on ("nfs4"); None for a local one or an unknown."""
    try:
        with open(_TABLE, "rb") as stream:
            mounts = _parsed(stream.read())
    except OSError:
        return None
    path = os.path.realpath(folder)
    while path not in mounts and path != "/":
        path = os.path.dirname(path)
    kind = mounts.get(path)
    return kind if kind in _NETWORK else None


@lru_cache(maxsize=1)
def _parsed(table: bytes) -> dict[str, str]:
    """Return the kinds of filesystems by where they are mounted; opening a shared registry asks several times."""
    mounts = {}
    for line in table.split(b"\n"):
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) > 4 and right:
            where = _ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), fields[4])
            mounts[os.fsdecode(where)] = right.split(b" ", 1)[0].decode()  # later mounts cover earlier
    return mounts


def keeps_names(folder: Path) -> bool:
    """Tell whether a name in a folder is durable as soon as it is made, so that syncing the folder is of no use.

    On NFS the server answers a change of a folder when it is on its disk; Linux does nothing to sync one.
    """
    kind = network_filesystem(folder)
    return kind is not None and kind.startswith("nfs")


def compares_times(folder: Path) -> bool:
    """Tell whether other hosts notice a change of a folder only by its time: NFS before version 4."""
    return network_filesystem(folder) == "nfs"


def machine_id() -> str:
    """Return something that tells this machine from others; its name where there is nothing better."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path) as stream:
                text = stream.read().strip()
        except OSError:
            continue
        if text:
            return text
    return os.uname().nodename


def boot_id() -> str:
    """Return what tells this start of the kernel from others; "" where nothing does."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def process_is_alive(pid: int) -> bool:
    """Tell whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
