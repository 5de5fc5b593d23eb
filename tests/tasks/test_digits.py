"""Digits: the images as scikit-learn has them, splits that are disjoint, stratified and fixed."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks
from lstm_jax.tasks import digits

datasets = pytest.importorskip("sklearn.datasets")


def rows(task, split):
    """Returns a split as rows of 64 pixels and a label, [N, 65]."""
    batch = task.examples(split)
    assert batch.mask is None
    return np.concatenate(
        [np.asarray(batch.x[..., 0]).T, np.asarray(batch.y.value)[:, None]], axis=1
    )


def in_order(table):
    return table[np.lexsort(table.T[::-1])]


def originals():
    pixels, labels = datasets.load_digits(return_X_y=True)
    return np.concatenate([pixels / 16, labels[:, None]], axis=1)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_splits_share_out_every_image_once(seed):
    task = tasks.Digits(seed)
    parts = [rows(task, split) for split in tasks.SPLITS]
    np.testing.assert_array_equal(in_order(np.concatenate(parts)), in_order(originals()))
    assert [task.split_size(split) for split in tasks.SPLITS] == [len(part) for part in parts]
    assert len(np.unique(originals(), axis=0)) == 1797  # so that once means disjoint


def test_every_class_is_shared_out_alike():
    labels = originals()[:, -1]
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        part = rows(tasks.Digits(), split)[:, -1]
        for digit in range(10):
            assert abs(np.sum(part == digit) - share * np.sum(labels == digit)) <= 1


def test_the_split_is_fixed_by_the_seed_alone():
    first = rows(tasks.Digits(3), "test")
    digits._arrays.cache_clear()
    rows(tasks.Digits(4), "test")
    np.testing.assert_array_equal(rows(tasks.Digits(3), "test"), first)
    other = rows(tasks.Digits(4), "test")
    assert first.shape != other.shape or np.any(first != other)


def test_pixels_are_read_row_by_row():
    images = datasets.load_digits().images
    sequences = rows(tasks.Digits(), "test")[:, :64]
    known = {tuple((image / 16).reshape(-1)) for image in images}
    assert all(tuple(sequence) in known for sequence in sequences.astype(np.float64))
    assert sequences.min() == 0
    assert sequences.max() == 1


def test_a_few_pixels_a_step_are_the_same_pixels():
    one = tasks.Digits(permuted=True).examples("test")
    for pixels in (2, 8):
        task = tasks.Digits(permuted=True, pixels=pixels)
        few = task.examples("test")
        assert few.x.shape == (task.length, task.split_size("test"), pixels)
        together = np.asarray(few.x).transpose(1, 0, 2).reshape(-1, 64)
        np.testing.assert_array_equal(together, np.asarray(one.x[..., 0]).T)
    with pytest.raises(ValueError, match=r"pixels must be one of 1, 2, .* got 3"):
        tasks.Digits(pixels=3)


def test_permuted_pixels_are_the_same_in_one_other_order():
    plain, permuted = tasks.Digits(2), tasks.Digits(2, permuted=True)
    steps, others = (
        np.concatenate([np.asarray(task.examples(split).x[..., 0]) for split in tasks.SPLITS], 1)
        for task in (plain, permuted)
    )
    assert np.any(steps != others)
    np.testing.assert_array_equal(in_order(steps), in_order(others))  # whole steps moved
    for split in tasks.SPLITS:
        assert bool(
            jnp.array_equal(plain.examples(split).y.value, permuted.examples(split).y.value)
        )


def test_samples_come_from_their_split_with_their_labels():
    task = tasks.Digits()
    for split in tasks.SPLITS:
        batch = jax.jit(lambda key, split=split: task.sample(key, 500, split))(jax.random.key(0))
        drawn = np.concatenate(
            [np.asarray(batch.x[..., 0]).T, np.asarray(batch.y.value)[:, None]], 1
        )
        assert {tuple(row) for row in drawn} <= {tuple(row) for row in rows(task, split)}


def test_samples_are_drawn_evenly_and_with_replacement():
    task, n = tasks.Digits(), 20_000  # counts held to 4.5 binomial standard errors
    y = np.asarray(task.sample(jax.random.key(1), n).y.value)
    p = np.bincount(np.asarray(task.examples("train").y.value)) / task.split_size("train")
    assert n > task.split_size("train")
    assert np.all(np.abs(np.bincount(y) - n * p) <= 4.5 * np.sqrt(n * p * (1 - p)))
    few = np.asarray(task.sample(jax.random.key(2), n, "validation").x[..., 0]).T
    assert len(np.unique(few, axis=0)) == task.split_size("validation")  # every image turns up


def test_rows_without_weight_fill_a_batch_and_count_nowhere():
    task = tasks.Digits(pixels=8)
    index, weight = jnp.arange(6, dtype=jnp.int32), jnp.array([1.0, 1, 1, 1, 0, 0])
    whole = task.batch(task.arrays(), index, weight)
    part = task.batch(task.arrays(), index[:4], weight[:4])
    outputs = jax.random.normal(jax.random.key(0), (6, 10))
    for measure in (task.loss, task.metric):
        np.testing.assert_allclose(measure(outputs, whole), measure(outputs[:4], part), rtol=1e-6)
    assert task.correct(10 * jax.nn.one_hot(whole.y.value, 10), whole).tolist() == [1] * 4 + [0] * 2


def test_any_fixed_answer_is_right_by_chance():
    """A class holds 174 to 183 of 1,797 images, and the smallest split rounds to one of 179."""
    task = tasks.Digits()
    for split in tasks.SPLITS:
        batch = task.examples(split)
        for digit in range(10):
            outputs = jax.nn.one_hot(jnp.full_like(batch.y.value, digit), 10)
            assert task.metric(outputs, batch) == pytest.approx(task.chance, abs=0.0075)


def test_the_images_are_loaded_once_and_cannot_be_changed():
    arrays = tasks.Digits().arrays()
    assert tasks.Digits(pixels=8).arrays()["pixels"] is arrays["pixels"]
    for name in ("pixels", "label"):
        with pytest.raises(ValueError, match="read-only"):
            arrays[name][0] = 1


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(digits, "_load", digits._load.__wrapped__)
    digits._arrays.cache_clear()
    task = tasks.Digits()  # describing the task needs no data
    with pytest.raises(ModuleNotFoundError, match=r"scikit-learn: pip install 'lstm_jax\[exper"):
        task.sample(jax.random.key(0), 2)


@pytest.mark.parametrize("task", [tasks.Digits(), tasks.Digits(pixels=8, permuted=True)])
def test_new_images_are_read_as_those_of_the_task(task):
    batch, served = task.examples("test"), task.serving
    arrays = served.encode(np.swapaxes(batch.x, 0, 1)[:5])
    read = served.batch(arrays, jnp.arange(5), jnp.ones(5))
    np.testing.assert_array_equal(read.x, batch.x[:, :5])
    outputs = jax.random.normal(jax.random.key(0), (1, 5, 10))
    np.testing.assert_array_equal(served.predictions(outputs, arrays), outputs[0].argmax(-1))
