"""TensorBoard curves of a group, written without a queue."""

import contextlib
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Curves:
    """An event file of scalars; empty if tensorboardX is missing.

    If the file cannot be written, one line on stderr reports it, and the curves end. tensorboardX's
    own writer would queue events for a thread, and wait forever after that thread has died.
    """

    def __init__(self, directory: Path, step: int):
        self._directory = directory
        self._writer: Any = None
        self._guarded(lambda: self._open(step))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each named curve."""
        if self._writer is not None:
            self._guarded(lambda: self._add(step, values))

    def flush(self) -> None:
        """Waits until all points are on disk."""
        if self._writer is not None:
            self._guarded(self._writer.flush)

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._guarded(self._writer.close)
            self._writer = None

    def _open(self, step: int) -> None:
        """Opens a file whose events replace those of earlier files from `step` on."""
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2

        protos: Any = event_pb2
        self._directory.parent.mkdir(exist_ok=True)
        self._directory.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{time.time_ns()}"
        self._writer = record_writer.RecordWriter(str(self._directory / name))
        start = protos.SessionLog(status=protos.SessionLog.START)
        self._write(protos.Event(file_version="brain.Event:2"))
        self._write(protos.Event(step=step, session_log=start))

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        protos: Any = event_pb2
        for name, value in values.items():
            self._write(protos.Event(step=step, summary=scalar(name, value)))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())

    def _guarded(self, call: Callable[[], object]) -> None:
        """Calls `call`; a failure prints a line on stderr and ends the curves."""
        try:
            call()
        except (ImportError, OSError) as error:
            self._abandon()
            why = "they need tensorboardX" if isinstance(error, ImportError) else error.strerror
            line = f"note: {self._directory}: no curves from here on ({why}); the run goes on"
            print(line, file=sys.stderr, flush=True)

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
