"""Sequential digits: one training, and a search of 96, with rivals that train the same.

An LSTM of 64 units reads 8 x 8 pixels, one per time step, and a dense layer reads its last state.
All rivals have the same rows, batches of 32, epochs, Adam, clipping and distribution of initial
recurrent weights. Our times and Flax's include tracing and compilation.
"""

import concurrent.futures
import functools
import importlib
import itertools
import multiprocessing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

import lstm_jax as lj
from scripts._bench_own_data import (
    Problem,
    Training,
    has_torch,
    installed,
    rows_of,
    trainings,
    with_torch,
)

IMAGES = 1600  # 1,280 train in whole batches, 320 test
EPOCHS, RATE, CLIP = 30, 5e-3, 1.0  # of the one training
SEARCH_EPOCHS, SEEDS = 3, 3
RATES, CLIPS = np.geomspace(1e-3, 3e-2, 8), (0.25, 0.5, 1.0, 2.0)
TOGETHER = 4  # trainings in Flax's vmap; faster here than 12 or 96
SAMPLES = 8  # of the 96 trainings that torch runs for its time
ALONE = functools.partial(with_torch, threads=1)


def digits(epochs: int) -> Problem:
    """Returns 1,280 training rows of 64 pixels, 10 digits; 320 test rows."""
    pixels, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    data = lj.data.Sequences(pixels[:IMAGES, :, None], labels[:IMAGES])
    task = lj.tasks.Classification(data.split(validation=0, test=0.2, stratify=True))
    return Problem("sequential digits", task, hidden=64, epochs=epochs, batch=32)


def fitted(problem: Problem, **given: Any) -> list[float]:
    """Returns the test accuracy of every trial of ours, compilation included."""
    jax.clear_caches()
    model = lj.nn.SequenceSpec(lj.cells.LSTM(problem.hidden))
    result = lj.fit(
        problem.task, model, lj.make_trials(**given), epochs=problem.epochs,
        batch_size=problem.batch, progress=False,
    )  # fmt: skip
    return result.evaluate("test").metric.tolist()


def one_training() -> dict[str, Any]:
    """Returns a call of each rival; the n-th call has seed n."""
    problem = digits(EPOCHS)
    return installed(
        {
            "lstm_jax": lambda n: fitted(problem, seed=n, learning_rate=RATE, clip=CLIP),
            "torch": lambda n: list(map(with_torch, trainings(problem, [(RATE, n, CLIP)]))),
        }
    )


def search() -> dict[str, Any]:
    """Returns a call of each rival; all give the accuracies of the trainings that torch samples."""
    problem = digits(SEARCH_EPOCHS)
    settings = list(itertools.product(RATES, range(SEEDS), CLIPS))
    rate, seed, clip = map(np.array, zip(*settings, strict=True))

    def sampled(n):
        return range(n % SAMPLES, len(rate), len(rate) // SAMPLES)

    def picked(n, found):
        return [found[i] for i in sampled(n)]

    calls = {
        "lstm_jax": lambda n: picked(n, fitted(problem, seed=seed, learning_rate=rate, clip=clip)),
        "Flax, vmap": lambda n: picked(n, with_flax(problem, rate, clip, seed)),
    }
    if has_torch():
        each = trainings(problem, settings)
        pool = warm_pool(each[0])
        calls["torch"] = lambda n: [with_torch(each[i]) for i in sampled(n)]
        several = functools.partial(pool.map, ALONE)
        calls["torch, two processes"] = lambda n: list(several([each[i] for i in sampled(n)]))
    return calls


def warm_pool(given: Training) -> concurrent.futures.Executor:
    """Returns two processes that have trained once."""
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(2, spawn)
    list(pool.map(ALONE, [given._replace(epochs=1)] * 2))
    return pool


class Reader(linen.Module):
    """An LSTM and a dense layer on its last state."""

    hidden: int
    classes: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits [B, V] of x [B, T, D]."""
        drawn_as_ours = linen.initializers.glorot_uniform()
        h: Any = linen.RNN(linen.OptimizedLSTMCell(self.hidden, kernel_init=drawn_as_ours))(x)
        return linen.Dense(self.classes)(h[:, -1])


def with_flax(problem: Problem, rate: Any, clip: Any, seed: Any) -> list[float]:
    """Returns the test accuracies of all trainings, by `vmap` of a loop in one program."""
    jax.clear_caches()
    model: Any = Reader(problem.hidden, problem.task.output_size)
    rows = {split: rows_of(problem.task, split) for split in ("train", "test")}
    (x, _, y), (x_test, _, y_test) = (jax.tree.map(jnp.asarray, rows[s]) for s in rows)

    def train(params, rate, clip, seed):
        optimizer = optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate))

        def loss(params, rows):
            logits = model.apply(params, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        def step(carry, rows):
            params, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(params, rows), moments)
            return (optax.apply_updates(params, updates), moments), None

        def epoch(carry, key):
            order = jax.random.permutation(key, len(x)).reshape(-1, problem.batch)
            return jax.lax.scan(step, carry, order)

        keys = jax.random.split(jax.random.key(seed), problem.epochs)
        start: Any = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(epoch, start, keys)
        return (model.apply(params, x_test).argmax(-1) == y_test).mean()

    settings = jnp.float32(rate), jnp.float32(clip), jnp.uint32(seed)
    seeds, place = np.unique(seed, return_inverse=True)  # no `vmap`: a batched QR may never end
    begin = jax.jit(lambda key: forgetting(model.init(key, x[:1])))
    drawn = [begin(jax.random.key(int(s))) for s in seeds]
    params = jax.tree.map(lambda *each: jnp.stack(each)[place], *drawn)
    each = functools.partial(jax.lax.map, lambda one: train(*one), batch_size=TOGETHER)
    found = jax.jit(each)((params, *settings))
    return np.asarray(found).tolist()


def forgetting(variables: Any) -> Any:
    """Returns the variables of a `Reader` with a forget bias of 1."""

    def biased(path, leaf):
        names = [entry.key for entry in path]
        return jnp.ones_like(leaf) if names[-2:] == ["hf", "bias"] else leaf

    return jax.tree.map_with_path(biased, variables)
