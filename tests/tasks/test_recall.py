"""Recall: marks, alphabet, lag, and chance against a NumPy reader."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax import tasks

N = 20_000  # sequences; counts are held to 4.5 binomial standard errors


def near(counts, p, n):
    return np.all(np.abs(counts - n * p) <= 4.5 * np.sqrt(n * p * (1 - p)))


@functools.cache
def draw(task):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample(key, N))(jax.random.key(0)))


def test_the_answer_is_the_marked_symbol_exactly_lag_steps_before_the_end():
    for lag, symbols in ((1, 2), (6, 8)):
        task = tasks.Recall(lag, symbols)
        batch = draw(task)
        for row in range(200):
            seen = [list(x[:-1]).index(1.0) for x in batch.x[:, row]]
            marked = [t for t, x in enumerate(batch.x[:, row]) if x[-1] == 1.0]
            assert len(marked) == 1
            assert task.length - 1 - marked[0] == lag
            assert batch.y[row] == seen[marked[0]]


def test_distractors_look_like_the_symbol():
    batch = draw(tasks.Recall(6, 8))
    symbols, marker = batch.x[..., :-1], batch.x[..., -1]
    assert set(np.unique(symbols)) == {0.0, 1.0}  # one-hot at full strength,
    assert np.all(symbols.sum(axis=-1) == 1)  # one symbol at every step
    assert np.all(marker[1:] == 0)
    assert near(symbols.sum(axis=1), 1 / 8, N)  # each symbol equally often at each step


def test_distractors_tell_nothing_of_the_answer():
    batch = draw(tasks.Recall(6, 8))
    repeats = (batch.x[1:, np.arange(N), batch.y] == 1.0).sum(axis=1)
    assert near(repeats, 1 / 8, N)


def test_any_fixed_answer_is_right_by_chance():
    task = tasks.Recall(6, 8)
    batch = draw(task)
    for answer in range(8):
        outputs = jnp.zeros((N, 8)).at[:, answer].set(1.0)
        assert near(task.correct(outputs, batch).sum(), task.chance, N)
    assert task.chance == 1 / 8
    np.testing.assert_allclose(task.loss(jnp.zeros((N, 8)), batch), np.log(8), rtol=1e-6)


def test_the_right_answer_is_right():
    task = tasks.Recall(6, 8)
    batch = draw(task)
    outputs = 30 * jax.nn.one_hot(batch.y, 8)
    assert task.metric(outputs, batch) == 1
    assert task.loss(outputs, batch) < 1e-6


def test_solved_at_a_running_accuracy_of_99_percent():
    def solved(metric):
        return bool(tasks.Recall(6, 8).solved(tasks.Stats(jnp.array(9.0), jnp.array(metric))))

    assert [solved(metric) for metric in (0.98, 0.9899, 0.99, 1.0)] == [False, False, True, True]
