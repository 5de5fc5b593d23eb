"""Results of training: of R trials at the end, and between two calls of the loop."""

from typing import Any, NamedTuple

import numpy as np

from lstm_jax.training import parallel
from lstm_jax.training.divergence import RUNNING, SOLVED, STATUS
from lstm_jax.training.evaluation import Evaluation
from lstm_jax.training.step import State
from lstm_jax.training.trials import Trials, describe_trials


class Result(NamedTuple):
    """What training made of R trials; NumPy arrays.

    Attributes:
      params: the parameters, leaves [R, ...].
      status: [R] "finished" all steps, "solved" before their end, or "diverged".
      step: [R] updates done.
      solved_at: [R] updates until the task called the trial solved, -1 where it did not.
      reason: [R] why a trial diverged, such as "the loss is not finite at step 12"; else "".
      loss: [R] running mean of the training loss, over about the last 1,000 sequences; nan where a
        trial diverged at its first batch.
      metric: [R] the same of the task's metric.
      state: everything a trial had in hand, leaves [R, ...]; rows of it may go on as `begin_from`.
    """

    params: Any
    status: np.ndarray
    step: np.ndarray
    solved_at: np.ndarray
    reason: np.ndarray
    loss: np.ndarray
    metric: np.ndarray
    state: State


class Snapshot(NamedTuple):
    """The small part of R trials between two calls of the loop; NumPy arrays [R]."""

    step: np.ndarray
    loss: np.ndarray
    metric: np.ndarray
    status: np.ndarray

    @classmethod
    def of(cls, layout: parallel.Layout, state: State) -> "Snapshot":
        """Returns the small part of a state."""
        loss, metric, _ = state.stats
        return layout.gather(cls(state.step, loss, metric, state.status))  # pyright: ignore

    @property
    def running(self) -> np.ndarray:
        """[R] bool."""
        return self.status == RUNNING

    def records(self) -> list[dict[str, Any]]:
        """Returns a progress record for each trial still running."""
        return [
            {"trial": i, "step": self.step[i], "loss": self.loss[i], "metric": self.metric[i]}
            for i in np.flatnonzero(self.running)
        ]

    def curves(self, before: "Snapshot", seconds: float) -> dict[str, float]:
        """Returns the quartiles over the trials still running, their number and the speed."""
        points = {
            "running": float(self.running.sum()),
            "trial_steps_per_second": float((self.step - before.step).sum() / seconds),
        }
        for name, values in (("loss", self.loss), ("metric", self.metric)):
            for share in (25, 50, 75) if self.running.any() else ():
                points[f"{name}/{share}"] = float(np.percentile(values[self.running], share))
        return points

    def extent(self, steps: int) -> tuple[int, int, float, int]:
        """Returns trial-steps done, done at the end, the median loss, and the trials running."""
        running, done = self.running, int(self.step.sum())
        loss = float(np.median(self.loss[running])) if running.any() else float("nan")
        return done, int(np.where(running, steps, self.step).sum()), loss, int(running.sum())


def result_of(state: State, reasons: np.ndarray) -> Result:
    """Returns the result of trials in this state, NumPy arrays, with their reasons."""
    held: Any = state
    solved_at = np.where(held.status == SOLVED, held.step, -1)
    numbers = STATUS[held.status], held.step, solved_at, reasons
    return Result(state.params, *numbers, held.stats.loss, held.stats.metric, state)


def result_records(
    trials: Trials, result: Result, **evaluations: Evaluation
) -> list[dict[str, Any]]:
    """Returns one record a trial for `RunDirectory.finish`: its settings and what came of them.

    {"trial", "seed", "learning_rate", ..., "gate_bias_f", ..., "status", "step", "solved_at",
    "reason", "loss", "metric"}, and for `test=evaluation` {"test_correct", "test_n", "test_loss",
    "test_metric"}.
    """
    columns = describe_trials(trials) | result._asdict()
    del columns["params"], columns["state"]
    for split, evaluation in evaluations.items():
        columns |= {f"{split}_{name}": values for name, values in evaluation._asdict().items()}
    count = len(trials.seed)
    return [{"trial": i} | {k: v[i] for k, v in columns.items()} for i in range(count)]
