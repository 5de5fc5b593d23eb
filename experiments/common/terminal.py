"""The terminal of a command: its lines, its characters, and the loss of its reader."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable

INTERRUPTED = 130  # exit codes, as a shell has them
CLOSED = 141


class Failed(Exception):
    """A run ended without a result; the message says why and what may help."""


class Silenced(Exception):
    """Raised when standard output accepts no more.

    Attributes:
      code: the exit code.
    """

    def __init__(self, reason: str, code: int):
        super().__init__(reason, code)
        self.code = code

    def __str__(self) -> str:
        return f"standard output: {self.args[0]}"


def write(text: str) -> None:
    """Prints to standard output at once.

    Raises:
      Silenced: if its reader is gone, or its disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        _drop_output()
        code = CLOSED if error.errno == errno.EPIPE else 1
        raise Silenced(str(error.strerror), code) from None


def command(name: str, prepare: Callable[[], Callable[[], int]]) -> int:
    """Returns the exit code of a command.

    Characters that the terminal lacks are written as escapes.

    Args:
      name: of the command.
      prepare: checks the input and returns the work; a ValueError is bad input.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        work = prepare()
    except Silenced as silenced:
        print(f"{name}: {silenced}", file=sys.stderr)
        return silenced.code
    except KeyboardInterrupt:
        print(f"{name}: interrupted before anything was made", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except Failed as failed:
        print(f"stopped: {failed}", file=sys.stderr)
        return 1
    return work()


def _drop_output() -> None:
    """Discards buffered output, so that Python's exit does not write it again."""
    with contextlib.suppress(OSError):  # a test's is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
