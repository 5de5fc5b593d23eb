"""Copy memory: a NumPy machine with a tape answers every sequence; baselines in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks

SMALL = tasks.CopyMemory(lag=2, letters=3, symbols=4)
CANONICAL = tasks.CopyMemory(lag=100)


@functools.cache
def draw(task, n):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample(key, n))(jax.random.key(0)))


def near(counts, p, n):
    """Within 4.5 binomial standard errors."""
    return np.all(np.abs(counts - n * p) <= 4.5 * np.sqrt(n * p * (1 - p)))


def machine(inputs, blank, delimiter):
    """Writes letters down as they come, is silent, and reads them out after the delimiter."""
    tape, reading, answers = [], False, []
    for symbol in inputs:
        answers.append(tape.pop(0) if reading else blank)
        if symbol == delimiter:
            reading = True
        elif symbol != blank:
            tape.append(symbol)
    assert tape == []
    return answers


@pytest.mark.parametrize("task", [tasks.CopyMemory(1, 1, 2), SMALL, CANONICAL], ids=str)
def test_the_target_is_what_a_machine_with_a_tape_answers(task):
    batch, blank, delimiter = draw(task, 100), task.symbols, task.symbols + 1
    assert set(np.unique(batch.x)) == {0.0, 1.0}
    assert np.all(batch.x.sum(axis=-1) == 1)
    for row in range(100):
        inputs = batch.x[:, row].argmax(axis=-1).tolist()
        assert batch.y[:, row].tolist() == machine(inputs, blank, delimiter)


def test_the_canonical_layout():
    task = CANONICAL
    inputs = draw(task, 100).x.argmax(axis=-1)
    blank, delimiter = 8, 9
    assert task.length == 120
    assert (task.input_size, task.output_size) == (10, 9)
    assert np.all(inputs[:10] < 8)
    assert np.all(inputs[10:109] == blank)  # T - 1 of them
    assert np.all(inputs[109] == delimiter)
    assert np.all(inputs[110:] == blank)


def test_letters_are_uniform_and_independent():
    n = 20_000
    y = draw(SMALL, n).y[-3:]
    counts = np.stack([(y == letter).sum(axis=1) for letter in range(4)])
    assert near(counts, 1 / 4, n)
    pairs = np.bincount(4 * y[0] + y[1], minlength=16)
    assert near(pairs, 1 / 16, n)


@pytest.mark.parametrize(
    ("lag", "published"),
    [(100, 0.1733), (200, 0.0945), (500, 0.0400), (1000, 0.0204), (2000, 0.0103)],
)
def test_baseline_loss_is_the_published_one(lag, published):
    assert round(tasks.CopyMemory(lag).baseline_loss, 4) == published


def memoryless(task, n):
    """Logits of a model that knows when to answer, and nothing of the letters."""
    silent = jnp.full((task.length - task.letters, n, task.output_size), -jnp.inf)
    guess = jnp.zeros((task.letters, n, task.output_size)).at[..., -1].set(-jnp.inf)
    return jnp.concatenate([silent.at[..., -1].set(0.0), guess])


def test_a_model_without_memory_has_the_baseline_loss():
    loss = CANONICAL.loss(memoryless(CANONICAL, 100), draw(CANONICAL, 100))
    np.testing.assert_allclose(loss, CANONICAL.baseline_loss, rtol=1e-5)


def test_any_fixed_string_is_right_by_chance():
    n = 20_000
    correct = SMALL.correct(memoryless(SMALL, n), draw(SMALL, n))  # always the first letter
    assert near(correct.sum(), SMALL.chance, n)
    assert SMALL.chance == 1 / 64
    assert CANONICAL.chance == 8**-10


def test_correct_wants_every_letter_and_nothing_else():
    batch = draw(SMALL, 100)
    outputs = np.array(30 * jax.nn.one_hot(batch.y, SMALL.output_size))
    assert SMALL.metric(jnp.asarray(outputs), batch) == 1
    outputs[-1, 1] = np.roll(outputs[-1, 1], 1)  # the last letter wrong in row 1,
    outputs[-3, 3] = np.roll(outputs[-3, 3], 1)  # the first in row 3,
    outputs[-4, 4] = np.roll(outputs[-4, 4], 1)  # the last blank before the answer in row 4
    wrong = np.flatnonzero(SMALL.correct(jnp.asarray(outputs), batch) == 0)
    assert wrong.tolist() == [1, 3]


def test_solved_needs_a_tenth_of_the_baseline_and_exact_recall():
    task = tasks.CopyMemory(lag=50)

    def solved(loss, metric):
        return bool(task.solved(tasks.Stats(jnp.array(loss), jnp.array(metric))))

    tenth = task.baseline_loss / 10
    assert solved(0.99 * tenth, 0.95)
    assert not solved(1.01 * tenth, 1.0)
    assert not solved(0.99 * tenth, 0.94)
