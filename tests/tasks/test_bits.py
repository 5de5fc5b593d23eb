"""Bits: a plain Python reader answers every sequence; gaps, loss and chance in closed form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import Bits, Stats

N = 4000


@functools.cache
def draw(task, n=N):
    def both(key):
        return {split: task.sample(key, n, split) for split in ("train", "test")}

    return jax.tree.map(np.asarray, jax.jit(both)(jax.random.key(0)))


def reader(symbols, steps):
    """What is asked at each step of a sequence: writes bits down, repeats them from the cue on."""
    kept, asked, told = [], [], 0
    for symbol in symbols:
        if asked or symbol == 3:
            if asked:
                assert symbol == kept[told - 1], "the bit that was asked for is shown next"
            asked.append(kept[told])
            told += 1
        elif symbol != 2:
            kept.append(symbol)
    return [0] * (steps - len(asked)) + asked, len(kept)


@pytest.mark.parametrize("task", [Bits(1, 1), Bits(3, 4), Bits(2, 7)], ids=str)
def test_the_answers_are_those_of_a_reader(task):
    batch = draw(task, 200)["train"]
    assert batch.x.shape == (task.length, 200, 4)
    assert np.array_equal(batch.x.sum(-1), batch.mask)  # one-hot, nothing behind the end
    gaps = set()
    for row in range(200):
        steps = int(batch.mask[:, row].sum())
        assert batch.mask[:steps, row].all() and not batch.y[steps:, row].any()
        symbols = batch.x[:steps, row].argmax(-1).tolist()
        answers, count = reader(symbols, steps)
        assert batch.y[:steps, row].tolist() == answers and count == task.count
        gaps.add(symbols.count(2))
        assert steps == 2 * task.count + symbols.count(2)
    assert gaps == set(range(1, task.gap + 1))


def test_bits_and_gaps_are_uniform_and_independent():
    task = Bits(3, 4)
    batch = draw(task)["train"]
    bits = batch.x[:3, :, 1].astype(int)
    gap = batch.x[:, :, 2].sum(0).astype(int) - 1
    counts = np.bincount(gap * 8 + bits[0] * 4 + bits[1] * 2 + bits[2], minlength=32)
    assert np.all(np.abs(counts - N / 32) < 4.5 * np.sqrt(N / 32))


def test_loss_metric_and_correct_against_float64_numpy():
    task = Bits(3, 4)
    batch = jax.tree.map(lambda leaf: leaf[:, :50], draw(task)["test"])
    outputs = np.random.default_rng(0).normal(size=(task.length, 50, 2))
    losses, right = np.zeros((2, 50, 3))
    for row in range(50):
        steps = int(batch.mask[:, row].sum())
        o, y = outputs[steps - 3 : steps, row], batch.y[steps - 3 : steps, row]
        losses[row] = np.log(np.exp(o).sum(-1)) - o[np.arange(3), y]
        right[row] = o.argmax(-1) == y

    def told(outputs, batch):
        return task.loss(outputs, batch), task.metric(outputs, batch), task.correct(outputs, batch)

    loss, metric, correct = jax.jit(told)(jnp.asarray(outputs, jnp.float32), batch)
    np.testing.assert_allclose(loss, losses.mean(), rtol=2e-6)
    np.testing.assert_allclose(metric, right.mean(), rtol=1e-6)
    assert correct.tolist() == right.all(1).tolist()
    guess = task.loss(jnp.zeros_like(outputs, jnp.float32), batch)
    np.testing.assert_allclose(guess, math.log(2), rtol=1e-6)


def test_a_constant_answer_is_right_by_chance():
    task = Bits(2, 3)
    batch = draw(task)["train"]
    outputs = jnp.zeros((*batch.y.shape, 2)).at[..., 1].set(1.0)
    assert abs(task.metric(outputs, batch) - task.chance) < 4.5 * 0.5 / np.sqrt(2 * N)
    assert abs(np.mean(task.correct(outputs, batch)) - 1 / 4) < 4.5 * np.sqrt(3 / 16 / N)


def test_keys_and_splits_draw_different_sequences():
    task = Bits(3, 4)
    draws = draw(task, 50)
    assert not np.array_equal(draws["train"].x, draws["test"].x)
    again = jax.jit(lambda key: task.sample(key, 50))(jax.random.key(1))
    assert not np.array_equal(draws["train"].x, again.x)


def test_solved_at_a_hundredth_of_a_guess():
    def solved(loss):
        return bool(Bits(3).solved(Stats(jnp.array(loss), jnp.array(1.0))))

    assert [solved(x * math.log(2)) for x in (0.02, 0.0101, 0.0099)] == [False, False, True]


def test_data_are_of_32_bits_in_float64_programs(x64):
    batch = jax.eval_shape(lambda key: Bits(3).sample(key, 8), jax.random.key(0))
    assert (batch.x.dtype, batch.y.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"count": 2, "gap": 0}, "gap must be an integer of at least 1, got 0"),
        ({"count": 2.0}, "count must be an integer of at least 1, got 2.0"),
    ],
)
def test_bad_sizes_are_refused_by_name(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Bits(**sizes)
