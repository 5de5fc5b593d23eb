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
from lstm_jax.tasks import LanguageModel
from lstm_jax.tasks.base import Rows, Target, Task
from lstm_jax.training import agreement, captures, parallel
from lstm_jax.training.step import given
from lstm_jax.training.trials import Trials, keys, rates
from lstm_jax.types import Array, Batch, Model

BATCH = 200  # sequences at a time
PART = 1024  # time steps of a text at a time


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
    sequences: int = 2000,
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
    data = data_of(task, split, task.arrays())
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


def data_of(task: Task, split: str, arrays: Any) -> Any:
    """Returns the data that `measure` needs for a split: the task's arrays, or its sequences."""
    if isinstance(task, LanguageModel):
        return task.rows(split)
    drawn = isinstance(task, Rows) or task.split_size(split) is None
    return arrays if drawn else task.examples(split)


def measure(task: Task, model: Model, asked: Asked, params: Any, trial: Trials, data: Any) -> Sums:
    """Returns the sums over the sequences of a split; `data` is the result of `data_of`."""
    if isinstance(task, LanguageModel):
        return _over_parts(task, model, asked, params, trial, data)

    def ask(index, size):
        batch = _batch(task, asked, trial, data, index, size)
        given = {"mask": batch.mask, "reset": batch.reset, "rates": rates(trial)}
        outputs = model.apply(params, batch.x, **given)
        agreement.check_outputs(task, outputs, batch)
        return _scored(task, outputs, batch, size)

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
    """Returns batch number `index`, of `size` sequences."""
    if asked.count is None:
        key = jax.random.fold_in(keys(trial).evaluation, index)
        return task.sample(key, size, asked.split, **given(data))
    if isinstance(task, Rows):
        members = lax.dynamic_slice_in_dim(data["splits"][asked.split], index * BATCH, size)
        return task.batch(data, members, jnp.ones(size))
    if isinstance(task, LanguageModel):
        return task.part(data, index, steps_of(data))
    return _slice(data, index * BATCH, size, 1 if task.readout == "every" else 0)


def _score_zeros(task: Task, asked: Asked, data: Any) -> Sums:
    """Returns the sums for outputs of zero; its trace shows the arrays that a task captures."""
    trial = Trials(*[jnp.uint32(0)] * len(Trials._fields))
    size = min(BATCH, asked.sequences if asked.count is None else asked.count)
    batch = _batch(task, asked, trial, data, 0, size)
    return _scored(task, agreement.zero_outputs(task, batch), batch, size)


def steps_of(text: Any) -> int:
    """Returns the time steps of a part of a text."""
    return min(PART, max(1, len(text["numbers"]) - 1))


def _over_parts(
    task: LanguageModel, model: Any, asked: Asked, params: Any, trial: Trials, data: Any
) -> Sums:
    """Adds up a text part by part, with the state carried along, so that none is held whole."""

    def part(state, index):
        batch = _batch(task, asked, trial, data, index, 1)
        state, outputs = model.unroll(params, batch.x, state, mask=batch.mask, rates=rates(trial))
        agreement.check_outputs(task, outputs, batch)
        sums, counted = _scored(task, outputs, batch, 1), jnp.sum(batch.y >= 0)
        return state, sums._replace(weight=counted.astype(jnp.float32))

    parts = -(-max(1, len(data["numbers"]) - 1) // steps_of(data))
    start = model.initial_state(params, 1)
    _, (right, loss, metric, weight) = lax.scan(part, start, jnp.arange(parts, dtype=jnp.int32))
    return Sums(right.min(), (weight * loss).sum(), (weight * metric).sum(), weight.sum())


def _over_batches(ask: Callable[[Any, int], Sums], sequences: int) -> Sums:
    """Returns the sum of ask(index, size) over whole batches and the rest."""
    full, rest = divmod(sequences, BATCH)
    parts = [ask(full, rest)] if rest else []
    if full:
        sums = lax.map(lambda index: ask(index, BATCH), jnp.arange(full, dtype=jnp.int32))
        parts.append(jax.tree.map(lambda leaf: leaf.sum(0), sums))
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def _scored(task: Task, outputs: Array, batch: Batch, size: int) -> Sums:
    weight = batch.y.weight.sum() if isinstance(batch.y, Target) else jnp.float32(size)
    loss, metric = task.loss(outputs, batch), task.metric(outputs, batch)
    correct = task.correct(outputs, batch)
    agreement.check_measures(task, {"loss": loss, "metric": metric}, correct, size)
    return Sums(
        correct.astype(jnp.float32).sum(),
        weight * loss.astype(jnp.float32),
        weight * metric.astype(jnp.float32),
        weight,
    )


def _slice(batch: Batch, start: Array | int, size: int, target_axis: int) -> Batch:
    """Returns `size` sequences from `start`; B is axis 1, and of targets `target_axis`."""

    def cut(tree, axis):
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, axis), tree)

    x, y, mask, reset = batch
    return Batch(cut(x, 1), cut(y, target_axis), cut(mask, 1), cut(reset, 1))
