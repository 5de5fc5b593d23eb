"""The lock of a run directory: one process at a time."""

import contextlib
import os
import socket
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: directories are not locked
    fcntl = None

LOCK = ".lock"

_held: "weakref.WeakValueDictionary[tuple[int, int], Lock]" = weakref.WeakValueDictionary()


class Lock:
    """A file lock of this process; the kernel releases it when the object or the process ends.

    Raises:
      BlockingIOError: another process holds it.
    """

    def __init__(self, descriptor: int):
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # ENOLCK, EOPNOTSUPP: the file system has no locks
            if isinstance(error, BlockingIOError):
                raise
        weakref.finalize(self, os.close, descriptor)


def lock_run(directory: Path) -> Lock:
    """Locks a directory; all callers in one process share the lock.

    Raises:
      ValueError: another process has locked it.
    """
    path = directory / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    place = os.fstat(descriptor)
    held = _held.get((place.st_dev, place.st_ino))
    if held is not None:
        os.close(descriptor)
        return held
    try:
        held = Lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        right = "wait until it ends, or end it first"
        raise ValueError(f"{directory} is in use by {_holder(path)}; {right}") from None
    _held[place.st_dev, place.st_ino] = held
    with contextlib.suppress(OSError):  # on a full disk the lock works without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return held


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "another process"
