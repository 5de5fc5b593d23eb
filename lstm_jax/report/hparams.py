"""Trials for TensorBoard's HParams tab: settings and final metrics, a session for each trial."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_jax.report import space as spaces
from lstm_jax.report.ledger import Record


def write(
    directory: Path, records: Sequence[Record], settings: Sequence[str], metrics: Sequence[str]
) -> None:
    """Writes an event file for each trial in `directory`/0, /1, ..., in place of older ones.

    TensorBoard reads the names of settings and metrics from one session, so every trial must have
    all of them. A metric that is not finite (of a trial that diverged) is an empty cell of the tab.

    Args:
      directory: of these files alone, for `tensorboard --logdir`.
      records: one for each trial.
      settings: names of fields with numbers, strings or truth values.
      metrics: names of fields with numbers.

    Raises:
      ValueError: a record lacks one of the fields, or `settings` or `metrics` is empty.
      ImportError: tensorboardX is missing.
      OSError: a file cannot be written.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise ImportError(
            "HParams need tensorboardX: pip install 'lstm_jax[experiments]'"
        ) from None
    if not settings or not metrics:
        raise ValueError(f"settings {settings}, metrics {metrics}: need one or more of each")
    columns = {name: spaces.column(records, name) for name in (*settings, *metrics)}
    shutil.rmtree(directory, ignore_errors=True)
    for trial in range(len(records)):
        known = {name: values[trial] for name, values in columns.items()}
        hyperparameters = {name: known[name] for name in settings}
        results = {name: known[name] for name in metrics}
        _write_session(directory / str(trial), hyperparameters, results, known.get("step", 0))


def _write_session(
    directory: Path, settings: Mapping[str, Any], results: Mapping[str, Any], step: int
) -> None:
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    event: Any = event_pb2
    numbers = {k: v for k, v in results.items() if v is not None and math.isfinite(v)}
    summaries = [
        *summary.hparams(settings, results),
        *(summary.scalar(name, value) for name, value in numbers.items()),
    ]
    directory.mkdir(parents=True)
    writer = event_file_writer.EventsWriter(str(directory / "events"))  # has no thread to wait for
    for one in summaries:
        writer.write_event(event.Event(wall_time=time.time(), step=step, summary=one))
    writer.close()
