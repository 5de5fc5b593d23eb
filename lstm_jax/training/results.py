"""Results of R trials, at the end of training and between two calls of the loop."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_jax.checks import check_choice
from lstm_jax.tasks.base import Task
from lstm_jax.training import parallel
from lstm_jax.training.divergence import RUNNING, SOLVED, STATUS
from lstm_jax.training.evaluation import Evaluation, evaluate
from lstm_jax.training.predictor import Predictor
from lstm_jax.training.step import Best, State, current_params
from lstm_jax.training.trials import Trials, describe_trials
from lstm_jax.types import Model

STATIC: Any = {"static": True}  # fields that are no arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The result of training R trials; a pytree of NumPy arrays.

    Attributes:
      task: the problem.
      model: the network, with the task's sizes.
      trials: the R settings.
      params: the parameters, leaves [R, ...]: those with the least validation loss, or the last
        ones without validation.
      status: [R] "finished", "solved", "stopped" by validation, or "diverged".
      step: [R] number of updates.
      solved_at: [R] updates until the task was solved; -1 if it was not.
      reason: [R] the cause of a divergence, such as "the loss is not finite at step 12"; else "".
      loss: [R] running mean of the training loss, over about the last 1,000 sequences; nan for a
        trial that diverged at its first batch.
      metric: [R] running mean of the training metric.
      validation_loss: [R] the least validation loss; nan without validation.
      best_step: [R] the updates before that validation; the last step without validation.
      state: the training state, leaves [R, ...], to continue from with `begin_from`.
    """

    task: Task = dataclasses.field(metadata=STATIC)
    model: Model = dataclasses.field(metadata=STATIC)
    trials: Trials
    params: Any
    status: np.ndarray
    step: np.ndarray
    solved_at: np.ndarray
    reason: np.ndarray
    loss: np.ndarray
    metric: np.ndarray
    validation_loss: np.ndarray
    best_step: np.ndarray
    state: State

    def __repr__(self) -> str:
        return f"Result(\n{self.table()}\n)"

    def table(self) -> "Table":
        """Returns one row for each trial: its settings and its results.

        The columns are those of `result_records`, with `loss` and `metric` as `train_loss` and
        `train_metric`.
        """
        names = {"loss": "train_loss", "metric": "train_metric"}
        records = result_records(self.trials, self)
        return Table({names.get(name, name): v for name, v in r.items()} for r in records)

    def evaluate(self, split: str = "test", **settings: Any) -> Evaluation:
        """Returns the scores of the R trials on a split, see `lj.evaluate`."""
        return evaluate(self.task, self.model, self.params, self.trials, split=split, **settings)

    def best(self, by: str = "validation") -> Predictor:
        """Returns the network with the least loss among trials that did not diverge.

        Args:
          by: "validation", or "train" for the running mean of the training loss.

        Raises:
          ValueError: `by` is unknown, nothing was validated, or every trial diverged.
        """
        losses = {"validation": self.validation_loss, "train": self.loss}
        check_choice("by", by, losses)
        loss = np.where(self.status == "diverged", np.nan, losses[by])
        if by == "validation" and np.isnan(losses[by]).all():
            right = "'train' where nothing was validated; or fit with epochs or validate_every"
            raise ValueError(f"by must be {right}, got {by!r}")
        if np.isnan(loss).all():
            raise ValueError("best needs a trial that did not diverge, got none")
        return self._predictor(np.array([np.nanargmin(loss)]))

    def ensemble(self) -> Predictor:
        """Returns all networks that did not diverge; the prediction is their mean.

        Raises:
          ValueError: every trial diverged.
        """
        members = np.flatnonzero(self.status != "diverged")
        if not members.size:
            raise ValueError("an ensemble needs a trial that did not diverge, got none")
        return self._predictor(members)

    def _predictor(self, rows: np.ndarray) -> Predictor:
        params, trials = jax.tree.map(lambda leaf: leaf[rows], (self.params, self.trials))
        return Predictor(self.task, self.model, params, trials)


