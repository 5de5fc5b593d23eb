"""Tasks over sequences: scales of the training rows, weights, missing numbers, predictions."""

import dataclasses
import functools
import json
from typing import Any, ClassVar

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import lstm_jax as lj
from lstm_jax.data import Sequences, Split
from lstm_jax.tasks import Classification, Labelling, Regression, heads
from lstm_jax.tasks.supervised import Supervised
from tests.tasks.supervised_rows import (
    LABELS,
    LENGTHS,
    MASK,
    NUMBERS,
    RAGGED,
    RNG,
    TAGS,
    D,
    N,
    T,
    X,
)


def every_row(task: Supervised, arrays: Any = None, weight: Any = None) -> Any:
    """Returns one batch of all rows."""
    arrays = task.arrays() if arrays is None else arrays
    index = jnp.arange(len(arrays["x"]), dtype=jnp.int32)
    weight = jnp.ones(len(index)) if weight is None else jnp.asarray(weight, jnp.float32)
    return task.batch(arrays, index, weight)


def outputs_of(task: Supervised, rows: int = N, seed: int = 0) -> jax.Array:
    shape = (T, rows) if task.readout == "every" else (rows,)
    return jax.random.normal(jax.random.key(seed), (*shape, task.output_size))


def same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_inputs_are_scaled_by_the_valid_steps_of_the_training_rows() -> None:
    split = Sequences(RAGGED, LABELS, static=NUMBERS).split(seed=1)
    task, train = Classification(split), split.rows["train"]
    steps = np.concatenate([RAGGED[n] for n in train]).astype(np.float64)
    batch = every_row(task)
    assert batch.x.shape == (T, N, D + 1) and task.input_size == D + 1
    for n in range(N):
        wanted = (RAGGED[n] - steps.mean(0)) / steps.std(0)
        np.testing.assert_allclose(batch.x[: LENGTHS[n], n, :D], wanted, rtol=1e-4, atol=1e-5)
        assert not np.any(batch.x[LENGTHS[n] :, n, :D])
        assert batch.mask[:, n].sum() == LENGTHS[n]
    static = (NUMBERS - NUMBERS[train].mean()) / NUMBERS[train].std()
    np.testing.assert_allclose(batch.x[2, :, D], static, rtol=1e-4, atol=1e-5)


@hypothesis.given(st.integers(0, 2**16), st.booleans())
@hypothesis.settings(max_examples=20)
def test_nothing_fitted_depends_on_the_test_rows(seed: int, symbols: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 7, (N, T)) if symbols else X
    other = rng.integers(0, 50, (5, T)) if symbols else 1000 * rng.normal(size=(5, T, D))
    for kind, y, others in ((Classification, LABELS, ["dog"] * 5), (Regression, NUMBERS, range(5))):
        train = Sequences(x, y)
        one, two = kind(Split(train)), kind(Split(train, test=Sequences(other, list(others))))
        same(one.state()[1], two.state()[1])
        assert one.static == two.static and one.chance == two.chance


def test_symbols_beyond_those_of_training_are_one_symbol() -> None:
    train, test = Sequences([[3, 1, 2], [0, 1]], ["a", "b"]), Sequences([[9, 4, 3]], ["a"])
    task = Classification(Split(train, test=test))
    assert (task.input_size, task.input_kind) == (5, "symbols")
    assert every_row(task).x.T.tolist() == [[3, 1, 2], [0, 1, 0], [4, 4, 3]]


OTHER_NAMES = [("b", "a", "c"), ("a", "b", "d"), ("p", "q", "r"), ("a", "b")]


@pytest.mark.parametrize("others", OTHER_NAMES)
@pytest.mark.parametrize("part", ["features", "static"])
def test_features_of_other_names_are_refused(part: str, others: tuple[str, ...]) -> None:
    def named(names: tuple[str, ...]) -> Sequences:
        x = X[..., : len(names)]
        if part == "features":
            return Sequences(x, LABELS, names=names)
        return Sequences(X, LABELS, static=x[:, 0], static_names=names)

    own, wrong = named(("a", "b", "c")), named(others)
    task = Classification(own.split())
    description, constants = task.state()
    loaded = Classification.restore(json.loads(json.dumps(description)), constants)
    words = f"{part} must be a, b, c in this order, got {', '.join(others)}"
    for known in (task, loaded):
        with pytest.raises(ValueError, match=words):
            known.encode(wrong)
        known.encode(own)
        known.encode(X, static=own.static)  # arrays have no names
    if len(others) == D:
        with pytest.raises(ValueError, match=words):
            Split(own, test=wrong)


