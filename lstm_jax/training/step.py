"""One trial in training: its state, and one step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from lstm_jax.tasks.base import Stats, Stream, Task
from lstm_jax.training import agreement, divergence, optimizers, parallel
from lstm_jax.training.divergence import RUNNING, SOLVED
from lstm_jax.training.trials import Trials, initial, keys, rates
from lstm_jax.types import Array, Batch, Model

WINDOW = 1000  # sequences over which the running means are taken, about


class State(NamedTuple):
    """One trial in training.

    Attributes:
      params: the model's parameters.
      optimizer: the optimiser's state.
      step: int32, updates done.
      stats: running means of the loss and metric of training batches, and the task's memory.
      status: int32, `RUNNING` or the code of `divergence` with which the trial stopped. A trial
        that stopped never changes again.
      carried: the position in a stream or an epoch.
      average: the moving average of the parameters; () without one.
      best: the best validation so far; () without validation.
    """

    params: Any
    optimizer: Any
    step: Array
    stats: Stats
    status: Array
    carried: "Carried"
    average: Any = ()
    best: "Best | tuple[()]" = ()


class Best(NamedTuple):
    """The best validation so far.

    Attributes:
      params: the parameters with the least validation loss.
      loss: that loss.
      step: int32, the updates before it.
      checked: int32, the updates before the last validation.
      waited: int32, validations since the least loss.
      stalled: int32, validations since the least loss or the last reduction of the learning rate.
      rate: factor of the learning rate.
    """

    params: Any
    loss: Array
    step: Array
    checked: Array
    waited: Array
    stalled: Array
    rate: Array


class Carried(NamedTuple):
    """The position in a stream or an epoch, between two batches.

    Attributes:
      cursor: the cursor of a stream; in epochs the order of the rows, [N] int32; () for others.
      state: the model's state before the next window of a stream; () for others.
    """

    cursor: Any = ()
    state: Any = ()


class Validated(NamedTuple):
    """The rules of validation.

    Attributes:
      every: updates from one validation to the next.
      patience: validations without a lower loss after which a trial stops; None for never.
      plateau: validations without a lower loss after which the learning rate falls; None for never.
      factor: the factor by which it falls.
    """

    every: int
    patience: int | None = None
    plateau: int | None = None
    factor: float = 0.5


class Settings(NamedTuple):
    """The settings that are compiled into the loop, besides the task and the model."""

    batch_size: int
    optimizer: optimizers.Optimizer
    batching: str
    window: int | None = None
    epochs: bool = False
    fed: bool = False
    validated: Validated | None = None
    average: float | None = None


def begin(task: Task, model: Model, settings: Settings, trial: Trials, arrays: Any) -> State:
    """Returns a trial before its first step."""
    params = model.init(keys(trial).init, **initial(trial))
    return begin_with(task, model, settings, trial, params, arrays)


def begin_with(
    task: Task, model: Model, settings: Settings, trial: Trials, params: Any, arrays: Any
) -> State:
    """Returns a trial before its first step, with the given parameters."""
    zero = jnp.int32(0)
    best = Best(params, jnp.float32(jnp.inf), zero, zero, zero, zero, jnp.float32(1))
    return State(
        params=params,
        optimizer=optimizers.make(settings.optimizer, trial).init(_wide(params)),
        step=zero,
        stats=Stats(jnp.float32(jnp.nan), jnp.float32(jnp.nan), task.memory()),
        status=jnp.int32(RUNNING),
        carried=_carried(task, model, settings, trial, params, arrays),
        average=() if settings.average is None else _wide(params),
        best=best if settings.validated else (),
    )


def _carried(
    task: Task, model: Any, settings: Settings, trial: Trials, params: Any, arrays: Any
) -> Carried:
    """Returns the start of a stream or of the first epoch; empty for other tasks."""
    if settings.epochs:
        return Carried(jnp.zeros(len(arrays["splits"]["train"]), jnp.int32))
    if not isinstance(task, Stream):
        return Carried()
    cursor = task.begin(keys(trial).data, settings.batch_size, **given(arrays))
    return Carried(cursor, model.initial_state(params, settings.batch_size))


def given(arrays: Any) -> dict[str, Any]:
    """Returns the keyword `arrays` for the methods of a task, if the task has arrays."""
    return {"arrays": arrays} if jax.tree.leaves(arrays) else {}


def draw(
    task: Task, settings: Settings, trial: Trials, state: State, arrays: Any
) -> tuple[Any, Batch]:
    """Returns the next cursor and batch: of an epoch, of a stream, or a sample."""
    if settings.epochs:
        return _next_rows(task, settings, trial, state, arrays)
    if isinstance(task, Stream):
        return task.next(state.carried.cursor, **given(arrays))
    if settings.fed:
        return (), _fed_rows(task, settings, state, arrays)
    key = jax.random.fold_in(keys(trial).data, state.step)
    return (), task.sample(key, settings.batch_size, "train", **given(arrays))


def _next_rows(
    task: Any, settings: Settings, trial: Trials, state: Any, arrays: Any
) -> tuple[Array, Batch]:
    """Returns the order of the rows in this epoch, and the next batch of them.

    The last batch of an epoch may have fewer rows.
    """
    members, size = arrays["splits"]["train"], settings.batch_size
    count = len(members)
    epoch, part = jnp.divmod(state.step, steps_per_epoch(count, size))
    key = jax.random.fold_in(keys(trial).data, epoch)
    order = lax.cond(
        part == 0,
        lambda: jax.random.permutation(key, count).astype(jnp.int32),
        lambda: state.carried.cursor,
    )
    place = part * size + jnp.arange(size, dtype=jnp.int32)
    index = members[order[jnp.minimum(place, count - 1)]]
    return order, task.batch(arrays, index, (place < count).astype(jnp.float32))


def _fed_rows(task: Any, settings: Settings, state: State, arrays: Any) -> Batch:
    """Returns the batch of this update from the rows that `feeds.Ahead` has read."""
    place = jnp.arange(settings.batch_size, dtype=jnp.int32)
    index = (state.step - arrays["first"]) * settings.batch_size + place
    return task.batch(arrays, index, arrays["filled"][index])


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Returns the updates of one epoch."""
    return -(-rows // batch_size)


def run(model: Any, params: Any, batch: Batch, before: Any, **noise: Any) -> tuple[Any, Array]:
    """Returns the model's state after a part of time, and the outputs.

    `before` is the state before the part; without one there is none after it.
    """
    x, _, mask, reset = batch
    if jax.tree.leaves(before):
        return model.unroll(params, x, before, mask=mask, reset=reset, **noise)
    return (), model.apply(params, x, mask=mask, reset=reset, **noise)


def take_step(
    task: Task,
    model: Model,
    settings: Settings,
    mesh: Mesh,
    trial: Trials,
    state: State,
    arrays: Any,
) -> State:
    """Draws a batch, differentiates, and updates; freezes a trial whose numbers are not finite.

    Devices that share a batch (`parallel.shared`) each draw the whole batch. Each runs the model on
    its own rows with its own noise. The outputs are gathered, so every device computes the loss.
    """
    if settings.window is not None:
        return _step_in_windows(task, model, settings, trial, state, arrays)
    noise_key = parallel.own_key(mesh, jax.random.fold_in(keys(trial).noise, state.step))
    cursor, batch = draw(task, settings, trial, state, arrays)
    mine = parallel.share(mesh, batch._replace(y=None), axis=1)
    before = parallel.share(mesh, state.carried.state, axis=0)

    def objective(params):
        noise = {"rates": rates(trial), "key": noise_key}
        after, outputs = run(model, params, mine, before, **noise)
        outputs = parallel.unite(mesh, outputs, axis=1 if task.readout == "every" else 0)
        seen = batch_stats(task, state.stats.memory, outputs, batch)
        return seen.loss, (seen, after)

    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    (_, (seen, after)), grads = value_and_grad(state.params)
    grads = parallel.mean(mesh, grads)
    rate = state.best.rate if isinstance(state.best, Best) else None
    params, moments = _update(settings, trial, state.params, state.optimizer, grads, rate)
    after = parallel.unite(mesh, after, axis=0)
    average = _averaged(settings, state.average, params, state.step)
    carried = Carried(cursor, after)
    learnt = state._replace(params=params, optimizer=moments, carried=carried, average=average)
    return _update_or_freeze(task, settings, state, learnt, seen, grads)


def _step_in_windows(
    task: Task, model: Any, settings: Settings, trial: Trials, state: State, arrays: Any
) -> State:
    """Draws a batch and updates after each of its windows of time."""
    _, batch = draw(task, settings, trial, state, arrays)
    windows = jax.tree.map(lambda a: a.reshape(-1, settings.window, *a.shape[1:]), batch)
    noise_key = jax.random.fold_in(keys(trial).noise, state.step)
    noise_keys = jax.random.split(noise_key, windows.x.shape[0])

    def learn(carry, part):
        (params, moments, before), (window, key) = carry, part

        def objective(params):
            after, outputs = run(model, params, window, before, rates=rates(trial), key=key)
            return task.loss(outputs, window), (after, outputs)

        grads, (after, outputs) = jax.grad(objective, has_aux=True)(params)
        params, moments = _update(settings, trial, params, moments, grads)
        return (params, moments, after), outputs

    start = model.initial_state(state.params, batch.x.shape[1])
    carry = state.params, state.optimizer, start
    (params, moments, _), outputs = lax.scan(learn, carry, (windows, noise_keys))
    outputs = outputs.reshape(-1, *outputs.shape[2:])
    seen = batch_stats(task, state.stats.memory, outputs, batch)
    learnt = state._replace(params=params, optimizer=moments)
    return _update_or_freeze(task, settings, state, learnt, seen)


def current_params(state: Any) -> Any:
    """Returns the parameters to evaluate: the moving average, if one is kept."""
    if isinstance(state.average, tuple) and not state.average:
        return state.params
    return jax.tree.map(lambda a, p: a.astype(p.dtype), state.average, state.params)


def batch_stats(task: Task, memory: Any, outputs: Array, batch: Batch) -> Stats:
    """Returns the loss and metric of one batch, and the task's memory after it.

    Raises:
      ValueError: the outputs do not have the task's shape.
    """
    agreement.check_outputs(task, outputs, batch)
    loss, metric = task.loss(outputs, batch), task.metric(outputs, batch)
    agreement.check_measures(task, {"loss": loss, "metric": metric})
    return Stats(loss, metric, task.observe(memory, outputs, batch))


def _update_or_freeze(
    task: Task, settings: Settings, before: State, learnt: State, seen: Stats, grads: Any = ()
) -> State:
    """Returns the trial after its update, or frozen before it if a number is not finite.

    The check covers the loss and the updated parameters: a gradient that is not finite makes an
    update that is not finite.
    """
    return lax.cond(
        divergence.all_finite((seen.loss, learnt.params)),
        lambda: count_step(task, settings, learnt, seen),
        lambda: before._replace(status=divergence.cause(seen.loss, grads)),
    )


def _update(
    settings: Settings, trial: Trials, params: Any, moments: Any, grads: Any, rate: Any = None
) -> Any:
    """Returns the parameters and the optimiser's state after one update, scaled by `rate`."""
    optimizer = optimizers.make(settings.optimizer, trial)
    updates, moments = optimizer.update(_wide(grads), moments, _wide(params))
    if rate is not None:
        updates = jax.tree.map(lambda leaf: leaf * rate.astype(leaf.dtype), updates)
    return optax.apply_updates(params, updates), moments


def _averaged(settings: Settings, average: Any, params: Any, step: Array) -> Any:
    """Returns d a + (1 - d) p, with d at most t / (t + 1) after t updates: first a plain mean."""
    if settings.average is None:
        return average
    t = step.astype(jnp.float32)
    decay = jnp.minimum(jnp.float32(settings.average), t / (t + 1))

    def moved(a, p):
        return a + (p.astype(a.dtype) - a) * (1 - decay).astype(a.dtype)

    return jax.tree.map(moved, average, params)


def count_step(task: Task, settings: Settings, state: State, seen: Stats) -> State:
    """Returns the trial with updated means; solved if its task says so after `WINDOW` sequences."""
    step = state.step + 1
    before, batch = state.stats._replace(memory=()), seen._replace(memory=())
    means = _running_means(before, batch, step, settings.batch_size)
    stats = means._replace(memory=seen.memory)
    solved = task.solved(stats) & (step * settings.batch_size >= WINDOW)
    status = jnp.where(solved, jnp.int32(SOLVED), state.status)
    return state._replace(step=step, stats=stats, status=status)


def _running_means(means: Stats, seen: Stats, step: Array, batch_size: int) -> Stats:
    """Returns m_n = m_(n-1) + (x_n - m_(n-1)) max(1 / n, B / WINDOW)."""
    rate = jnp.maximum(1 / step.astype(jnp.float32), jnp.float32(min(1, batch_size / WINDOW)))

    def moved(mean, new):
        new = new.astype(jnp.float32)
        return jnp.where(step == 1, new, mean + (new - mean) * rate)

    return jax.tree.map(moved, means, seen)


def _wide(tree: Any) -> Any:
    """Returns the leaves in float32 at least: moments of bfloat16 parameters need the precision."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)
