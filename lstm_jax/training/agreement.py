"""Checks that a task, a model and trials fit together, before compilation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.checks import check_choice
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.tasks.base import Stream, Task
from lstm_jax.training.trials import Trials
from lstm_jax.types import Array, Batch, Model, StreamModel


def check_kinds(task: Task, model: Model, trials: Trials) -> None:
    """Raises TypeError for an argument of the wrong type, or one that is not hashable.

    Raises ValueError for a task with an unknown readout or kind of inputs.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task, such as tasks.Recall, got {task!r}")
    check_choice(f"readout of {task.name}", task.readout, ("last", "every"))
    check_choice(f"input_kind of {task.name}", task.input_kind, ("numbers", "symbols"))
    if isinstance(model, type) or not (hasattr(model, "init") and hasattr(model, "apply")):
        raise TypeError(f"model must have init and apply, as SequenceSpec does, got {model!r}")
    if not isinstance(trials, Trials):
        raise TypeError(f"trials must be Trials, as make_trials makes them, got {trials!r}")
    for name, value in (("task", task), ("model", model)):
        try:
            hash(value)
        except TypeError as error:
            right = "hashable, such as a frozen dataclass without arrays in its fields"
            raise TypeError(
                f"{name} must be {right}, got {type(value).__name__}: {error}"
            ) from None


def check_run(run: Any) -> None:
    """Raises TypeError unless `run` is a run directory or None."""
    if run is not None and not isinstance(run, RunDirectory):
        raise TypeError(
            f"run must be a RunDirectory, such as RunDirectory.create makes, got {run!r}"
        )


def check_windows(task: Task, model: Model, window: int | None) -> None:
    """Raises an error unless the task can be cut into windows and the model carries a state."""
    uncut = isinstance(task, Stream) or task.readout != "every"
    if window is not None and (uncut or task.length % window):
        raise ValueError(
            "window must divide the length of a task that is no stream and has a target at "
            f"every time step, got {window} for {task.name} of length {task.length}"
        )
    if isinstance(task, Stream) or window is not None:
        check_carries(task, model, "is a stream" if window is None else "comes in windows")


def check_carries(task: Task, model: Model, reason: str) -> None:
    """Raises TypeError unless the model carries a state between parts of time."""
    if not isinstance(model, StreamModel):
        raise TypeError(
            "model must have initial_state and unroll, as SequenceSpec does, since "
            f"{task.name} {reason}; got {model!r}"
        )


def check_batch(task: Task, batch: Any, size: int) -> None:
    """Raises an error unless a task's batch of `size` sequences fits its loss and `correct`.

    Raises:
      TypeError: it is no Batch; ValueError: x is not time first, or `correct` is not [B].
    """
    if not isinstance(batch, Batch):
        kind = type(batch).__name__
        raise TypeError(f"{task.name} must give a Batch, such as lj.Batch(x, y), got a {kind}")
    for x in jax.tree.leaves(batch.x):
        if jnp.ndim(x) < 2 or jnp.shape(x)[1] != size:
            axes = "[T, B]" if task.input_kind == "symbols" else "[T, B, D]"
            wanted = f"{axes}, time first, with B = {size}"
            raise ValueError(f"x of {task.name} must be {wanted}, got shape {jnp.shape(x)}")
    correct = task.correct(zero_outputs(task, batch), batch)
    check_measures(task, {}, correct, size)


def check_outputs(task: Task, outputs: Array, batch: Batch) -> None:
    """Raises ValueError unless the outputs have the shape that the task expects."""
    wanted = output_shape(task, batch)
    if outputs.shape != wanted:
        axes = "[T, B, V]" if task.readout == "every" else "[B, V]"
        raise ValueError(
            f"model must put out {axes} = {list(wanted)} for {task.name}, got "
            f"{list(outputs.shape)}: the task has output_size={task.output_size} and "
            f"readout={task.readout!r}"
        )


def check_measures(
    task: Task, scalars: dict[str, Any], correct: Any = None, sequences: int = 0
) -> None:
    """Raises ValueError unless the named values are scalars and `correct` has shape [B]."""
    for name, value in scalars.items():
        if jnp.shape(value) != ():
            shape = list(jnp.shape(value))
            raise ValueError(f"{name} of {task.name} must be a scalar, got shape {shape}")
    if correct is not None and jnp.shape(correct) != (sequences,):
        shape = list(jnp.shape(correct))
        raise ValueError(f"correct of {task.name} must be [B] = [{sequences}], got shape {shape}")


def check_params(params: Any, trials: Trials) -> None:
    """Raises ValueError unless every leaf of `params` has one row for each trial."""
    count = len(trials.seed)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"params must have leaves [R, ...] with one row for each of R = {count} trials, "
                f"got shape {np.shape(leaf)} for params{jax.tree_util.keystr(path)}"
            )


def output_shape(task: Task, batch: Batch) -> tuple[int, ...]:
    """Returns [B, V] or [T, B, V]: the shape of a model's outputs for a batch."""
    leading = jax.tree.leaves(batch.x)[0].shape[:2]
    return (*(leading if task.readout == "every" else leading[1:]), task.output_size)


def zero_outputs(task: Task, batch: Batch) -> Array:
    """Returns zeros with the shape of a model's outputs for a batch."""
    return jnp.zeros(output_shape(task, batch), jnp.float32)


def sized(task: Task, model: Any) -> Any:
    """Returns the model with the task's sizes where it leaves them open.

    Raises:
      ValueError: the model has another input size than the task.
    """
    model = model.sized(task) if hasattr(model, "sized") else model
    size = getattr(model, "input_size", task.input_size)
    if size != task.input_size:
        raise ValueError(
            f"input_size of the model must be that of the task, {task.input_size}, got {size}"
        )
    return model