def test_tables_give_their_names_to_features() -> None:
    def tables(names: str) -> Sequences:
        x = [pd.DataFrame(row, columns=list(names)) for row in X]  # pyright: ignore
        return Sequences(x, LABELS, static=pd.DataFrame(X[:, 0], columns=list(names)))  # pyright: ignore

    data = tables("abc")
    assert data.names == data.static_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="features must be a, b, c in this order, got a, c, b"):
        Classification(data.split()).encode(tables("acb"))
    ten, wrong = [*"abcdefghij"], [*"abcdefghxj"]
    with pytest.raises(ValueError, match=r"features must be .., i, j in this order, got .., x, j"):
        Sequences([pd.DataFrame(np.ones((2, 10)), columns=names) for names in (ten, wrong)])  # pyright: ignore
    with pytest.raises(ValueError, match="features must be a, b, c in this order, got c, b, a"):
        Sequences([pd.DataFrame(X[0], columns=list(names)) for names in ("abc", "cba")])  # pyright: ignore


def test_ragged_lists_are_padded_arrays_with_lengths() -> None:
    padded = X.copy()
    for n in range(N):
        padded[n, LENGTHS[n] :] = [np.nan, np.inf, 1e30]
    mask = np.arange(T) < LENGTHS[:, None]
    forms = [
        Sequences(RAGGED, LABELS),
        Sequences(padded, LABELS, lengths=LENGTHS),
        Sequences(padded, LABELS, mask=mask),
    ]
    batches = [every_row(Classification(data.split(seed=2))) for data in forms]
    same(batches[0], batches[1])
    same(batches[0], batches[2])


@functools.cache
def value_and_grad(kind: Any, cell: Any) -> tuple[Supervised, Any]:
    """Returns a task of one mask, and the compiled loss and gradient as functions of its arrays."""
    y = LABELS if kind is Classification else X[..., 1]
    task = kind(Split(Sequences(np.where(MASK[..., None], X, 0), y, mask=MASK)))
    model = lj.nn.SequenceSpec(cell, task.input_size, task.output_size, task.readout)
    params = jax.jit(model.init)(jax.random.key(0))

    @jax.jit
    def of(arrays: Any) -> Any:
        batch = every_row(task, arrays)
        loss = lambda p: task.loss(model.apply(p, batch.x, mask=batch.mask), batch)  # noqa: E731
        return jax.value_and_grad(loss)(params)

    return task, of


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (Labelling, lj.cells.LSTM(3)),
        (Classification, lj.cells.GRU(3)),
        (Classification, lj.cells.MinGRU(3)),
    ],
)
@hypothesis.given(st.integers(0, 2**16))
@hypothesis.settings(max_examples=15)
def test_what_is_missing_or_masked_changes_no_value_and_no_gradient(kind, cell, seed) -> None:
    """Whatever stands where a step does not count: numbers, NaN, infinity, also in targets."""
    task, of = value_and_grad(kind, cell)
    expected, rng = of(task.arrays()), np.random.default_rng(seed)
    assert np.isfinite(expected[0])
    stray = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e38, 0], np.float32), X.shape)
    changed = {"x": np.where(MASK[..., None], X, stray)}
    if kind is Labelling:
        changed["y"] = np.where(MASK[..., None], X[..., 1:2], stray[..., :1])
    same(of(task.arrays() | changed), expected)


def test_a_missing_number_is_the_mean_and_has_an_indicator() -> None:
    x = X.copy()
    x[2, 1, 0], x[3, 4] = np.nan, np.nan
    batch = every_row(Regression(Sequences(x, NUMBERS, missing="indicator").split()))
    assert batch.mask is None and batch.x.shape == (T, N, 2 * D)
    assert np.argwhere(batch.x[..., D:]).tolist() == [[1, 2, 0], [4, 3, 0], [4, 3, 1], [4, 3, 2]]
    assert batch.x[1, 2, 0] == 0 and not np.any(batch.x[4, 3, :D])
    masked = every_row(Regression(Sequences(x, NUMBERS).split()))
    assert np.argwhere(~masked.mask).tolist() == [[4, 3]]
    np.testing.assert_array_equal(masked.x, batch.x[..., :D])


