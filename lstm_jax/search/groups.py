"""Groups: trials that train together in one compiled program, then are evaluated and recorded."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lstm_jax.runs import hosts
from lstm_jax.runs.checkpoints import load
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.tasks.base import Task
from lstm_jax.training import state_shapes
from lstm_jax.training.evaluation import SEQUENCES, evaluate
from lstm_jax.training.fit import epoch_of, fit
from lstm_jax.training.results import Result, result_records
from lstm_jax.training.step import State
from lstm_jax.training.trials import Trials

MODELS = "models"  # directory of a run
Record = Mapping[str, Any]


class Group(NamedTuple):
    """Trials that train together in one compiled program.

    Attributes:
      name: unique within the run.
      task: the problem.
      model: the network.
      steps: updates of a trial, or epochs.
      batch_size: sequences of an update.
      trials: their hyperparameters; None while they depend on another group.
      split: "validation" or "test", for the evaluation at the end.
      sequences: evaluated sequences, where the task samples them.
      optimizer: by name.
      initial_state: (run directory) -> the initial state, in process 0 alone; None for the model's
        own.
      save_state: whether another group continues from the final states.
      labels: extra fields of the results, a mapping for each trial.
      measure: (trained parameters [R, ...], trials) -> extra fields of the results, a mapping for
        each trial.
      curve_points: of a learning curve.
      window: time steps of an update; None for the whole batch.
      measured: the tasks and sequences of one call of `measure`, for estimates of memory.
      save_model: whether to save all trials that did not diverge as one predictor.
      epochs: whether `steps` counts epochs: every row once before any twice, a validation after
        each, and the parameters with the least validation loss at the end.
    """

    name: str
    task: Task
    model: Any
    steps: int
    batch_size: int
    trials: Trials | None
    split: str
    sequences: int = SEQUENCES
    optimizer: str = "adam"
    initial_state: Callable[[RunDirectory], State] | None = None
    save_state: bool = False
    labels: Sequence[Record] = ()
    measure: Callable[[Any, Trials], Sequence[Record]] | None = None
    curve_points: int = 40
    window: int | None = None
    measured: Sequence[tuple[Task, int]] = ()
    save_model: bool = False
    epochs: bool = False


def train(
    group: Group, run: RunDirectory, *, batching: str = "auto", progress: bool = True
) -> None:
    """Trains a ready group, evaluates it on its split, and records its results in the run.

    The same call continues a group.
    """
    assert group.trials is not None
    initial = group.initial_state
    length: dict[str, Any] = {"epochs" if group.epochs else "steps": group.steps}
    updates = group.steps * (epoch_of(group.task, group.batch_size) if group.epochs else 1)
    fitted = fit(
        group.task, group.model, group.trials, **length, batch_size=group.batch_size,
        optimizer=group.optimizer, batching=batching, window=group.window,
        chunk=max(1, updates // group.curve_points),
        begin_from=hosts.lead(lambda: initial(run)) if initial else None, run=run,
        group=group.name, progress=progress,
    )  # fmt: skip
    evaluated = evaluate(
        group.task, group.model, fitted.params, group.trials, split=group.split,
        sequences=group.sequences, batching=batching,
    )  # fmt: skip
    results = result_records(group.trials, fitted, **{group.split: evaluated})
    if group.labels:
        results = [{**r, **label} for r, label in zip(results, group.labels, strict=True)]
    if group.measure:
        measured = group.measure(fitted.params, group.trials)
        results = [{**r, **mine} for r, mine in zip(results, measured, strict=True)]
    if group.save_model and hosts.leads() and (fitted.status != "diverged").any():
        save_model(fitted, run.path / MODELS / group.name)
    run.finish(group.name, results, fitted.params, fitted.state if group.save_state else None)


def save_model(fitted: Result, path: Path) -> None:
    """Saves the networks as one predictor, in place of one that a killed run left."""
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    fitted.ensemble().save(path)


def state_of(group: Group) -> State:
    """Returns the shapes of the training state of a ready group."""
    assert group.trials is not None
    return state_shapes(
        group.task, group.model, group.trials,
        batch_size=group.batch_size, optimizer=group.optimizer, epochs=group.epochs,
    )  # fmt: skip


def continued(before: Group, run: RunDirectory) -> State:
    """Returns the saved final states of an earlier group, as a start."""
    return load(run.state_path(before.name), state_of(before))
