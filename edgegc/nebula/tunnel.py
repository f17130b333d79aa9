"""The tunnel device of a nebula, kept by the kernel while one process takes the place of another.

The kernel takes a device away with the process that made it, and its addresses and routes along: that alone costs 20 ms in
which nothing can be sent. A persistent device stays, and the next process attaches to it. Knows no process's life.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress

_CLONE_DEVICE = "/dev/net/tun"
_PIDFD_GETFD = 438
"""The same on every architecture, since 5.6; Python has no name for it."""
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
"""As on x86, ARM and RISC-V. Elsewhere the kernel refuses them, and devices go with their processes."""
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000


def keep(pid: int, pidfd: int, *, kept: bool) -> bool:
    """Let the device of a process outlive it, or not any more. Returns whether that was done.

    Not where the kernel is too old, or a sandbox or Yama forbids to borrow the process's descriptor. Blocking, briefly.
    """
    try:
        ours = _borrow(pid, pidfd)
        if ours is None:
            return False
        try:
            fcntl.ioctl(ours, _TUNSETPERSIST, int(kept))
        finally:
            os.close(ours)
    except OSError:
        return False
    return True


def remove(device: str) -> None:
    """Remove a kept device that no process has. Blocking, briefly."""
    with suppress(OSError):
        descriptor = os.open(_CLONE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(
                descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI)
            )
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 0)
        finally:
            os.close(descriptor)


def _borrow(pid: int, pidfd: int) -> int | None:
    """Return a descriptor of ours for the device that a process has open. Only whoever has it open may keep it."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{number}") == _CLONE_DEVICE:
            ours: int = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, int(number), 0)
            if ours < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            return ours
    return None
