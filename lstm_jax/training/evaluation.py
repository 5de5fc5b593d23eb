"""Evaluation of trained trials on sequences of one split."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from lstm_jax.checks import check_size
from lstm_jax.tasks.base import Task
from lstm_jax.training import agreement, captures, parallel
from lstm_jax.training.step import given
from lstm_jax.training.trials import Trials, keys, rates
from lstm_jax.types import Array, Batch, Model

BATCH = 200  # sequences at a time
SEQUENCES = 2000  # of an evaluation, where the split is sampled


class Evaluation(NamedTuple):
    """The scores of R trials on one split; NumPy arrays [R].

    Attributes:
      correct: sequences with a right answer.
      n: sequences.
      loss: mean loss over batches, weighted by their sizes.
      metric: mean metric over batches, weighted by their sizes.
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
    sequences: int = SEQUENCES,
    batching: str = "auto",
) -> Evaluation:
    """Returns the scores of R trials on a split, without noise.

    A finite split is evaluated whole, each sequence once. Other splits are sampled from the seed of
    each trial, with keys that training never uses.

    Args:
      task: the problem.
      model: the network.
      params: its parameters, leaves [R, ...], as in `Result.params`.
      trials: R settings.
      split: "train", "validation" or "test".
      sequences: sequences of each trial, where the split is sampled.
      batching: as in `fit`.

    Raises:
      ValueError: an argument is out of range, the parameters are those of other trials, the split
        is empty, or the outputs do not have the task's shape.
      TypeError: an argument has the wrong type.
    """
    agreement.check_kinds(task, model, trials)
    agreement.check_params(params, trials)
    check_size("sequences", sequences)
    model = agreement.sized(task, model)
    count = task.split_size(split)
    if count == 0:
        raise ValueError(f"split must have sequences, got {split!r}, which has none")
    mesh = parallel.everywhere()
    batching = parallel.resolve(batching, mesh)
    layout = parallel.Layout(len(trials.seed), batching, mesh)
    data = task.evaluated(split, task.arrays())
    asked = Asked(split, count, sequences)
    captured = captures.fingerprint(functools.partial(_score_zeros, task.static, asked), data)
    program = _program(task.static, model, asked, batching, mesh, captured)
    sums = program(layout.spread((trials, params)), layout.share(data))
    correct, loss, metric, weight = layout.gather(sums)
    n = sequences if count is None else count
    return Evaluation(
        np.rint(correct).astype(int), np.full(len(correct), n), loss / weight, metric / weight
    )


class Asked(NamedTuple):
    """The evaluated sequences: all `count` of a finite split, else `sequences` samples."""

    split: str
    count: int | None
    sequences: int


class Sums(NamedTuple):
    """Sums over sequences; divided by `weight`, loss and metric are means."""

    correct: Array
    loss: Array
    metric: Array
    weight: Array


def measure(task: Task, model: Model, asked: Asked, params: Any, trial: Trials, data: Any) -> Sums:
    """Returns the sums over the sequences of a split; `data` is the result of `evaluated`."""
    if asked.count is not None and task.parts(data):
        return _over_parts(task, model, asked.count, params, trial, data)

    def ask(index, size):
        batch = _batch(task, asked, trial, data, index, size)
        given = {"mask": batch.mask, "reset": batch.reset, "rates": rates(trial)}
        sums = _scored(task, model.apply(params, batch.x, **given), batch)
        return sums._replace(correct=sums.correct.sum())

    return _over_batches(ask, asked.sequences if asked.count is None else asked.count)


@functools.lru_cache(maxsize=64)
def _program(
    task: Task, model: Model, asked: Asked, batching: str, mesh: Mesh, captured: str
) -> Callable:
    """Returns f((trials, params), data) -> Sums, compiled."""
    del captured  # part of the key: a program holds the arrays that were captured in its making

    def one(args, data):
        trial, params = args
        return measure(task, model, asked, params, trial, data)

    return parallel.over_trials(one, batching, mesh)


def _batch(task: Any, asked: Asked, trial: Trials, data: Any, index: Any, size: int) -> Batch:
    """Returns batch number `index`, of `size` sequences, or part number `index` of all of them."""
    if asked.count is None:
        key = jax.random.fold_in(keys(trial).evaluation, index)
        return task.sample(key, size, asked.split, **given(data))
    if task.parts(data):
        return task.part(data, index)
    return task.sequences(data, asked.split, index * BATCH, size)


def _score_zeros(task: Task, asked: Asked, data: Any) -> Sums:
    """Returns the sums for outputs of zero; its trace shows the arrays that a task captures."""
    trial = Trials(*[jnp.uint32(0)] * len(Trials._fields))
    size = min(BATCH, asked.sequences if asked.count is None else asked.count)
    batch = _batch(task, asked, trial, data, 0, size)
    if asked.count is None:
        agreement.check_batch(task, batch, size)
    return _scored(task, agreement.zero_outputs(task, batch), batch)


def _over_parts(
    task: Task, model: Any, sequences: int, params: Any, trial: Trials, data: Any
) -> Sums:
    """Adds up the parts of all sequences, with the state carried from part to part."""
    agreement.check_carries(task, model, "is read in parts")

    def part(state, index):
        x, _, mask, reset = batch = task.part(data, index)
        given = {"mask": mask, "reset": reset, "rates": rates(trial)}
        state, outputs = model.unroll(params, x, state, **given)
        return state, _scored(task, outputs, batch)

    start = model.initial_state(params, sequences)
    indices = jnp.arange(task.parts(data), dtype=jnp.int32)
    _, (right, loss, metric, weight) = lax.scan(part, start, indices)
    return Sums(right.min(0).sum(), loss.sum(), metric.sum(), weight.sum())


def _over_batches(ask: Callable[[Any, int], Sums], sequences: int) -> Sums:
    """Returns the sum of ask(index, size) over whole batches and the rest."""
    full, rest = divmod(sequences, BATCH)
    parts = [ask(full, rest)] if rest else []
    if full:
        sums = lax.map(lambda index: ask(index, BATCH), jnp.arange(full, dtype=jnp.int32))
        parts.append(jax.tree.map(lambda leaf: leaf.sum(0), sums))
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def _scored(task: Task, outputs: Array, batch: Batch) -> Sums:
    """Returns the sums of one batch, `correct` still for each sequence [B]."""
    agreement.check_outputs(task, outputs, batch)
    loss, metric = task.loss(outputs, batch), task.metric(outputs, batch)
    correct, weight = task.correct(outputs, batch), task.weight(batch)
    sequences = jax.tree.leaves(batch.x)[0].shape[1]
    agreement.check_measures(task, {"loss": loss, "metric": metric}, correct, sequences)
    return Sums(
        correct.astype(jnp.float32),
        weight * loss.astype(jnp.float32),
        weight * metric.astype(jnp.float32),
        weight,
    )
