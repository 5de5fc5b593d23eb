"""Missing numbers and held time steps: a stream predicts as the whole sequence does."""

import functools
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj

pytestmark = pytest.mark.usefixtures("standard_promotion")

N, T, D = 2, 4, 2
RNG = np.random.default_rng(0)
STATIC = RNG.normal(size=(N, 1))


@functools.cache
def predictor(kind: str, missing: Any) -> lj.Predictor:
    """Returns a network with random parameters for rows with static features."""
    x = 5 + 3 * RNG.normal(size=(6, T, D))
    y = x[..., 0] if kind == "labelling" else x.sum((1, 2))
    data = lj.data.Sequences(x, y, static=RNG.normal(size=6), missing=missing)
    split = lj.data.Split(train=data)
    labels = kind == "labelling"
    task = lj.tasks.Labelling(split) if labels else lj.tasks.Regression(split)
    spec = lj.nn.SequenceSpec(
        lj.cells.LSTM(3), task.input_size, task.output_size, task.readout, engine="reference",
        learn_initial=True,
    )  # fmt: skip
    shapes = jax.eval_shape(lambda: spec.init(jax.random.key(0)))
    params = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=(1, *s.shape)), s.dtype), shapes)
    return lj.Predictor(task, spec, params, lj.make_trials())


gone = hnp.arrays(bool, (N, T, D), elements=st.booleans())
held = hnp.arrays(bool, (N, T), elements=st.booleans())


@pytest.mark.parametrize("missing", ["mask", "indicator"])
@pytest.mark.parametrize("kind", ["regression", "labelling"])
@hypothesis.given(gone, held)
@hypothesis.settings(max_examples=12)
def test_a_stream_with_gaps_predicts_as_the_whole_sequence(kind, missing, gone, held):
    network = predictor(kind, missing)
    gone[:, 0] = held[:, 0] = False  # `predict` refuses a row without a number
    x = np.where(gone, np.nan, 5 + 3 * np.random.default_rng(1).normal(size=gone.shape))
    step = network.stream(batch=N)
    step(np.ones((N, D)), static=STATIC)
    streamed = [
        step(x[:, t], np.full(N, t == 0), mask_t=~held[:, t], static=STATIC) for t in range(T)
    ]
    if kind == "labelling":
        whole = network.predict(x, mask=~held, static=STATIC).T
    else:
        ends = np.arange(1, T + 1)[:, None] + np.zeros(N, int)
        whole = [network.predict(x, mask=~held, lengths=end, static=STATIC) for end in ends]
    np.testing.assert_allclose(streamed, whole, rtol=1e-5)


def test_before_any_number_a_stream_predicts_from_the_initial_state():
    network = predictor("regression", "mask")
    step, other = network.stream(batch=N), network.stream(batch=N)
    nothing = np.full((N, D), np.nan)
    first = step(nothing, static=STATIC)
    assert first[0] == first[1] and np.isfinite(first).all()
    other(np.ones((N, D)), static=STATIC)
    again = other(nothing, np.array([True, False]), static=STATIC)
    assert again[0] == first[0] and again[1] != first[1]


def test_one_sequence_streams_with_its_static_features():
    network = predictor("labelling", "mask")
    x = 5 + np.random.default_rng(2).normal(size=(T, D))
    x[1] = np.nan
    streamed = list(network.predict_stream(x, static=STATIC[0]))
    whole = network.predict(x[None], static=STATIC[:1])[0]
    np.testing.assert_allclose(streamed, whole, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask_t": [1, 2]}, r"mask_t must be \[B\] = \[2\] zeros and ones, got 2 among them"),
        ({"reset_t": [True]}, r"reset_t must be \[B\] = \[2\] zeros and ones, got bool of shape"),
    ],
)
def test_flags_of_a_time_step_are_zeros_and_ones(given, message):
    step = predictor("regression", "mask").stream(batch=N)
    with pytest.raises(ValueError, match=message):
        step(np.ones((N, D)), static=STATIC, **given)
    with pytest.raises(ValueError, match="batch must be an integer of at least 1, got 0"):
        predictor("regression", "mask").stream(batch=0)
