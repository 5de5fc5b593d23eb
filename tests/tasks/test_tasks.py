"""What every task promises: sizes, purity, splits, losses against float64 NumPy, clear refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import tasks
from lstm_jax.tasks import base

STRINGS = ("embedded_reber", "counting")
EVERY = [
    tasks.Recall(lag=5, symbols=4),
    tasks.CopyMemory(lag=3, letters=2, symbols=3),
    tasks.Adding(length=7),
    tasks.Adding1997(shortest=20),
    tasks.Digits(),
    tasks.EmbeddedReber(),
    tasks.Counting(letters=3, longest=4),
]
ONE_ANSWER = [task for task in EVERY if task.name not in STRINGS]  # the others' losses: their tests
every_task = pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)


@functools.cache
def draws(task):
    """Returns the compiled function of a key that draws a batch of every split."""
    return jax.jit(lambda key: {split: task.sample(key, 8, split) for split in tasks.SPLITS})


def outputs_of(task, dtype: type = np.float32):
    time = (task.length,) if task.readout == "every" else ()
    return np.random.default_rng(0).normal(size=(*time, 8, task.output_size)).astype(dtype)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda u, v: bool(jnp.array_equal(u, v)), a, b)))


@every_task
def test_a_batch_has_the_sizes_the_task_states(task):
    batch = draws(task)(jax.random.key(0))["train"]
    assert batch.x.shape == (task.length, 8, task.input_size)
    assert batch.x.dtype == jnp.float32
    for answers in jax.tree.leaves(batch.y):
        shape = (task.length, 8) if task.readout == "every" else (8,)
        assert answers.shape[: len(shape)] == shape
    assert batch.reset is None
    if batch.mask is not None:
        assert batch.mask.shape == (task.length, 8)
        assert batch.mask.dtype == bool
    if isinstance(batch.y, jax.Array) and jnp.issubdtype(batch.y.dtype, jnp.integer):
        assert batch.y.min() >= 0
        assert batch.y.max() < task.output_size


@every_task
def test_sampling_is_a_pure_function_of_the_key(task):
    key, other = jax.random.key(3), jax.random.key(4)
    first = draws(task)(key)
    assert not same(first["train"].x, draws(task)(other)["train"].x)
    assert same(draws(task)(key), first)


def test_sampling_needs_no_jit():
    task, key = tasks.Recall(lag=5, symbols=4), jax.random.key(3)
    assert same(task.sample(key, 8), draws(task)(key)["train"])


@every_task
def test_vmap_over_keys_equals_single_calls(task):
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(lambda key: task.sample(key, 8)))(keys)
    for i, key in enumerate(keys):
        assert same(jax.tree.map(lambda leaf, i=i: leaf[i], together), draws(task)(key)["train"])


@every_task
def test_splits_draw_different_sequences_from_the_same_key(task):
    train, validation, test = (draws(task)(jax.random.key(2))[split].x for split in tasks.SPLITS)
    assert not same(train, validation)
    assert not same(train, test)
    assert not same(validation, test)


@pytest.mark.parametrize("task", ONE_ANSWER, ids=lambda task: task.name)
def test_loss_equals_a_float64_numpy_loop(task):
    batch = draws(task)(jax.random.key(5))["train"]
    outputs = outputs_of(task)
    flat, y = (
        outputs.astype(np.float64).reshape(-1, task.output_size),
        np.asarray(getattr(batch.y, "value", batch.y)).ravel(),
    )
    if task.name.startswith("adding"):
        answers = 1 / (1 + np.exp(-flat[:, 0])) if task.name == "adding_1997" else flat[:, 0]
        expected = np.mean([(a - t) ** 2 for a, t in zip(answers, y, strict=True)])
    else:
        expected = np.mean([np.log(np.sum(np.exp(o))) - o[t] for o, t in zip(flat, y, strict=True)])
    np.testing.assert_allclose(jax.jit(task.loss)(outputs, batch), expected, rtol=2e-6)


@every_task
def test_the_metric_is_the_share_of_correct_sequences(task):
    batch = draws(task)(jax.random.key(6))["train"]
    correct = np.asarray(task.correct(outputs_of(task), batch))
    assert correct.shape == (8,)
    assert set(correct) <= {0.0, 1.0}
    np.testing.assert_allclose(task.metric(outputs_of(task), batch), correct.mean(), rtol=1e-6)


@every_task
def test_outputs_of_any_precision_have_gradients_of_their_own(task):
    batch = draws(task)(jax.random.key(7))["train"]
    gradient = jax.jit(jax.grad(task.loss))(outputs_of(task), batch)
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.any(gradient != 0)
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            outputs = jax.ShapeDtypeStruct(gradient.shape, dtype)
            assert jax.eval_shape(jax.grad(task.loss), outputs, batch).dtype == dtype


@every_task
def test_data_are_of_32_bits_in_float64_programs(task, x64):
    batch = jax.eval_shape(lambda key: task.sample(key, 8), jax.random.key(0))
    assert batch.x.dtype == jnp.float32
    for answers in jax.tree.leaves(batch.y):
        assert answers.dtype in (jnp.int32, jnp.float32, bool)


@every_task
def test_a_task_is_a_value(task):
    again = type(task)(**task.__dict__)
    assert again == task
    assert hash(again) == hash(task)


@every_task
def test_solved_is_a_boolean_scalar_under_vmap(task):
    stats = tasks.Stats(loss=jnp.array([0.0, 1.0]), metric=jnp.array([1.0, 0.5]))
    solved = jax.vmap(task.solved)(stats)
    assert solved.dtype == bool
    assert solved.tolist() == [task.name not in ("digits", "counting"), False]


@every_task
def test_an_unknown_split_is_refused(task):
    message = "split must be one of train, validation, test, got 'tset'"
    with pytest.raises(ValueError, match=message):
        task.sample(jax.random.key(0), 2, "tset")
    with pytest.raises(ValueError, match=message):
        task.split_size("tset")


def test_only_sets_have_a_size():
    endless = [task for task in EVERY if task.name not in ("digits", "embedded_reber")]
    assert all(task.split_size(split) is None for task in endless for split in tasks.SPLITS)
    assert tasks.Digits().split_size("test") == 359
    assert tasks.EmbeddedReber().split_size("test") == 256


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        (tasks.Recall, {"lag": 0}, "lag must be an integer of at least 1, got 0"),
        (tasks.Recall, {"lag": -3}, "lag must be an integer of at least 1, got -3"),
        (tasks.Recall, {"lag": 2.0}, "lag must be an integer of at least 1, got 2.0"),
        (tasks.Recall, {"lag": "9"}, "lag must be an integer of at least 1, got '9'"),
        (tasks.Recall, {"lag": True}, "lag must be an integer of at least 1, got True"),
        (tasks.Recall, {"lag": 3, "symbols": 1}, "symbols must be an integer of at least 2, got 1"),
        (tasks.CopyMemory, {"lag": 0}, "lag must be an integer of at least 1, got 0"),
        (
            tasks.CopyMemory,
            {"lag": 1, "letters": 0},
            "letters must be an integer of at least 1, got 0",
        ),
        (
            tasks.CopyMemory,
            {"lag": 1, "symbols": 1},
            "symbols must be an integer of at least 2, got 1",
        ),
        (tasks.Adding, {"length": 1}, "length must be an integer of at least 2, got 1"),
        (
            tasks.Adding1997,
            {"shortest": 10},
            "shortest must be an integer of at least 11, got 10",
        ),
        (tasks.Digits, {"seed": -1}, "seed must be an integer of at least 0, got -1"),
        (
            tasks.EmbeddedReber,
            {"data_set": -1},
            "data_set must be an integer of at least 0, got -1",
        ),
        (tasks.Digits, {"permuted": "no"}, "permuted must be one of False, True, got 'no'"),
    ],
)
def test_bad_sizes_are_refused_by_name(kind, sizes, message):
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        kind(**sizes)
    assert "\n" not in str(refusal.value)


def test_within_is_strict_and_symmetric():
    targets = jnp.zeros(4)
    answers = jnp.array([0.25, -0.25, 0.24, -0.24])
    assert base.within(0.25, answers, targets).tolist() == [0.0, 0.0, 1.0, 1.0]
