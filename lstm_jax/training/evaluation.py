"""Asking trained trials questions they have not seen."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from lstm_jax.tasks.base import Task
from lstm_jax.training import agreement, captures, parallel
from lstm_jax.training.trials import Trials, keys
from lstm_jax.types import Array, Batch, Model

BATCH = 200  # sequences at a time


class Evaluation(NamedTuple):
    """What R trials got right on one split; NumPy arrays [R].

    Attributes:
      correct: sequences answered right.
      n: sequences asked.
      loss: mean of the task's loss over batches, weighted by their sizes.
      metric: the same of its metric.
    """

    correct: np.ndarray
    n: np.ndarray
    loss: np.ndarray
    metric: np.ndarray


def evaluate(
    task: Task,
    model: Model,
    params: Any,
    trials: Trials,
    *,
    split: str = "test",
    sequences: int = 2000,
    batching: str = "auto",
) -> Evaluation:
    """Asks R trials `sequences` questions of a split, without noise.

    Finite splits are asked whole, each sequence exactly once, whatever `sequences` says; others are
    drawn from the trial's seed, never as in training.

    Args:
      task: the problem.
      model: the network.
      params: its parameters, leaves [R, ...], as in `Result.params`.
      trials: R settings.
      split: "train", "validation" or "test".
      sequences: how many to draw.
      batching: as in `fit`.

    Raises:
      ValueError: an argument out of its range, parameters of other trials, or outputs that are not
        of the task's shape.
      TypeError: an argument is of another kind.
    """
    agreement.check_kinds(task, model, trials)
    agreement.check_params(params, trials)
    if not isinstance(sequences, int) or sequences < 1:
        raise ValueError(f"sequences must be a whole number of at least 1, got {sequences}")
    count = task.split_size(split)
    mesh = parallel.everywhere()
    batching = parallel.resolve(batching, mesh)
    layout = parallel.Layout(len(trials.seed), batching, mesh)
    args = layout.spread((trials, params))
    if count is None:
        captured = captures.fingerprint(functools.partial(_ask_zeros, task, split, sequences))
        sums = _drawn(task, model, split, sequences, batching, mesh, captured)(args)
    else:
        examples = task.examples(split)
        captured = captures.fingerprint(functools.partial(_score_zeros, task), examples)
        sums = _whole(task, model, batching, mesh, captured)(args, layout.share(examples))
    correct, loss, metric = layout.gather(sums)
    n = sequences if count is None else count
    return Evaluation(np.rint(correct).astype(int), np.full(len(correct), n), loss / n, metric / n)


Sums = tuple[Array, Array, Array]


@functools.lru_cache(maxsize=64)
def _drawn(
    task: Task, model: Model, split: str, sequences: int, batching: str, mesh: Mesh, captured: str
) -> Callable:
    """Returns f((trials, params)) -> sums over `sequences` drawn."""
    del captured  # part of the key: a program holds the arrays that were captured in its making

    def one(args):
        trial, params = args
        root = keys(trial).evaluation

        def ask(index, size):
            batch = task.sample(jax.random.fold_in(root, index), size, split)
            return _sums(task, model, params, trial, batch, size)

        return _over_batches(ask, sequences)

    return parallel.over_trials(one, batching, mesh)


@functools.lru_cache(maxsize=64)
def _whole(task: Task, model: Model, batching: str, mesh: Mesh, captured: str) -> Callable:
    """Returns f((trials, params), batch) -> sums over all sequences of one large batch."""
    del captured  # part of the key, as that of `_drawn`

    def one(args, examples):
        trial, params = args
        target_axis = 1 if task.readout == "every" else 0

        def ask(index, size):
            batch = _slice(examples, index * BATCH, size, target_axis)
            return _sums(task, model, params, trial, batch, size)

        return _over_batches(ask, examples.x.shape[1])

    return parallel.over_trials(one, batching, mesh)


def _ask_zeros(task: Task, split: str, sequences: int) -> Sums:
    """Returns the sums of outputs of zero on a batch that is drawn."""
    return _score_zeros(task, task.sample(jax.random.key(0), min(BATCH, sequences), split))


def _score_zeros(task: Task, batch: Batch) -> Sums:
    return _scored(task, agreement.zero_outputs(task, batch), batch, 1)


def _over_batches(ask: Callable[[Any, int], Sums], sequences: int) -> Sums:
    """Adds up ask(index, size) over whole batches and the rest, every sequence once."""
    full, rest = divmod(sequences, BATCH)
    parts = [ask(full, rest)] if rest else []
    if full:
        sums = lax.map(lambda index: ask(index, BATCH), jnp.arange(full, dtype=jnp.int32))
        parts.append(jax.tree.map(lambda leaf: leaf.sum(0), sums))
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def _sums(task: Task, model: Model, params: Any, trial: Trials, batch: Batch, size: int) -> Sums:
    outputs = model.apply(params, batch.x, mask=batch.mask, reset=batch.reset, trial=trial)
    agreement.check_outputs(task, outputs, batch)
    return _scored(task, outputs, batch, size)


def _scored(task: Task, outputs: Array, batch: Batch, size: int) -> Sums:
    means = task.loss(outputs, batch), task.metric(outputs, batch)
    loss, metric = (size * mean.astype(jnp.float32) for mean in means)
    return task.correct(outputs, batch).astype(jnp.float32).sum(), loss, metric


def _slice(batch: Batch, start: Array | int, size: int, target_axis: int) -> Batch:
    """Returns `size` sequences from `start` on, B being axis 1 but for the targets of "last"."""

    def cut(tree, axis):
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, axis), tree)

    x, y, mask, reset = batch
    return Batch(cut(x, 1), cut(y, target_axis), cut(mask, 1), cut(reset, 1))