class Table(list):
    """Rows of a result as dictionaries; prints the columns that differ between rows."""

    def __str__(self) -> str:
        if not self:
            return ""
        names = [n for n in self[0] if n in _ALWAYS or len({str(row[n]) for row in self}) > 1]
        lines = [names, *([_short(row[name]) for name in names] for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = (map(str.rjust, line, widths) for line in lines)
        return "\n".join(map("  ".join, aligned))


_ALWAYS = ("trial", "configuration", "train_loss", "train_metric", "validation_loss")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


class Snapshot(NamedTuple):
    """The progress of R trials between two calls of the loop; NumPy arrays [R]."""

    step: np.ndarray
    loss: np.ndarray
    metric: np.ndarray
    status: np.ndarray
    validation_loss: np.ndarray | tuple[()] = ()

    @classmethod
    def of(cls, layout: parallel.Layout, state: State) -> "Snapshot":
        """Returns the progress in a state."""
        loss, metric, _ = state.stats
        validated = state.best.loss if isinstance(state.best, Best) else ()
        small: Any = cls(state.step, loss, metric, state.status, validated)  # pyright: ignore
        return layout.gather(small)

    @property
    def running(self) -> np.ndarray:
        """[R] bool, whether each trial is running."""
        return self.status == RUNNING

    def records(self) -> list[dict[str, Any]]:
        """Returns a progress record for each running trial."""
        columns = {"step": self.step, "loss": self.loss, "metric": self.metric} | self._validated
        running = np.flatnonzero(self.running)
        return [{"trial": i} | {name: v[i] for name, v in columns.items()} for i in running]

    def curves(self, before: "Snapshot", seconds: float) -> dict[str, float]:
        """Returns the quartiles over running trials, their number and the speed."""
        points = {
            "running": float(self.running.sum()),
            "trial_steps_per_second": float((self.step - before.step).sum() / seconds),
        }
        for name, values in ({"loss": self.loss, "metric": self.metric} | self._validated).items():
            values = values[self.running]
            if values.size and not np.isinf(values).any():  # as before the first validation
                quartiles = np.percentile(values, (25, 50, 75)).tolist()
                points |= {f"{name}/{n}": q for n, q in zip((25, 50, 75), quartiles, strict=True)}
        return points

    def extent(self, steps: int) -> tuple[int, int, float, int]:
        """Returns finished and total trial-steps, the median loss, and the running trials."""
        running, done = self.running, int(self.step.sum())
        loss = float(np.median(self.loss[running])) if running.any() else float("nan")
        return done, int(np.where(running, steps, self.step).sum()), loss, int(running.sum())

    @property
    def _validated(self) -> dict[str, np.ndarray]:
        loss = self.validation_loss
        return {} if isinstance(loss, tuple) else {"validation_loss": loss}


def result_of(
    task: Task, model: Model, trials: Trials, state: State, reasons: np.ndarray
) -> Result:
    """Returns the result of trials with a final state of NumPy arrays."""
    held: Any = state
    validated, best = isinstance(held.best, Best), held.best
    nothing = np.full(len(held.step), np.nan, np.float32)
    return Result(
        task, model, trials,
        params=best.params if validated else current_params(held),
        status=STATUS[held.status],
        step=held.step,
        solved_at=np.where(held.status == SOLVED, held.step, -1),
        reason=reasons,
        loss=held.stats.loss,
        metric=held.stats.metric,
        validation_loss=best.loss if validated else nothing,
        best_step=best.step if validated else held.step,
        state=state,
    )  # fmt: skip


def result_records(
    trials: Trials, result: Result, **evaluations: Evaluation
) -> list[dict[str, Any]]:
    """Returns one record for each trial, for `RunDirectory.finish`: its settings and results.

    The fields are {"trial", "seed", "learning_rate", ..., "gate_bias_f", ..., "status", "step",
    "solved_at", "reason", "loss", "metric"}. With validation {"validation_loss", "best_step"} are
    added, and with `test=evaluation` {"test_correct", "test_n", "test_loss", "test_metric"}.
    """
    names = ["status", "step", "solved_at", "reason", "loss", "metric"]
    names += ["validation_loss", "best_step"] if isinstance(result.state.best, Best) else []
    columns = describe_trials(trials) | {name: getattr(result, name) for name in names}
    for split, evaluation in evaluations.items():
        columns |= {f"{split}_{name}": values for name, values in evaluation._asdict().items()}
    count = len(trials.seed)
    return [{"trial": i} | {k: v[i] for k, v in columns.items()} for i in range(count)]
