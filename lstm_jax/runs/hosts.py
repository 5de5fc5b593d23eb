"""Several processes as one: what they agree on, who touches the disk, and what ends them all.

Every process runs the same program over all devices and makes the same calls in the same order.
What depends on a disk, a clock or a signal is therefore process 0's to say, or all agree on it. A
process that is alone agrees with itself at no cost.
"""

import contextlib
import os
import pickle
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lstm_jax.runs import rendezvous

T = TypeVar("T")

BLOCK = 1 << 24  # bytes sent at a time
PATIENCE = 60  # seconds that a process waits for the others to start
FAREWELL = 60  # seconds that the first to end waits for the others


class Lost(Exception):
    """Another process of the run is gone, so that this one cannot go on."""


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Makes this process one of several, before jax starts.

    Args:
      coordinator: host:port of process 0; with None for all, the cluster is detected: a TPU pod,
        SLURM, Open MPI, Kubernetes.
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      ValueError: nothing is detected, or the processes do not meet within `PATIENCE`, see
        `rendezvous.meet`.
    """
    if coordinator is not None and processes is not None and process is not None:
        rendezvous.meet(coordinator, processes, process, PATIENCE)
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM stays Python's
    detection = None if coordinator is None else "deactivate"
    try:
        jax.distributed.initialize(
            coordinator, processes, process, cluster_detection_method=detection,
            initialization_timeout=PATIENCE, shutdown_timeout_seconds=FAREWELL,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def check_devices() -> None:
    """Raises ValueError unless every process has as many devices as the others."""
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        told = ", ".join(str(counts[process]) for process in sorted(counts))
        raise ValueError(f"every process must have as many devices as the others, got {told}")


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this is process 0, which alone reads, writes and tells."""
    return jax.process_index() == 0


def each(*numbers: int) -> np.ndarray:
    """Returns [processes, numbers] uint32: what every process says; waits for all of them.

    Raises:
      Lost: a process is gone.
    """
    said = np.array(numbers, np.uint32)
    if not several():
        return said[None]
    with _losing():
        return multihost_utils.process_allgather(said)


def lead(call: Callable[[], T]) -> T:
    """Lets process 0 call; every process returns what it returned, or raises what it raised.

    Inside `call` nothing may wait for other processes: they wait here.

    Raises:
      Lost: a process is gone.
    """
    if not several():
        return call()
    sent = _outcome(call) if leads() else b""
    size = int(each(len(sent))[0, 0])
    with _losing():
        received = b"".join(_broadcast(sent, at, size) for at in range(0, size, BLOCK))
    result, error = pickle.loads(received)  # sent by our own process 0
    if error is not None:
        raise error
    return result


def fetch(leaf: Any) -> np.ndarray:
    """Returns all of an array, whichever devices of whichever process it is on; waits for it.

    Raises:
      Lost: a process is gone.
    """
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    with _losing():
        return multihost_utils.process_allgather(leaf, tiled=True)


def check_alike(what: str, value: Any) -> None:
    """Raises ValueError, in every process, unless the value's repr is the same in all of them."""
    marks = each(zlib.crc32(repr(value).encode()))[:, 0]
    for process in np.flatnonzero(marks != marks[0]):
        raise ValueError(f"{what} must be the same in every process: process {process} has another")


def leave(code: int) -> int:
    """Ends this process at once if it is one of several, so that no other waits for it.

    Returns:
      The exit code, where it is alone.
    """
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _outcome(call: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((call(), None))
    except Exception as error:
        return pickle.dumps((None, error))


def _broadcast(sent: bytes, start: int, size: int) -> bytes:
    """Sends a block from process 0, padded to a power of two, so that few shapes are compiled."""
    count = min(BLOCK, size - start)
    block = np.zeros(1 << (count - 1).bit_length(), np.uint8)
    mine = sent[start : start + count]
    block[: len(mine)] = np.frombuffer(mine, np.uint8)
    return multihost_utils.broadcast_one_to_all(block)[:count].tobytes()


@contextlib.contextmanager
def _losing() -> Iterator[None]:
    """Calls by its name what a collective says when a process is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise Lost(f"another process is gone: {str(error).splitlines()[0]}") from error
