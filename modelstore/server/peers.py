"""Whose program is at the other end of a connection within this machine: Linux knows, and cannot be lied to."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

__all__ = ["CAN_TELL", "owner"]

CAN_TELL: Final = sys.platform == "linux"

_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
_REQUEST: Final = 1  # NLM_F_REQUEST of linux/netlink.h
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_ANY: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("=IHHII")  # nlmsghdr
_ASKED: Final = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to its socket
_TOLD: Final = struct.Struct("=4B48x5I")  # inet_diag_msg: the user is the last but one of the five


def owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the id of the user whose program opened a connection; None where that cannot be told.

    Args:
        client: Address and port of the end that opened it.
        server: Of the other end.
    """
    if not CAN_TELL:
        return None
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    try:
        ends = [socket.inet_pton(family, one[0].partition("%")[0]).ljust(16, b"\0") for one in (client, server)]
        wanted = struct.pack("!HH", client[1], server[1]) + b"".join(ends) + struct.pack("=III", 0, _ANY, _ANY)
        body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY) + wanted
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
            asking.settimeout(1)
            asking.sendto(_HEAD.pack(_HEAD.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body, (0, 0))
            answer = asking.recv(1 << 16)
    except OSError:
        return None
    if len(answer) < _HEAD.size + _TOLD.size or _HEAD.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    user: int = _TOLD.unpack_from(answer, _HEAD.size)[-2]
    return user