def test_loss_and_metric_are_weighted_means_in_numpy() -> None:
    weight, importance = RNG.uniform(0.1, 2, N), {"cat": 1, "dog": 4, "eel": 1}
    weight[3] = 0
    split = Split(Sequences(X, LABELS, weight=weight))
    task = Classification(split, class_weights=importance)
    outputs, filled = outputs_of(task), np.arange(N) < 20
    batch = every_row(task, weight=filled)
    logits, label = np.asarray(outputs, np.float64), np.searchsorted(task.classes, LABELS)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), label]
    total = weight * filled
    scale = np.where(LABELS == "dog", 4, 1) / 2  # of mean 1 over the rows, a third of each class
    wanted = (total * scale * each).sum() / total.sum()
    np.testing.assert_allclose(task.loss(outputs, batch), wanted, rtol=1e-5)
    right = logits.argmax(1) == label
    np.testing.assert_allclose(
        task.metric(outputs, batch), (total * right).sum() / total.sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(task.correct(outputs, batch), right & (total > 0))


def test_balanced_weights_are_inverse_to_the_size_of_a_class() -> None:
    y = np.array(["a"] * 18 + ["b"] * 6)
    weights = Classification(Split(Sequences(X, y)), class_weights="balanced").importance
    assert weights is not None
    np.testing.assert_allclose(weights, [N / 2 / 18, N / 2 / 6])


def test_r2_is_one_minus_the_share_of_the_training_variance() -> None:
    split = Split(Sequences(X, NUMBERS))
    for head in (heads.Squared(), heads.Huber(), heads.Gaussian()):
        task = Regression(split, head)
        outputs, batch = outputs_of(task), every_row(task)
        predictions = task.decode(outputs)
        wanted = 1 - np.mean((predictions - NUMBERS) ** 2) / NUMBERS.var()
        np.testing.assert_allclose(task.metric(outputs, batch), wanted, rtol=1e-4)
    nearer = np.abs(predictions - NUMBERS) < np.abs(NUMBERS - NUMBERS.mean())
    np.testing.assert_array_equal(task.correct(outputs, batch), nearer)


@dataclasses.dataclass(frozen=True)
class Poisson(heads.Head):
    """A head of counts of one's own: e^z - y z."""

    answers: ClassVar = "counts"

    def losses(self, outputs, targets):
        return jnp.exp(outputs[..., 0]) - targets * outputs[..., 0]

    def predict(self, outputs):
        return jnp.exp(outputs[..., 0])


@pytest.mark.parametrize("head", [heads.NegativeBinomial(), Poisson()])
def test_counts_are_not_scaled(head) -> None:
    y = RNG.poisson(7, N)
    task = Regression(Split(Sequences(X, y)), head)
    outputs, batch = outputs_of(task), every_row(task)
    np.testing.assert_array_equal(batch.y.value.value[:, 0], y)
    each = task.head.losses(outputs[:, None], jnp.asarray(y, jnp.float32)[:, None])
    np.testing.assert_allclose(task.loss(outputs, batch), each.mean(), rtol=1e-5)
    wanted = 1 - np.mean((task.decode(outputs) - y) ** 2) / y.var()
    np.testing.assert_allclose(task.metric(outputs, batch), wanted, rtol=1e-4)


def test_answers_at_every_step_count_where_there_is_one() -> None:
    tags = [np.array(row, object) for row in TAGS]
    tags[4][1] = None
    task = Labelling(Split(Sequences(RAGGED, tags)))
    outputs, batch = outputs_of(task), every_row(task)
    counts = np.arange(T)[:, None] < LENGTHS[None]
    counts[1, 4] = False
    np.testing.assert_array_equal(batch.y.weight, counts)
    right = np.zeros((T, N), bool)
    decoded = task.decode(outputs)
    for n in range(N):
        right[: LENGTHS[n], n] = decoded[n, : LENGTHS[n]] == TAGS[n]
    np.testing.assert_allclose(task.metric(outputs, batch), right[counts].mean(), rtol=1e-6)
    np.testing.assert_array_equal(task.correct(outputs, batch), (right | ~counts).all(0))


def test_several_labels_apply_independently() -> None:
    y = RNG.integers(0, 2, (N, 4))
    task = Classification(Split(Sequences(X, y)))
    outputs, batch = outputs_of(task), every_row(task)
    assert task.output_size == 4 and task.head == heads.Bernoulli()
    logits = np.asarray(outputs, np.float64)
    wanted = np.mean(np.logaddexp(0, logits) - y * logits)
    np.testing.assert_allclose(task.loss(outputs, batch), wanted, rtol=1e-5)
    np.testing.assert_array_equal(task.decode(outputs), logits > 0)
    np.testing.assert_allclose(task.metric(outputs, batch), np.mean((logits > 0) == y), rtol=1e-6)


def tasks_of_every_kind() -> list[Supervised]:
    static = RNG.normal(size=(N, 2))
    return [
        Classification(Sequences(RAGGED, LABELS, static=static, missing="indicator").split()),
        Classification(Sequences(RNG.integers(0, 5, (N, T)), np.arange(N) % 2 == 0).split()),
        Regression(Sequences(X, np.stack([NUMBERS, -NUMBERS], 1)).split(), heads.Quantiles()),
        Labelling(Sequences(RAGGED, TAGS).split(), class_weights="balanced"),
        Labelling(Sequences(X, X[..., 0]).split()),
    ]


@pytest.mark.parametrize("task", tasks_of_every_kind(), ids=range(5))
def test_a_task_is_restored_without_its_data(task: Supervised) -> None:
    description, constants = task.state()
    again = type(task).restore(json.loads(json.dumps(description)), constants)
    assert again.static == task.static and hash(again.static) == hash(task.static)
    assert again.digest == task.digest and again.classes == task.classes
    outputs, arrays = outputs_of(task), task.arrays()
    same(again.decode(outputs), task.decode(outputs))
    data = dict(x=arrays["x"], lengths=arrays.get("lengths"), static=arrays.get("static"))
    one, other = every_row(again, again.encode(**data)), every_row(task)
    same((one.x, one.mask), (other.x, other.mask))
    assert one.y is None


@pytest.mark.parametrize("task", tasks_of_every_kind(), ids=range(5))
def test_a_program_is_built_from_the_static_part_alone(task: Supervised) -> None:
    static = task.static
    assert static.known is None
    index, weight = jnp.arange(4, dtype=jnp.int32), jnp.ones(4)

    def loss(task: Any, arrays: Any) -> Any:
        batch = task.batch(arrays, index, weight)
        return task.loss(outputs_of(task, 4), batch), task.metric(outputs_of(task, 4), batch)

    key, arrays = jax.random.key(1), task.arrays()
    traced = jax.jit(loss, static_argnums=0)(static, arrays)
    np.testing.assert_allclose(traced, jax.jit(lambda: loss(task, arrays))(), rtol=1e-5)
    same(*jax.jit(lambda: (task.sample(key, 4), static.sample(key, 4, arrays=arrays)))())


def test_new_rows_with_targets_are_numbered_as_those_of_training() -> None:
    task = Classification(Sequences(X, LABELS).split())
    batch = every_row(task, task.encode(X[:4], y=["eel", "cat", "dog", "cat"]))
    assert batch.y.value[:, 0].tolist() == [2, 0, 1, 0]


def test_quantiles_come_in_the_units_of_the_targets() -> None:
    task = Regression(Split(Sequences(X, NUMBERS)), heads.Quantiles((0.1, 0.5, 0.9)))
    outputs = jnp.sort(outputs_of(task))
    wanted = np.asarray(outputs) * NUMBERS.std() + NUMBERS.mean()
    np.testing.assert_allclose(task.quantiles(outputs, (0.1, 0.5, 0.9)), wanted, rtol=1e-5)
    np.testing.assert_allclose(task.decode(outputs), wanted[:, 1], rtol=1e-5)
