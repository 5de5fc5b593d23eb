"""Counting: strings by a reader that counts, the symbols that may follow, what is accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks

N = 20_000
SIZES = pytest.mark.parametrize("letters", [2, 3, 4])


def written(batch, row, letters):
    """The string of a row, and what may follow each of its symbols."""
    names = "Sabcdefgh"
    steps = int(batch.mask[:, row].sum())
    assert batch.mask[:steps, row].all()
    assert not batch.x[steps:, row].any()
    assert not batch.y[steps:, row].any()
    assert (batch.x[:steps, row].sum(-1) == 1).all()
    string = "".join(names[k] for k in batch.x[:steps, row].argmax(-1))
    ends = [*names[1 : letters + 1], "T"]
    legal = ["".join(ends[k] for k in np.flatnonzero(v)) for v in batch.y[:steps, row]]
    return string, legal


def may_follow(prefix, letters):
    """Every symbol after which some string of the language, or the empty one, goes on."""
    language = ["ST", *("S" + "".join(c * n for c in "abcd"[:letters]) + "T" for n in range(1, 9))]
    after = {s[len(prefix)] for s in language if s.startswith(prefix)}
    return "".join(sorted(after - {"T"})) + ("T" if "T" in after else "")


@SIZES
def test_strings_and_what_may_follow(letters):
    task = tasks.Counting(letters, 6)
    batch = jax.tree.map(np.asarray, task.of(jnp.arange(1, 7, dtype=jnp.int32)))
    for row, n in enumerate(range(1, 7)):
        string, legal = written(batch, row, letters)
        assert string == "S" + "".join(c * n for c in "abcd"[:letters])
        assert legal == [may_follow(string[: t + 1], letters) for t in range(len(string))]
    assert batch.x.shape == (task.length, 6, task.input_size)
    assert batch.y.shape == (task.length, 6, task.output_size)


def test_numbers_are_uniform():
    task = tasks.Counting(3, 10)
    mask = np.asarray(jax.jit(lambda key: task.sample(key, N).mask)(jax.random.key(0)))
    n, rest = np.divmod(mask.sum(0) - 1, 3)
    assert not rest.any()
    counts = np.bincount(n, minlength=11)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - N / 10) < 4.5 * np.sqrt(N * 0.09)).all()


def test_a_string_is_accepted_when_every_set_is_named():
    task = tasks.Counting(2, 4)
    batch = task.of(jnp.array([4, 2, 1], jnp.int32))
    legal = np.asarray(batch.y)
    outputs = np.where(legal, 0.1, -0.1)
    outputs[~np.asarray(batch.mask)] = 3.0  # what is padded has no say
    assert task.correct(jnp.float32(outputs), batch).tolist() == [1, 1, 1]
    for t, row, k in ((0, 1, 0), (8, 0, 2), (2, 2, 0)):
        spoilt = outputs.copy()
        spoilt[t, row, k] *= -1
        expected = [1, 1, 1]
        expected[row] = 0
        assert task.correct(jnp.float32(spoilt), batch).tolist() == expected


def test_loss_is_the_mean_cross_entropy_of_an_output():
    task = tasks.Counting(2, 3)
    batch = task.of(jnp.array([3, 1], jnp.int32))
    outputs = np.random.default_rng(0).normal(size=(task.length, 2, 3))
    p = 1 / (1 + np.exp(-outputs))
    losses = -np.log(np.where(batch.y, p, 1 - p))[np.asarray(batch.mask)]
    assert losses.shape == (7 + 3, 3)
    np.testing.assert_allclose(task.loss(jnp.float32(outputs), batch), losses.mean(), rtol=2e-6)


def test_the_language_in_words():
    assert tasks.Counting(2).language == "a^n b^n"
    assert tasks.Counting(3).language == "a^n b^n c^n"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"letters": 1}, "letters must be an integer of at least 2, got 1"),
        ({"letters": 9}, "letters must be one of 2, 3, 4, 5, 6, 7, 8, got 9"),
        ({"longest": 0}, "longest must be an integer of at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        tasks.Counting(**sizes)
