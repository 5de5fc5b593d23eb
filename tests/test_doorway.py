"""What the loop refuses, in words that name the argument; and what `checked` catches."""

import pickle
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import pytest

import lstm_jax as lj
from lstm_jax.engines import Reference, Scan

T, B, D, H = 5, 3, 2, 4
CELL = lj.cells.LSTM(H)
PARAMS = lj.init(CELL, jax.random.key(0), D)
X = jax.random.normal(jax.random.key(1), (T, B, D))


@pytest.mark.parametrize(
    "given, error, words",
    [
        (dict(x=X[0]), ValueError, r"x must be \[T, B, D\], time first, got shape \(3, 2\)"),
        (dict(x=X[..., :1]), ValueError, r"x must be .* with D = 2, got shape \(5, 3, 1\)"),
        (dict(x=jnp.ones((T, B, D), int)), TypeError, "x must be floats, got int32"),
        (dict(mask=jnp.ones((B, T), bool)), ValueError, r"mask must have shape .* got \(3, 5\)"),
        (dict(mask=jnp.ones((T, B))), TypeError, "mask must be bool, got float32"),
        (dict(reset=jnp.ones((T,), bool)), ValueError, r"reset must have shape .* got \(5,\)"),
        (
            dict(state=lj.initial_state(lj.cells.GRU(H), (B,))),
            TypeError,
            r"state must be LSTMState\(h, c\) of LSTM\(hidden=4\), got GRUState",
        ),
        (dict(state=(X[0], X[0])), TypeError, "state must be LSTMState.* got tuple"),
        (
            dict(state=lj.initial_state(CELL, (B,), jnp.bfloat16)),
            TypeError,
            "state.h must have dtype float32, got bfloat16",
        ),
        (dict(state=lj.initial_state(CELL, (2,))), ValueError, r"state.h must have .* \(3, 4\)"),
        (dict(initial=lj.initial_state(CELL, (7,))), ValueError, r"initial.h must have shape"),
        (dict(params=PARAMS._replace(b=PARAMS.b[1:])), ValueError, r"params.b must have shape"),
        (dict(params=PARAMS._replace(w_h=PARAMS.w_x)), ValueError, r"params.w_h must have shape"),
        (dict(params={"w_x": 1}), TypeError, "params must be CellParams, got dict"),
        (dict(engine="fast"), ValueError, "engine must be one of .* got 'fast'"),
    ],
)
def test_bad_input_is_named(given, error, words):
    arguments = dict(cell=CELL, params=PARAMS, x=X) | given
    with pytest.raises(error, match=words):
        lj.unroll(**arguments)


def test_bad_engines_and_cells_are_named():
    with pytest.raises(ValueError, match=r"product must be one of .* got 'split'"):
        Scan(product="split")
    with pytest.raises(ValueError, match=r"residuals must be one of .* got 'none'"):
        Scan(residuals="none")
    with pytest.raises(ValueError, match="chunk and unroll must be positive, got 0 and 1"):
        Scan(chunk=0)
    with pytest.raises(ValueError, match="chunk and unroll must be positive, got None and 0"):
        Scan(unroll=0)
    with pytest.raises(ValueError, match="hidden must be a positive integer, got 0"):
        lj.cells.LSTM(0)
    with pytest.raises(ValueError, match="activation must be one of"):
        lj.cells.RNN(4, activation="gelu")


def test_a_cell_holds_no_arrays():
    @dataclass(frozen=True)
    class Scaled(lj.cells.LSTM):
        scale: object = 1.0

    with pytest.raises(TypeError, match=r"Scaled.scale must be hashable and no array"):
        Scaled(4, scale=jnp.ones(4))


def test_states_keep_their_type():
    state = lj.initial_state(CELL, (B,))
    assert type(state) is lj.LSTMState
    assert type(pickle.loads(pickle.dumps(state))) is lj.LSTMState


@dataclass(frozen=True)
class WrongGate(lj.cells.LSTM):
    """An LSTM whose output gate forgot its squashing function."""

    def update(self, gates, state, theta):
        state, activated = super().update(gates, state, theta)
        return state, activated._replace(o=gates.o)


@pytest.mark.parametrize("engine", [Reference(), Scan("joined"), Scan("hoisted")], ids=str)
def test_checked_catches_a_wrong_gate_inside_a_training_step(engine):
    """Under jit and grad, by name; and a right cell passes, until a number is not finite."""

    def train_step(cell):
        def step(params, x):
            def loss(params):
                _, h = lj.unroll(cell, params, x, engine=engine, checked=True)
                return jnp.sum(h**2)

            grads = jax.grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return chex.chexify(jax.jit(step), async_check=False)

    large = PARAMS._replace(b=PARAMS.b + 2)
    with pytest.raises(AssertionError, match=r"WrongGate.o leaves its range \[0, 1\]"):
        train_step(WrongGate(H))(large, X)
    right = train_step(CELL)
    plain = jax.grad(lambda p: jnp.sum(lj.unroll(CELL, p, X, engine=engine)[1] ** 2))(large)
    chex.assert_trees_all_close(
        right(large, X), jax.tree.map(lambda p, g: p - 0.1 * g, large, plain), rtol=1e-6
    )
    with pytest.raises(AssertionError, match="finite"):
        right(large, X.at[2, 1, 0].set(jnp.nan))
