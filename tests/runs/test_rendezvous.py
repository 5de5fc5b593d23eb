"""Processes meet, or each of them learns in one sentence who is missing or wrong."""

import socket
import threading
import time

import pytest

from lstm_jax.runs import rendezvous
from tests.processes import LIMIT


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def met(*cards: tuple[int, int], seconds: float = 1.0, port: int | None = None) -> list[str]:
    """What each process (its number, of how many) hears; "" where all met."""
    said = ["nothing"] * len(cards)
    where = f"127.0.0.1:{port or free_port()}"

    def go(place: int) -> None:
        process, processes = cards[place]
        try:
            rendezvous.meet(where, processes, process, seconds)
            said[place] = ""
        except ValueError as error:
            said[place] = str(error).replace(where, "HERE")

    threads = [threading.Thread(target=go, args=(place,)) for place in range(len(cards))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(LIMIT)
    return said


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_processes_meet_in_any_order_and_leave_the_port_free(order):
    port = free_port()
    assert met(*((process, 3) for process in order), port=port) == [""] * 3
    with socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True):
        pass


def test_one_that_is_alone_meets_itself():
    assert met((0, 1)) == [""]


def test_a_missing_process_is_named_to_all_that_came():
    missing = "process 0 waited 1 s at HERE and did not hear from process 2: check that it runs"
    for heard in met((0, 3), (1, 3)):
        assert heard.startswith(missing)


def test_a_missing_process_0_is_named():
    (heard,) = met((1, 2))
    assert heard.startswith(
        "process 1 waited 1 s for process 0 at HERE (Connection refused): check"
    )


def test_processes_that_differ_in_their_number_are_refused_by_all():
    right = "processes must be the same in every process: 3 in process 1, 2 in process 0"
    assert met((0, 2), (1, 3)) == [right] * 2


def test_a_number_that_is_taken_twice_is_refused_by_all():
    right = "process=1 is taken twice: need another number for each"
    assert met((0, 3), (1, 3), (1, 3)) == [right] * 3


def test_a_host_that_is_unknown_is_named():
    with pytest.raises(ValueError, match=r"^process 1 finds no host no\.invalid \("):
        rendezvous.meet("no.invalid:1234", 2, 1, 1.0)


def test_a_port_in_use_is_refused_before_jax_binds_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (heard,) = met((0, 2), port=port)
    assert heard.startswith(f"process 0 cannot listen at port {port} (Address already in use)")


def test_another_program_at_the_port_is_not_taken_for_process_0():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet():
            peer, _ = other.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        threading.Thread(target=greet, daemon=True).start()
        (heard,) = met((1, 2), port=other.getsockname()[1])
    assert heard.startswith("process 1 reached HERE, but not process 0 of its run")


def test_a_stranger_at_process_0_is_ignored():
    port, heard = free_port(), []
    first = threading.Thread(target=lambda: heard.extend(met((0, 2), port=port, seconds=5)))
    first.start()
    with rendezvous._reached(("127.0.0.1", port), time.monotonic() + 5) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert met((1, 2), port=port, seconds=5) == [""]
    first.join(LIMIT)
    assert heard == [""]
