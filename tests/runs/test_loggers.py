"""Loggers get the records of progress; adapters call trackers as these are called."""

from typing import Any

import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.runs import loggers
from tests.toys import Line, Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")


class Tracker:
    """A tracker that writes down its calls."""

    def __init__(self):
        self.calls: list[Any] = []

    def log(self, values, step):
        self.calls.append((step, values))

    log_metrics = log


def test_every_logger_gets_the_records_of_the_ledger(tmp_path):
    run, records = lj.RunDirectory.create(tmp_path / "run", {}), []
    trials = lj.make_trials(seed=[0, 1], learning_rate=1e-2)
    trackers = [Tracker() for _ in range(3)]
    each = [
        adapter(tracker)
        for adapter, tracker in zip(
            (loggers.wandb, loggers.trackio, loggers.mlflow), trackers, strict=True
        )
    ]
    settings: Any = dict(chunk=5, loggers=[records.extend, *each], progress=False)
    lj.fit(Line(solvable=False), Slope(), trials, 10, run=run, **settings)
    ledger = [{k: v for k, v in r.items() if k not in ("kind", "group")} for r in run.read()]
    assert [{k: float(v) for k, v in r.items()} for r in records] == [
        {k: pytest.approx(v, rel=1e-6) for k, v in r.items()} for r in ledger
    ]
    assert [r["step"] for r in ledger] == [5, 5, 10, 10]
    for tracker in trackers:
        assert [step for step, _ in tracker.calls] == [5, 10]
        assert set(tracker.calls[0][1]) == {"loss/0", "metric/0", "loss/1", "metric/1"}
        np.testing.assert_allclose(tracker.calls[1][1]["loss/1"], ledger[3]["loss"], rtol=1e-6)


def test_trackers_get_finite_numbers_alone():
    tracker = Tracker()
    loggers.wandb(tracker)([{"trial": 2, "step": 7, "loss": 1.5, "validation_loss": np.inf}])
    assert tracker.calls == [(7, {"loss/2": 1.5})]
