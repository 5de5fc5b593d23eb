"""Trials for TensorBoard's HParams tab: settings and final metrics, a session for each trial."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

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
    """
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams
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
        told = {name: known[name] for name in metrics}
        with SummaryWriter(str(directory / str(trial))) as writer:
            for summary in hparams({name: known[name] for name in settings}, told):
                assert writer.file_writer is not None
                writer.file_writer.add_summary(summary)
            for name, value in told.items():
                if value is not None and math.isfinite(value):
                    writer.add_scalar(name, value, known.get("step", 0))
