"""A meeting of the processes of one run before jax starts, for clear error messages.

If a port is in use, a process is missing or two have the same index, jax itself aborts with C++
stack frames. Here process 0 first listens on the coordinator's port. Every other process reports
its index and the number of processes. Then all continue, or fail with the same sentence.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

RETRY = 0.2  # seconds between two attempts to reach process 0
LINE = 4096  # bytes of a message, at most


def meet(coordinator: str, processes: int, process: int, seconds: float) -> None:
    """Returns once all processes of a run have met at the coordinator's address.

    Args:
      coordinator: host:port of process 0.
      processes: their number.
      process: the index of this one, from 0.
      seconds: time to wait for the others.

    Raises:
      ValueError: the host is unknown, the port is in use, a process is missing, two processes have
        the same index, or they expect different numbers of processes.
    """
    host, _, port = coordinator.rpartition(":")
    address, me = (host.strip("[]"), int(port)), Card(process, processes)
    try:
        socket.getaddrinfo(*address)
    except OSError as error:
        raise ValueError(f"process {process} finds no host {host} ({error.strerror})") from None
    if process == 0:
        _receive(coordinator, address[1], me, seconds)
    else:
        _arrive(coordinator, address, me, seconds)


class Card(NamedTuple):
    """The message of a process: its index, and the number of processes that it expects."""

    process: int
    of: int


def _receive(coordinator: str, port: int, me: Card, seconds: float) -> None:
    """Waits in process 0 for all others, and sends them the fault, if any."""
    met: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened, _listening(port) as listener:
        fault = None
        try:
            _gather(listener, opened, met, me, time.monotonic() + seconds)
        except TimeoutError:
            missing = ", ".join(str(i) for i in range(1, me.of) if i not in met)
            fault = (
                f"process 0 waited {seconds:.0f} s at {coordinator} and did not hear from process "
                f"{missing}: check that it runs and reaches this address"
            )
        except ValueError as error:
            fault = str(error)
        for peer in met.values():
            with contextlib.suppress(OSError):
                _send(peer, {"fault": fault})
    if fault is not None:
        raise ValueError(fault)


def _gather(
    listener: socket.socket,
    opened: contextlib.ExitStack,
    met: dict[int, socket.socket],
    me: Card,
    deadline: float,
) -> None:
    """Fills `met`; raises TimeoutError after the deadline, ValueError for a wrong process."""
    while len(met) < me.of - 1:
        listener.settimeout(max(RETRY, deadline - time.monotonic()))
        peer = opened.enter_context(listener.accept()[0])
        message = _read(peer, RETRY + max(0, deadline - time.monotonic()))
        if message is None or not message.keys() >= set(Card._fields):
            continue  # another program
        card = Card(message["process"], message["of"])
        try:
            _check(card, me, met)
        except ValueError as error:
            _send(peer, {"fault": str(error)})
            raise
        met[card.process] = peer


def _check(card: Card, me: Card, met: Collection[int]) -> None:
    if card.of != me.of:
        counts = f"{card.of} in process {card.process}, {me.of} in process 0"
        raise ValueError(f"processes must be the same in every process: {counts}")
    if card.process in met:
        raise ValueError(f"process={card.process} is taken twice: need another number for each")


def _arrive(coordinator: str, address: tuple[str, int], me: Card, seconds: float) -> None:
    """Reports to process 0 and waits for its answer."""
    try:
        peer = _reached(address, time.monotonic() + seconds)
    except OSError as error:
        raise ValueError(
            f"process {me.process} waited {seconds:.0f} s for process 0 at {coordinator} "
            f"({error.strerror or error}): check that it runs there and that the port is open"
        ) from None
    with peer:
        _send(peer, me._asdict())
        answer = _read(peer, seconds + 1)
    if answer is None or "fault" not in answer:
        raise ValueError(
            f"process {me.process} reached {coordinator}, but not process 0 of its run: check that "
            "no other program uses the port, and that process 0 runs"
        )
    if answer["fault"] is not None:
        raise ValueError(answer["fault"])


def _reached(address: tuple[str, int], deadline: float) -> socket.socket:
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection(address, timeout=max(RETRY, left))
        except OSError:
            if left < 0:
                raise
            time.sleep(RETRY)


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ValueError(f"process 0 cannot listen at port {port} ({reason})") from None
    with listener:
        yield listener


def _send(peer: socket.socket, message: Mapping[str, Any]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\n")


def _read(peer: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Returns a message; None for anything else, and after the time limit."""
    peer.settimeout(seconds)
    try:
        with peer.makefile("rb") as lines:
            message = json.loads(lines.readline(LINE))
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
