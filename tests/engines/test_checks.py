"""What the loop refuses, in words that name the argument; and what `checked` catches."""

import pickle
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax.engines import Reference, Scan
from tests.cells_under_test import drawn_params

T, B, D, H = 5, 3, 2, 4
CELL = lj.cells.LSTM(H)
RNG = np.random.default_rng(0)
PARAMS = jax.device_get(drawn_params(CELL, D, RNG))
X = RNG.normal(size=(T, B, D)).astype(np.float32)


def zeros(cell: lj.Cell = CELL, rows: int = B, dtype: Any = np.float32) -> Any:
    return cell.State(*(np.zeros((rows, cell.width(name)), dtype) for name in cell.states))


@pytest.mark.parametrize(
    "given, error, words",
    [
        (
            dict(x=X[0]),
            ValueError,
            r"x must be \[T, B, D\], time first, with D = 2, got shape \(3, 2\)",
        ),
        (dict(x=X[..., :1]), ValueError, r"x must be .* with D = 2, got shape \(5, 3, 1\)"),
        (dict(x=np.ones((T, B, D), np.int32)), TypeError, "x must be floats, got int32"),
        (dict(mask=np.ones((B, T), bool)), ValueError, r"mask must have shape .* got \(3, 5\)"),
        (
            dict(mask=np.full((T, B), 0.5)),
            ValueError,
            "mask must hold booleans, or zeros and ones, got .*0.5",
        ),
        (dict(x=[[1.0], [1.0, 2.0]]), TypeError, r"x must be an array of numbers, got list"),
        (dict(x=X.swapaxes(0, 2)), ValueError, r"x must be \[T, B, D\], time first, with D = 2"),
        (dict(reset=np.ones((T,), bool)), ValueError, r"reset must have shape .* got \(5,\)"),
        (
            dict(state=zeros(lj.cells.GRU(H))),
            TypeError,
            r"state must be LSTMState\(h, c\) of LSTM\(hidden=4\), got GRUState",
        ),
        (dict(state=(X[0], X[0])), TypeError, "state must be LSTMState.* got tuple"),
        (
            dict(state=zeros(dtype=np.int32)),
            TypeError,
            "state.h must have dtype float32, got int32",
        ),
        (dict(state=zeros(rows=2)), ValueError, r"state.h must have .* \(3, 4\)"),
        (dict(initial=zeros(rows=7)), ValueError, r"initial.h must have shape"),
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


@pytest.mark.parametrize(
    "given",
    [
        dict(x=X.astype(np.float64)),
        dict(x=X.tolist()),
        dict(x=X.astype(">f4")),
        dict(mask=np.ones((T, B), int), reset=np.eye(T, B)),
        dict(mask=np.ones((T, B)).tolist(), reset=np.eye(T, B, dtype=np.uint8)),
        dict(mask=np.ones((T, B), jnp.bfloat16), reset=np.eye(T, B, dtype=bool).tolist()),
        dict(params=PARAMS),
        dict(state=lj.LSTMState(*np.zeros((2, B, H)))),
        dict(state=zeros(dtype=jnp.bfloat16)),
        dict(initial=lj.LSTMState(np.zeros(H), np.zeros((B, H)).tolist())),
    ],
    ids="-".join,
)
def test_inputs_are_taken_as_people_have_them(given):
    """NumPy's dtypes, lists, zeros and ones; under jit and outside, by the loop and by a step."""
    known: dict[str, Any] = dict(
        params=jax.tree.map(jnp.asarray, PARAMS),
        x=jnp.asarray(X),
        state=None,
        initial=None,
        mask=None,
        reset=None,
    )
    if "reset" in given:
        known |= dict(reset=jnp.eye(T, B, dtype=bool))
    want = lj.unroll(CELL, **known)
    known |= given
    outside = lj.unroll(CELL, **known)
    inside = jax.jit(lambda: lj.unroll(CELL, **known))()
    chex.assert_trees_all_close(outside, want, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(inside, want, rtol=1e-5, atol=1e-6)
    assert outside[1].dtype == jnp.float32
    state = lj.initial_state(CELL, B) if known["state"] is None else known["state"]
    flags = known["mask"], known["reset"]
    first = [None if given is None else np.asarray(given)[0] for given in flags]
    one = lj.step(CELL, known["params"], state, np.asarray(known["x"])[0].tolist(),
                  initial=known["initial"], mask_t=first[0], reset_t=first[1])  # fmt: skip
    chex.assert_trees_all_close(one[1], want[1][0], rtol=1e-5, atol=1e-6)


def test_a_batch_shape_is_a_number_or_several():
    shapes: list[Any] = [3, (3,), np.int64(3)]
    for shape in shapes:
        assert lj.initial_state(CELL, shape).h.shape == (3, H)


def test_raw_keys_are_keys():
    cell = lj.cells.Zoneout(CELL, {"h": 0.5})
    raw, typed = jax.random.PRNGKey(0), jax.random.key(0, impl="threefry2x32")
    raws, typeds = jax.random.split(raw, T), jax.random.split(typed, T)
    want = lj.unroll(cell, PARAMS, X, noise=lj.Noise(typeds))
    chex.assert_trees_all_equal(lj.unroll(cell, PARAMS, X, noise=lj.Noise(raws)), want)
    state = lj.initial_state(cell, B)
    chex.assert_trees_all_equal(
        *(lj.step(cell, PARAMS, state, X[0], noise=lj.Noise(key)) for key in (raw, typed))
    )
    layer = lj.nn.Recurrent(cell, D, rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(*(layer(X, key=key) for key in (raw, typed)))


def test_bad_engines_and_cells_are_named():
    with pytest.raises(ValueError, match=r"product must be one of .* got 'split'"):
        Scan(product="split")
    with pytest.raises(ValueError, match=r"residuals must be one of .* got 'none'"):
        Scan(residuals="none")
    with pytest.raises(ValueError, match="chunk and unroll must be positive, got 0 and 1"):
        Scan(chunk=0)
    with pytest.raises(ValueError, match="chunk and unroll must be positive, got None and 0"):
        Scan(unroll=0)
    with pytest.raises(ValueError, match="hidden must be an integer of at least 1, got 0"):
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
        right(large, np.where(np.arange(X.size).reshape(X.shape) == X.size // 2, np.nan, X))
