"""What a mask hides, and an episode that nothing reads, do not exist: values, gradients, checks.

The same compiled function is called with zeros in all hidden places and with what should never
reach a result: NaN, infinities, numbers near the largest. Both must agree bit for bit.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_jax as lj
from lstm_jax import diagnostics
from lstm_jax.engines import Associative, Pallas, Reference, Scan
from tests.cells_under_test import drawn_params

C = lj.cells
T, B, D = 7, 3, 2
POISON = (np.nan, np.inf, -np.inf, 1e38)


class Squared(C.LSTM):
    """An LSTM with an output that is not linear in its state."""

    def output(self, state):
        return state.h / (1 + state.c**2)


CELLS = [
    C.LSTM(4), C.GRU(4), C.RNN(4), C.RNN(4, activation="relu"), C.JANET(4), C.URLSTM(4),
    C.LayerNormLSTM(4), C.MinGRU(4), C.MinLSTM(4), C.MemoryBlocks(4, size=2), C.SLSTM(4, heads=2),
    C.SLSTM(4, forget_gate="exponential"), C.odyssey("FGR", 4), C.PeepholeLSTM(4, clip=0.4),
    C.Zoneout(C.LSTM(4), {"c": 0.3}), Squared(4),
]  # fmt: skip
ENGINES = [
    Scan("joined", "rebuilt", chunk=3), Scan("hoisted", "saved"), Reference(),
    Pallas("tpu", interpret=True), Pallas("gpu", interpret=True), Scan("joined", "sqrt", chunk=1),
]  # fmt: skip
DTYPES = ["float32", "bfloat16", "float64"]


def runs(cell, engine, dtype):
    return not engine.refuses(cell, jnp.dtype(dtype))


def all_pairs():
    """Every cell on every other engine, the dtypes in turn."""
    pairs = [(c, e) for c in CELLS for e in [Associative(), *ENGINES]]
    turns = [(cell, engine, DTYPES[n % 3]) for n, (cell, engine) in enumerate(pairs)]
    return [turn for turn in turns if runs(*turn)][::2]


JOINED, HOISTED, REFERENCE, TPU, GPU, SQRT = ENGINES
QUICK = [
    (C.RNN(4, activation="relu"), REFERENCE, "bfloat16"), (C.LayerNormLSTM(4), JOINED, "float32"),
    (C.MinLSTM(4), Associative(), "bfloat16"), (C.MemoryBlocks(4, size=2), TPU, "float32"),
    (C.RNN(4), GPU, "bfloat16"), (C.SLSTM(4, forget_gate="exponential"), SQRT, "float64"),
    (Squared(4), HOISTED, "float32"),
]  # fmt: skip


@functools.cache
def results(cell, engine, dtype):
    """A compiled function: outputs, states, gates and every gradient of what is read of them."""

    def score(params, x, state, initial, mask, reset, read):
        kept = lj.trace(cell, params, x, state, initial=initial, mask=mask, reset=reset,
                        engine=engine)  # fmt: skip
        seen = jax.tree.map(lambda a: jnp.where(read[..., None], a, 0), kept[1:])
        last = jax.tree.map(lambda a: jnp.where(read[-1][:, None], a, 0), kept.final)
        leaves = jax.tree.leaves((seen, last))
        total = sum(jnp.sum(jnp.sin(leaf.astype(leaves[-1].dtype))) for leaf in leaves)
        return total, (seen, last)

    return jax.jit(jax.value_and_grad(score, (0, 1, 2, 3), has_aux=True))


def problem(cell, dtype, seed):
    """Returns parameters, inputs and states, flags, and where [T, B] a result is read."""
    rng = np.random.default_rng(seed)
    wide = "float64" if dtype == "float64" else "float32"
    params = drawn_params(cell, D, rng, wide)
    x = jnp.asarray(rng.normal(size=(T, B, D)), dtype)
    state, initial = (
        jax.tree.map(lambda s: jnp.asarray(0.5 + 0 * s, wide), lj.initial_state(cell, B))
        for _ in range(2)
    )
    mask, reset = rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.2
    # Row 0 is read from its last reset on, row 1 everywhere, row 2 nowhere.
    reset[rng.integers(T), 0] = True
    read = np.zeros((T, B), bool)
    read[np.flatnonzero(reset[:, 0])[-1] :, 0] = read[:, 1] = True
    return params, x, state, initial, mask, reset, read


def filled(array, hidden, values):
    hidden = np.broadcast_to(hidden.reshape(*hidden.shape, *(1,) * (array.ndim - hidden.ndim)),
                             array.shape)  # fmt: skip
    return np.where(hidden, np.asarray(values).astype(array.dtype), array)


def hold(cell, engine, dtype, seed):
    params, x, state, initial, mask, reset, read = problem(cell, dtype, seed)
    rng = np.random.default_rng(seed)
    hidden = ~mask | ~np.logical_or.accumulate(read, axis=0)
    stale = reset[0] | np.array([True, False, True])
    answers = []
    for bad in (np.zeros(4), POISON):
        values = rng.choice(np.array(bad), x.shape)
        start = jax.tree.map(lambda s, v=values: filled(s, stale, np.resize(v, s.shape)), state)
        given = filled(x, hidden, values), start, initial
        answers.append(results(cell, engine, dtype)(params, *given, mask, reset, read))
    ((value, kept), grads), ((value_2, kept_2), grads_2) = answers
    for (path, a), b in zip(
        jax.tree.leaves_with_path((value, kept, grads)),
        jax.tree.leaves((value_2, kept_2, grads_2)), strict=True,
    ):  # fmt: skip
        place = jax.tree_util.keystr(path)
        assert np.isfinite(np.asarray(a, np.float64)).all(), place
        np.testing.assert_array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), place)


@pytest.mark.parametrize("cell, engine, dtype", QUICK, ids=str)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=6, deadline=None)
def test_what_is_hidden_reaches_no_value_and_no_gradient(cell, engine, dtype, seed):
    with jax.enable_x64(dtype == "float64"):
        hold(cell, engine, dtype, seed)


@pytest.mark.slow
@pytest.mark.parametrize("cell, engine, dtype", all_pairs(), ids=str)
def test_what_is_hidden_in_every_cell_and_engine(cell, engine, dtype):
    with jax.enable_x64(dtype == "float64"):
        for seed in range(4):
            hold(cell, engine, dtype, seed)


def test_checked_and_diagnostics_do_not_see_what_is_hidden():
    cell = C.LSTM(4)
    params, x, state, _, mask, reset, _ = problem(cell, "float32", 3)
    poisoned = filled(x, ~mask, np.nan)
    stale = jax.tree.map(lambda s: filled(s, reset[0], np.nan), state)

    def loss(h):
        return jnp.sum(h[-1] ** 2)

    def seen(x, state):
        options: dict[str, Any] = dict(mask=mask, reset=reset)
        kept = lj.trace(cell, params, x, state, checked=True, **options)
        return (
            kept,
            diagnostics.saturation(kept.gates, mask),
            diagnostics.decay_time(kept.gates.f, mask),
            diagnostics.gradient_norms(cell, params, x, loss, state=state, **options),
        )

    seen = chex.chexify(jax.jit(seen), async_check=False)
    jax.tree.map(
        np.testing.assert_array_equal, seen(poisoned, stale), seen(filled(x, ~mask, 0), state)
    )
    with pytest.raises(AssertionError, match="finite"):
        seen(filled(x, mask, np.nan), state)


@pytest.mark.parametrize("front, readout", [("dense", "every"), ("embed", "last")])
def test_a_model_does_not_see_what_is_hidden(front, readout):
    """Both directions, dropout and noise on the input; pad symbols of any number."""
    spec = lj.nn.SequenceSpec(
        C.LSTM(3), 5, 2, readout=readout, bidirectional=True, front=front,
        front_width=3,
    )  # fmt: skip
    params = jax.jit(spec.init)(jax.random.key(0))
    rates = lj.nn.Rates(0.2, 0.2, 0.2, None, None if front == "embed" else 0.1)
    lengths = np.array([T, 2, 0])
    mask = np.arange(T)[:, None] < lengths
    symbols = np.random.default_rng(0).integers(0, 5, (T, B))

    @jax.jit
    def slope(params, x):
        def loss(params, x):
            y = spec.apply(params, x, mask=mask, rates=rates, key=jax.random.key(1))
            return jnp.sum(jnp.sin(y))

        return jax.value_and_grad(loss, 0 if front == "embed" else (0, 1))(params, x)

    def padded(pad):
        if front == "embed":
            return jnp.where(mask, symbols, pad)
        return jnp.where(mask[..., None], jax.nn.one_hot(symbols, 5), pad)

    want = slope(params, padded(0))
    pads = (5, -1, -100, 2**31 - 1) if front == "embed" else POISON
    for pad in pads:
        jax.tree.map(np.testing.assert_array_equal, slope(params, padded(pad)), want)
