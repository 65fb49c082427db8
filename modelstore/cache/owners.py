"""Which process something in the cache belongs to, and whether that process still lives.

A pid alone says nothing: it is used again, means another process in another container, and is checked in vain from
another host. An owner is therefore written as host, boot, pid namespace, pid and start time.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

__all__ = ["Owner", "is_alive", "parse_owner", "this_process"]


@dataclass(frozen=True, slots=True)
class Owner:
    """One process, named so that no other process on any host is taken for it.

    Attributes:
        host: 8 hex digits for the host's name.
        boot: 8 hex digits for this start of the kernel; the same in all containers of a host.
        namespace: 8 hex digits for the pid namespace.
        pid: The process id inside that namespace.
        started: When the process started, in the kernel's ticks since boot; 0 where that cannot be told.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    @property
    def token(self) -> str:
        """The owner as part of a file name; `parse_owner` reads it."""
        return f"{self.host}-{self.boot}-{self.namespace}-{self.pid}-{self.started}"


def parse_owner(token: str) -> Owner | None:
    """Read an owner's token; None when it is not one."""
    parts = token.split("-")
    if len(parts) != 5 or not parts[3].isdigit() or not parts[4].isdigit():
        return None
    return Owner(parts[0], parts[1], parts[2], int(parts[3]), int(parts[4]))


_current: Owner | None = None


def this_process() -> Owner:
    """Return the owner that stands for the running process; after a fork, another one."""
    global _current  # noqa: PLW0603 - the answer costs four system calls and holds for the life of the process
    pid = os.getpid()
    if _current is None or _current.pid != pid:
        _current = Owner(_short(os.uname().nodename), _boot(), _namespace(), pid, (_running(pid) or ("", 0))[1])
    return _current


def is_alive(owner: Owner) -> bool | None:
    """Tell whether the process lives; None where that cannot be seen from here (another host or container)."""
    me = this_process()
    if owner == me:
        return True
    if owner.boot != me.boot:
        return False if owner.host == me.host else None
    if owner.namespace != me.namespace:
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and is somebody else's
    running = _running(owner.pid)
    if running is None:
        return True  # exists, and /proc will not say more (hidepid, or no /proc)
    state, started = running
    return state not in "ZX" and (owner.started in {0, started})


def _running(pid: int) -> tuple[str, int] | None:
    """Return the process's state letter and start time; None where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[19])


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return _short(file.read())
    except OSError:
        return _short("")


def _namespace() -> str:
    try:
        return _short(os.readlink("/proc/self/ns/pid"))
    except OSError:
        return _short("")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
