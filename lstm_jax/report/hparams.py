"""Trials for TensorBoard's HParams tab: settings and final metrics, a session for each trial."""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_jax.report import space as spaces
from lstm_jax.report.ledger import Record


def write(
    directory: Path, records: Sequence[Record], settings: Sequence[str], metrics: Sequence[str]
) -> None:
    """Writes an event file for each trial, `directory`/0, /1, ...; what was there is replaced.

    TensorBoard reads the names of settings and metrics from one of the sessions, so that every
    trial must have all of them. A metric that is no number (of a trial that diverged) is left out:
    the tab shows an empty cell.

    Args:
      directory: what to show with `tensorboard --logdir`, a room of its own.
      records: one a trial.
      settings: names of fields with numbers, strings or truth values.
      metrics: names of fields with numbers.

    Raises:
      ValueError: a record lacks one of the fields, or nothing to show is named.
      ImportError: tensorboardX is missing.
      OSError: a file cannot be written.
    """
    try:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2
    except ImportError:
        raise ImportError(
            "HParams need tensorboardX: pip install 'lstm_jax[experiments]'"
        ) from None
    if not settings or not metrics:
        raise ValueError(f"settings {settings}, metrics {metrics}: need one or more of each")
    columns = {name: spaces.column(records, name) for name in (*settings, *metrics)}
    event: Any = event_pb2
    shutil.rmtree(directory, ignore_errors=True)
    for trial in range(len(records)):
        known = {name: values[trial] for name, values in columns.items()}
        results = {name: known[name] for name in metrics}
        numbers = {k: v for k, v in results.items() if v is not None and math.isfinite(v)}
        summaries = [
            *summary.hparams({name: known[name] for name in settings}, results),
            *(summary.scalar(name, value) for name, value in numbers.items()),
        ]
        (directory / str(trial)).mkdir(parents=True)
        writer = event_file_writer.EventsWriter(
            str(directory / str(trial) / "events")
        )  # no thread to wait for
        for one in summaries:
            writer.write_event(
                event.Event(wall_time=time.time(), step=known.get("step", 0), summary=one)
            )
        writer.close()
