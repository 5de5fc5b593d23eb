"""Cells in linen models: equal to `unroll`, and to models of linen with the same weights."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import lstm_jax as lj
from tests.cells_under_test import Peephole

T, B, D, H = 5, 3, 2, 4
LSTM = lj.cells.LSTM(H)
CELLS = [LSTM, Peephole(H), lj.cells.MinGRU(H)]
X = np.random.default_rng(0).normal(size=(T, B, D)).astype(np.float32)
RESET = np.arange(T * B).reshape(T, B) % 4 == 2
LENGTHS = np.array([5, 3, 1])
MASK = np.arange(T)[:, None] < LENGTHS


@functools.cache
def params_of(cell: lj.Cell) -> lj.CellParams:
    return lj.init(cell, jax.random.key(0), D)


def results(run: Any, params: lj.CellParams) -> Any:
    """The carry and outputs of run(params, x), and the gradients of a loss of both."""

    def loss(params, x):
        carry, h = run(params, x)
        leaves = jax.tree.leaves((carry, h))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves), (carry, h)

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, jnp.asarray(X))


def assert_close(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
    jax.tree.map(close, found, expected)


def applied(module: linen.Module, *path: str) -> Any:
    """Returns `run(params, *arguments)` of a module whose cell is at `path`."""

    def run(params, *arguments, **options):
        tree: Any = lj.linen.to_tree(params)
        for name in reversed(path):
            tree = {name: tree}
        return module.apply({"params": tree}, *arguments, **options)

    return run


@pytest.mark.parametrize("cell", CELLS[1:], ids=repr)
def test_a_cell_in_linen_rnn_equals_unroll(cell):
    rnn = linen.RNN(lj.linen.RNNCell(cell), time_major=True, return_carry=True)
    params = params_of(cell)
    theirs = results(applied(rnn, "cell"), params)
    assert_close(theirs, results(functools.partial(lj.unroll, cell), params))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_parameters_are_drawn_by_name_and_convert_back_and_forth(cell):
    module = lj.linen.RNNCell(cell)
    carry = module.initialize_carry(None, X[0].shape)
    tree: Any = jax.eval_shape(module.init, jax.random.key(1), carry, X[0])["params"]
    params = lj.linen.from_tree(cell, tree)
    assert params == jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), D))
    assert lj.linen.to_tree(params) == tree


def test_initialisers_are_those_of_init():
    module = lj.linen.Recurrent(
        LSTM,
        kernel_init=lj.initializers.normal(),
        recurrent_kernel_init=lj.initializers.identity(),
        bias_init=lj.initializers.gate_bias(f=3.0),
    )
    params = lj.linen.from_tree(LSTM, module.init(jax.random.key(1), None, X)["params"])
    np.testing.assert_array_equal(params.b, np.repeat([0, 3, 0, 0], H))
    np.testing.assert_array_equal(params.w_h, np.tile(np.eye(H), 4))
    assert 0 < np.std(params.w_x) < 0.2


def test_lengths_in_linen_rnn_are_a_mask_of_ours():
    rnn = linen.RNN(lj.linen.RNNCell(LSTM), time_major=True, return_carry=True)
    params = params_of(LSTM)
    carry, h = applied(rnn, "cell")(params, X, seq_lengths=LENGTHS)
    final, ours = lj.unroll(LSTM, params, X, mask=MASK)
    assert_close((carry, jnp.where(MASK[..., None], h, 0)), (final, ours))


def test_both_directions_of_linen_equal_a_loop_and_one_from_the_end():
    one = params_of(LSTM)
    other = one._replace(b=one.b + 1)
    forward, backward = (linen.RNN(lj.linen.RNNCell(LSTM), time_major=True) for _ in range(2))
    trees = {
        f"{way}_rnn": {"cell": lj.linen.to_tree(params)}
        for way, params in (("forward", one), ("backward", other))
    }
    model = linen.Bidirectional(forward, backward)
    both = model.apply({"params": trees}, X, time_major=True)
    _, ahead = lj.unroll(LSTM, one, X)
    _, back = lj.unroll(LSTM, other, X[::-1])
    assert_close(both, jnp.concatenate([ahead, back[::-1]], axis=-1))


@pytest.mark.parametrize("time_major", [True, False])
def test_a_recurrent_layer_takes_masks_and_resets(time_major):
    module, params = lj.linen.Recurrent(LSTM, time_major=time_major), params_of(LSTM)
    options: Any = {"mask": MASK, "reset": RESET}
    expected = lj.unroll(LSTM, params, X, **options)

    def turned(a):
        return a if time_major else np.swapaxes(a, 0, 1)

    found = applied(module)(params, None, turned(X), **jax.tree.map(turned, options))
    assert_close((found[0], turned(found[1])), expected)


class Scanned(linen.Module):
    """The recurrent network of policies in linen: one time step, scanned, restarted by resets."""

    @functools.partial(
        linen.scan, variable_broadcast="params", split_rngs={"params": False}, in_axes=0, out_axes=0
    )
    @linen.compact
    def __call__(self, carry, inputs):
        x, reset = inputs
        cell = lj.linen.RNNCell(LSTM, name="cell")
        start = cell.initialize_carry(None, x.shape)
        carry = jax.tree.map(lambda new, old: jnp.where(reset[:, None], new, old), start, carry)
        return cell(carry, x)


def test_resets_equal_those_of_a_scan_in_linen_gradients_included():
    params, start = params_of(LSTM), lj.LSTMState(*jnp.ones((2, B, H)))
    scan, ours = applied(Scanned(), "cell"), applied(lj.linen.Recurrent(LSTM))
    scanned = results(lambda p, x: scan(p, start, (x, jnp.asarray(RESET))), params)
    assert_close(results(lambda p, x: ours(p, start, (x, jnp.asarray(RESET))), params), scanned)


def test_a_reset_equals_a_fresh_start_gradients_included():
    module, params = applied(lj.linen.Recurrent(LSTM)), params_of(LSTM)
    reset = np.zeros((T, B), bool)
    reset[2] = True

    def fresh(params, x):
        _, early = module(params, None, x[:2])
        carry, late = module(params, None, x[2:])
        return carry, jnp.concatenate([early, late])

    once = results(lambda p, x: module(p, None, x, reset=reset), params)
    assert_close(once, results(fresh, params))


@pytest.mark.parametrize(
    ("theirs", "cell"),
    [
        (linen.OptimizedLSTMCell(H), LSTM),
        (linen.LSTMCell(H), LSTM),
        (linen.GRUCell(H), lj.cells.GRU(H)),
    ],
    ids=["OptimizedLSTMCell", "LSTMCell", "GRUCell"],
)
def test_weights_of_linen_move_in_and_out(theirs, cell):
    rnn: Any = linen.RNN(theirs, time_major=True)
    variables = rnn.init(jax.random.key(0), X)
    tree = variables["params"]["cell"]
    params = lj.interop.from_linen(cell, tree)
    _, h = applied(lj.linen.Recurrent(cell))(params, None, X)
    assert_close(h, rnn.apply(variables, X))
    back = lj.interop.to_linen(cell, lj.linen.from_tree(cell, lj.linen.to_tree(params)))
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_noise_is_drawn_from_the_keys_of_dropout_alone():
    cell = lj.cells.Zoneout(LSTM, {"h": 0.5, "c": 0.5})
    module, params = applied(lj.linen.Recurrent(cell)), params_of(cell)
    assert not set(lj.linen.to_tree(params)) - {"w_x", "w_h", "b"}  # a rate is no parameter

    def h(key):
        return module(params, None, X, rngs=None if key is None else {"dropout": key})[1]

    one, again, other = (h(jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert_close(h(None), lj.unroll(cell, params, X)[1])
    rnn = linen.RNN(lj.linen.RNNCell(cell), time_major=True, split_rngs={"dropout": True})
    drawn = applied(rnn, "cell")(params, X, rngs={"dropout": jax.random.key(0)})
    assert np.any(drawn != h(None))


def test_resets_that_are_given_twice_are_refused():
    with pytest.raises(ValueError, match="reset must be None where x is a pair"):
        applied(lj.linen.Recurrent(LSTM))(params_of(LSTM), None, (X, RESET), reset=RESET)


# Three lines of the guide for other libraries. ----------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs/guide/flax_models.md").read_text(encoding="utf-8")
EQUINOX, HAIKU = re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_equinox_make_a_trainable_layer(standard_promotion):
    eqx: Any = pytest.importorskip("equinox")
    names: dict[str, Any] = {"eqx": eqx, "lj": lj, "cell": LSTM}
    exec(EQUINOX, names)
    layer, params = names["Layer"](params_of(LSTM)), params_of(LSTM)
    found = eqx.filter_jit(eqx.filter_grad(lambda layer: jnp.sum(layer(X))))(layer)
    expected = jax.jit(jax.grad(lambda p: jnp.sum(lj.unroll(LSTM, p, X)[1])))(params)
    assert_close(found.params, expected)


@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_haiku_make_parameters(standard_promotion):
    hk: Any = pytest.importorskip("haiku")

    def network(x):
        names: dict[str, Any] = {"hk": hk, "jax": jax, "lj": lj, "cell": LSTM}
        exec(HAIKU.replace(" 3)", f" {D})"), names)
        return lj.unroll(LSTM, names["params"], x)[1]

    model = hk.transform(network)
    tree = model.init(jax.random.key(0), X)
    h = model.apply(tree, jax.random.key(0), X)
    assert_close(h, lj.unroll(LSTM, lj.linen.from_tree(LSTM, tree["~"]), X)[1])
