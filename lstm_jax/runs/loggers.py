"""Loggers: functions that get the progress of training, and adapters for experiment trackers.

A logger is called with one record for each running trial: {"trial", "step", "loss", "metric"}, and
with validation also "validation_loss".
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lstm_jax.runs import hosts
from lstm_jax.runs.directory import NoLog

Logger = Callable[[Sequence[Mapping[str, Any]]], None]


def wandb(run: Any) -> Logger:
    """Returns a logger to a run of Weights & Biases, the result of `wandb.init`.

    The metrics of trial 3 are loss/3, metric/3 and validation_loss/3.
    """
    return lambda records: run.log(_named(records), step=_step(records))


def trackio(module: Any) -> Logger:
    """Returns a logger to Trackio, after `trackio.init`; its names are those of `wandb`."""
    return lambda records: module.log(_named(records), step=_step(records))


def mlflow(module: Any) -> Logger:
    """Returns a logger to the active run of MLflow; its names are those of `wandb`."""
    return lambda records: module.log_metrics(_named(records), step=_step(records))


class Logged(NoLog):
    """A log that also passes progress to loggers, in process 0."""

    def __init__(self, log: NoLog, loggers: Sequence[Logger]):
        self._log, self._loggers = log, loggers
        self.restore, self.curves, self.checkpoint = log.restore, log.curves, log.checkpoint

    def progress(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends progress records to the ledger, and passes them to the loggers."""
        records = list(records)
        self._log.progress(records)
        if records and hosts.leads():
            for logger in self._loggers:
                logger(records)


def _named(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns name/trial -> value for the finite values."""
    values = {
        f"{name}/{record['trial']}": float(value)
        for record in records
        for name, value in record.items()
        if name not in ("trial", "step")
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _step(records: Sequence[Mapping[str, Any]]) -> int:
    return int(records[0]["step"])
