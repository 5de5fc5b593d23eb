"""Adding, both forms: a NumPy reader sums what is marked; constant answers in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks
from lstm_jax.types import Batch
from tests.products import mostly_slow

N = 20_000  # sequences; counts are held to 4.5 binomial standard errors, means to 4.5 of theirs


@functools.cache
def draw(task):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample(key, N))(jax.random.key(0)))


def near(count, p, n=N):
    return np.all(np.abs(count - n * p) <= 4.5 * np.sqrt(n * p * (1 - p)))


def near_mean(samples, expected):
    return abs(samples.mean() - expected) <= 4.5 * samples.std() / np.sqrt(len(samples))


def marked_sum(x):
    """Sums the values whose marker is 1, step by step."""
    total = 0.0
    for value, marker in x.astype(np.float64):
        if marker == 1.0:
            total += value
    return total


@pytest.mark.parametrize("length", [2, 11, 20])
def test_modern_marks_one_step_of_each_half_and_sums_their_values(length):
    batch = draw(tasks.Adding(length))
    values, marker = batch.x[..., 0], batch.x[..., 1]
    assert batch.mask is None
    assert values.min() >= 0
    assert values.max() < 1
    assert set(np.unique(marker)) <= {0.0, 1.0}
    assert np.all(marker[: length // 2].sum(axis=0) == 1)
    assert np.all(marker[length // 2 :].sum(axis=0) == 1)
    sums = [marked_sum(batch.x[:, row]) for row in range(300)]
    np.testing.assert_allclose(batch.y[:300], sums, rtol=1e-6)


def test_modern_values_and_marks_are_uniform():
    batch = draw(tasks.Adding(20))
    values, marker = batch.x[..., 0], batch.x[..., 1]
    assert near(marker.sum(axis=1), 1 / 10)
    assert near(np.sum(marker[1] * marker[18]), 1 / 100)  # the two marks are independent
    assert near((values < 0.3).sum(axis=1), 0.3)
    assert near_mean(values[4] ** 2, 1 / 3)


def test_modern_constant_answer_is_at_chance():
    task = tasks.Adding(20)
    batch = draw(task)
    ones = jnp.ones((N, 1))
    assert task.baseline_loss == 1 / 6
    assert near_mean((1.0 - batch.y) ** 2, 1 / 6)
    np.testing.assert_allclose(task.loss(ones, batch), ((1.0 - batch.y) ** 2).mean(), rtol=1e-5)
    assert task.chance == pytest.approx(0.0784)
    assert near(task.correct(ones, batch).sum(), task.chance)


@pytest.mark.parametrize("shortest", mostly_slow([11, 25, 100], [11, 25]))
def test_1997_reads_as_published(shortest):
    """Lengths, markers, padding and target of every row, by a reader that knows only the rule."""
    task = tasks.Adding1997(shortest)
    batch = draw(task)
    early = 0
    for row in range(300):
        mask, x = batch.mask[:, row], batch.x[:, row]
        length = int(mask.sum())
        assert shortest <= length <= 1.1 * shortest
        assert np.all(mask[:length])
        assert not np.any(x[length:])  # padded steps carry nothing
        values, marker = x[:length].T
        assert np.all((values >= -1) & (values < 1))
        assert marker[0] == -1
        assert marker[-1] == -1
        marked = np.flatnonzero(marker == 1.0)
        assert np.all(marker[1:-1][marker[1:-1] != 1.0] == 0)
        assert len(marked) in (1, 2)  # one where the draw met the first step
        early += len(marked) == 1
        assert np.sum(marked >= 10) <= 1
        assert np.all(marked <= max(9, shortest // 2 - 1))
        np.testing.assert_allclose(batch.y[row], 0.5 + marked_sum(x) / 4, rtol=1e-6)
    q = 0.1 + 0.9 / (shortest // 2 - 1)
    assert near(early, q, 300)


def test_1997_lengths_and_marks_are_uniform():
    task = tasks.Adding1997(100)
    batch = draw(task)
    lengths = batch.mask.sum(axis=0)
    assert task.length == 110
    assert near(np.bincount(lengths, minlength=111)[100:], 1 / 11)
    assert near((batch.x[20, :, 0] < -0.4).sum(), 0.3)
    marks = (batch.x[..., 1] == 1.0).sum(axis=1)
    # A step of the first ten: drawn first, or second as the j-th of 49 still unmarked.
    assert near(marks[1:10], 0.1 + 0.9 / 49)
    # Every later one is the 49-strong urn's: steps 10 to 48 whatever the first mark was.
    assert near(marks[10:49], 1 / 49)
    # One of the first ten is always marked, so the urn reaches one step further: step 49.
    assert near(marks[49], 1 / 49)
    assert not np.any(marks[50:])


def test_1997_constant_answer_is_at_chance():
    for shortest in (11, 100):
        task = tasks.Adding1997(shortest)
        batch = draw(task)
        half = jnp.zeros((N, 1))  # the logit of 0.5
        assert near_mean((0.5 - batch.y) ** 2, task.baseline_loss)
        np.testing.assert_allclose(task.loss(half, batch), ((0.5 - batch.y) ** 2).mean(), rtol=1e-5)
        assert near(task.correct(half, batch).sum(), task.chance)
    assert task.chance == pytest.approx(0.154, abs=5e-4)


def test_1997_constant_answer_where_two_steps_are_marked_is_the_published_one():
    """Without the rows whose first step was drawn, the squared error is 1/24 = .0417."""
    batch = draw(tasks.Adding1997(100))
    both = (batch.x[..., 1] == 1.0).sum(axis=0) == 2
    error = 0.5 - batch.y[both]
    assert near_mean(error**2, 1 / 24)
    assert near((np.abs(error) < 0.04).sum(), 0.1536, n=both.sum())


@pytest.mark.parametrize("kind", [tasks.Adding, tasks.Adding1997])
def test_an_answer_is_correct_within_four_hundredths(kind):
    task = kind(30)
    batch = Batch(jnp.zeros((task.length, 4, 2)), jnp.full(4, 0.5))
    answers = 0.5 + jnp.array([0.039, -0.039, 0.041, -0.041])
    outputs = answers if kind is tasks.Adding else jnp.log(answers / (1 - answers))
    assert task.correct(outputs[:, None], batch).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", [tasks.Adding, tasks.Adding1997])
def test_solved_at_a_running_accuracy_of_99_percent(kind):
    task = kind(30)
    metrics = jnp.array([0.98, 0.9899, 0.99, 1.0])
    solved = jax.vmap(task.solved)(tasks.Stats(jnp.zeros(4), metrics))
    assert solved.tolist() == [False, False, True, True]
