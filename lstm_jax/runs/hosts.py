"""Coordination of several processes that share one run.

Every process runs the same program over all devices and makes the same calls in the same order. A
decision that depends on a disk, a clock or a signal is therefore made by process 0, or by all
together. A single process pays nothing for this.
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
START_SECONDS = 60  # that a process waits for the others to start
END_SECONDS = 60  # that a finished process waits for the others


class Lost(Exception):
    """Another process of the run has died, so this one cannot continue."""


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Makes this process one of several, before jax starts.

    Args:
      coordinator: host:port of process 0; with None for all, the cluster is detected: a TPU pod,
        SLURM, Open MPI, Kubernetes.
      processes: their number.
      process: the index of this one, from 0.

    Raises:
      ValueError: no cluster is detected, or the processes do not meet within `START_SECONDS`, see
        `rendezvous.meet`.
    """
    if coordinator is not None and processes is not None and process is not None:
        rendezvous.meet(coordinator, processes, process, START_SECONDS)
    jax.config.update("jax_enable_preemption_service", False)  # this program handles SIGTERM
    detection = None if coordinator is None else "deactivate"
    try:
        jax.distributed.initialize(
            coordinator, processes, process, cluster_detection_method=detection,
            initialization_timeout=START_SECONDS, shutdown_timeout_seconds=END_SECONDS,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def check_devices() -> None:
    """Raises ValueError unless every process has as many devices as the others."""
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        found = ", ".join(str(counts[process]) for process in sorted(counts))
        raise ValueError(f"every process must have as many devices as the others, got {found}")


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this is process 0, which alone reads, writes and prints."""
    return jax.process_index() == 0


def each(*numbers: int) -> np.ndarray:
    """Returns the numbers of every process, [processes, numbers] uint32; waits for all of them.

    Raises:
      Lost: a process has died.
    """
    own = np.array(numbers, np.uint32)
    if not several():
        return own[None]
    with _losing():
        return multihost_utils.process_allgather(own)


def lead(call: Callable[[], T]) -> T:
    """Calls in process 0; every process returns the result, or raises the exception.

    `call` must not wait for other processes: they wait here.

    Raises:
      Lost: a process has died.
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
    """Returns the whole of an array that may lie on devices of several processes.

    Raises:
      Lost: a process has died.
    """
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    with _losing():
        return multihost_utils.process_allgather(leaf, tiled=True)


def check_alike(what: str, value: Any) -> None:
    """Raises ValueError in every process unless the repr of the value is the same in all."""
    marks = each(zlib.crc32(repr(value).encode()))[:, 0]
    for process in np.flatnonzero(marks != marks[0]):
        raise ValueError(f"{what} must be the same in every process: process {process} has another")


def leave(code: int) -> int:
    """Ends this process at once if it is one of several; else returns the exit code.

    An ordinary exit would wait for the other processes.
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
    """Sends a block from process 0, padded to a power of two, so few shapes are compiled."""
    count = min(BLOCK, size - start)
    block = np.zeros(1 << (count - 1).bit_length(), np.uint8)
    mine = sent[start : start + count]
    block[: len(mine)] = np.frombuffer(mine, np.uint8)
    return multihost_utils.broadcast_one_to_all(block)[:count].tobytes()


@contextlib.contextmanager
def _losing() -> Iterator[None]:
    """Turns the error of a collective after the death of a process into `Lost`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise Lost(f"another process has died: {str(error).splitlines()[0]}") from error
