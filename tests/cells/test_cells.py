"""The equations of one instant, against NumPy, and the ranges the cells declare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lstm_jax as lj
from tests.cells_under_test import BUILT_IN
from tests.oracle import sigmoid


def row(cell, seed, scale):
    """Returns pre-activations and a state of one row, and the same in NumPy."""
    keys = jax.random.split(jax.random.key(seed), 2)
    gates = scale * jax.random.normal(keys[0], (len(cell.gates), cell.hidden), jnp.float64)
    state = jax.random.uniform(
        keys[1], (len(cell.states), cell.hidden), jnp.float64, minval=-1, maxval=1
    )
    return cell.Gates(*gates), cell.State(*state), np.asarray(gates), np.asarray(state)


def test_lstm_equations(x64):
    gates, state, (i, f, g, o), (_, c) = row(lj.cells.LSTM(5), 0, 2)
    new, activated = lj.cells.LSTM(5).update(gates, state, ())
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(new.c, c, rtol=1e-13)
    np.testing.assert_allclose(new.h, sigmoid(o) * np.tanh(c), rtol=1e-13)
    np.testing.assert_allclose(activated, [sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)])


def test_gru_equations(x64):
    gates, state, (r, z, nx, nh), (h,) = row(lj.cells.GRU(5), 1, 2)
    new, activated = lj.cells.GRU(5).update(gates, state, ())
    n = np.tanh(nx + sigmoid(r) * nh)
    np.testing.assert_allclose(new.h, (1 - sigmoid(z)) * n + sigmoid(z) * h, rtol=1e-13)
    np.testing.assert_allclose(
        (activated.r, activated.z, activated.nx), (sigmoid(r), sigmoid(z), n)
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn_equations(activation, x64):
    cell = lj.cells.RNN(5, activation=activation)
    gates, state, (a,), _ = row(cell, 2, 2)
    want = np.tanh(a) if activation == "tanh" else np.maximum(a, 0)
    np.testing.assert_allclose(cell.update(gates, state, ())[0].h, want, rtol=1e-13)


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 30.0, 1e6]))
def test_gates_and_states_stay_in_their_ranges(seed, scale):
    with jax.enable_x64(True):
        for cell in BUILT_IN:
            gates, state, *_ = row(cell, seed, scale)
            new, activated = cell.update(gates, state, ())
            for name, (low, high) in cell.ranges.items():
                values = (activated._asdict() | new._asdict())[name]
                assert low <= values.min() <= values.max() <= high, (cell, name)


def test_parameters_have_a_column_for_every_block_that_reads():
    shapes = {
        lj.cells.LSTM(5): ((3, 20), (5, 20), (20,)),
        lj.cells.GRU(5): ((3, 15), (5, 15), (20,)),
        lj.cells.RNN(5): ((3, 5), (5, 5), (5,)),
    }
    for cell, want in shapes.items():
        params = lj.init(cell, jax.random.key(0), 3)
        assert tuple(leaf.shape for leaf in jax.tree.leaves(params)) == want


def test_the_forget_gate_starts_open():
    b = lj.init(lj.cells.LSTM(5), jax.random.key(0), 3).b
    np.testing.assert_array_equal(b, np.repeat([0.0, 1.0, 0.0, 0.0], 5))
