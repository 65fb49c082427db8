"""A child process for which file permissions hold, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable

__all__ = ["obeying_permissions"]

_VERSION_3 = 0x20080522
_DAC = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root ignore permissions


def _obey() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for index in (0, 1):  # effective, permitted
        sets[index] &= ~_DAC
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def obeying_permissions(call: Callable[[], None]) -> None:
    """Run a call in a forked child that has no right to ignore permissions; fails when the call does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _obey()
            call()
            status = 0
        except BaseException:  # noqa: BLE001 - shown here: the child must not go on as a second test run
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see the traceback of the child"
