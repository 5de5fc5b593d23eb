"""Layers and cells under the transformations of NNX: equal to the layer without them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import lstm_jax as lj
from lstm_jax import nn

T, B, D = 5, 3, 4
LSTM = lj.cells.LSTM(D)  # as wide as the input, for depth
ZONEOUT = lj.cells.Zoneout(LSTM, {"h": 0.5, "c": 0.5})
X = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, D)), jnp.float32)


def layer_of(cell: lj.Cell = LSTM, seed: int = 0) -> nn.Recurrent:
    return nn.Recurrent(cell, D, rngs=nnx.Rngs(seed))


def outputs(layer, x=X):
    return layer(x)[1]


def loss(layer, x=X):
    return jnp.sum(jnp.sin(outputs(layer, x)))


@functools.cache
def slopes() -> Any:
    """The gradients of the loss of a layer, by name, made without NNX."""

    def of_params(params):
        return jnp.sum(jnp.sin(lj.unroll(LSTM, params, X)[1]))

    return lj.linen.to_tree(jax.jit(jax.grad(of_params))(layer_of().params))


def arrays(state: Any) -> Any:
    tree = {name: value for name, value in nnx.to_pure_dict(state).items() if value is not None}
    return {name: value for name, value in tree.items() if jax.tree.leaves(value)}


def assert_close(found: Any, expected: Any) -> None:
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("transformation", [lambda f: f, nnx.remat], ids=["grad", "remat"])
def test_gradients_are_those_of_unroll(transformation):
    found = nnx.jit(nnx.grad(transformation(loss)))(layer_of(), X)
    assert_close(arrays(found), slopes())


def test_jit_split_and_merge_leave_outputs_alone():
    layer = layer_of()
    graph, state = nnx.split(layer)
    merged = nnx.merge(graph, jax.tree.map(jnp.asarray, state))
    assert_close(nnx.jit(outputs)(layer, X), outputs(layer))
    np.testing.assert_array_equal(outputs(merged), outputs(layer))


def test_an_optimizer_trains_parameters_and_no_rate_of_zoneout():
    layer = layer_of(ZONEOUT)
    optimizer = nnx.Optimizer(layer, optax.sgd(0.5, momentum=0.9), wrt=nnx.Param)
    before = arrays(nnx.state(layer, nnx.Param))
    assert before.keys() == {"w_x", "w_h", "b"}
    ones = jax.tree.map(jnp.ones_like, nnx.state(layer, nnx.Param))
    optimizer.update(layer, ones)
    assert_close(
        arrays(nnx.state(layer, nnx.Param)), jax.tree.map(lambda p: p - np.float32(0.5), before)
    )
    assert layer.cell == ZONEOUT


def three_layers() -> tuple[list[nn.Recurrent], nn.Recurrent]:
    """Three layers, and one whose parameters are theirs with a leading axis."""
    layers = [layer_of(seed=n) for n in range(3)]
    state = jax.tree.map(lambda *each: jnp.stack(each), *(nnx.state(one) for one in layers))
    return layers, nnx.merge(nnx.graphdef(layers[0]), state)


def test_an_ensemble_is_each_layer_alone():
    layers, stacked = three_layers()
    h = nnx.vmap(outputs, in_axes=(0, None))(stacked, X)
    assert_close(h, jnp.stack([outputs(layer) for layer in layers]))


@pytest.mark.slow
def test_an_ensemble_draws_each_layer_from_a_key_of_its_own():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return nn.Recurrent(LSTM, D, rngs=rngs)

    assert len(np.unique(make(nnx.Rngs(0)).w_x[...])) == 3 * layer_of().w_x.size


def test_layers_scanned_over_depth_are_layers_in_turn():
    layers, stacked = three_layers()
    deep = nnx.scan(lambda x, layer: outputs(layer, x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    h = X
    for layer in layers:
        h = outputs(layer, h)
    assert_close(deep(X, stacked), h)


def test_eval_shape_gives_the_shapes_without_the_arrays():
    shapes = arrays(nnx.state(nnx.eval_shape(layer_of)))
    real = arrays(nnx.state(layer_of()))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shapes) == jax.tree.map(
        lambda a: (a.shape, a.dtype), real
    )


def test_a_bridge_to_linen_and_one_back_leave_outputs_alone():
    module = nnx.bridge.to_linen(nn.Recurrent, LSTM, D)
    (_, h), variables = module.init_with_output(jax.random.key(0), X)
    assert_close(module.apply(variables, X)[1], h)
    bridged = nnx.bridge.ToNNX(lj.linen.Recurrent(LSTM), rngs=nnx.Rngs(0)).lazy_init(None, X)
    tree = arrays(nnx.state(bridged, nnx.Param))
    _, ours = lj.unroll(LSTM, lj.linen.from_tree(LSTM, tree), X)
    assert_close(bridged(None, X)[1], ours)


def test_orbax_saves_and_restores_a_layer(tmp_path):
    checkpoint: Any = pytest.importorskip("orbax.checkpoint")
    layer = layer_of()
    graph, state = nnx.split(layer)
    with checkpoint.StandardCheckpointer() as saver:
        saver.save(tmp_path / "layer", state)
    with checkpoint.StandardCheckpointer() as saver:
        restored = saver.restore(tmp_path / "layer", nnx.state(nnx.eval_shape(layer_of)))
    np.testing.assert_array_equal(outputs(nnx.merge(graph, restored)), outputs(layer))


# Any cell as a cell of NNX. -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"projection": 2}], ids=str)
def test_a_cell_in_nnx_rnn_equals_the_layer_gradients_included(options):
    rnn = nnx.RNN(nn.RNNCell(LSTM, D, rngs=nnx.Rngs(0), **options), time_major=True)

    def loss_of_rnn(rnn):
        return jnp.sum(jnp.sin(rnn(X)))

    value, found = nnx.jit(nnx.value_and_grad(loss_of_rnn))(rnn)
    layer = nn.Recurrent(LSTM, D, rngs=nnx.Rngs(0), **options)
    expected = nnx.jit(nnx.value_and_grad(loss))(layer, X)
    assert_close((value, arrays(found["cell"]["layer"])), (expected[0], arrays(expected[1])))


def test_a_cell_in_nnx_rnn_takes_batch_first_lengths_and_both_directions():
    lengths, x = np.array([5, 3, 1]), jnp.swapaxes(X, 0, 1)
    cells = [nn.RNNCell(LSTM, D, rngs=nnx.Rngs(n)) for n in range(2)]
    carry, _ = nnx.RNN(cells[0], return_carry=True)(x, seq_lengths=jnp.asarray(lengths))
    assert_close(carry, cells[0].layer(X, mask=np.arange(T)[:, None] < lengths)[0])
    both: Any = nnx.Bidirectional(nnx.RNN(cells[0]), nnx.RNN(cells[1]), rngs=nnx.Rngs(0))(x)
    ways = outputs(cells[0].layer), outputs(cells[1].layer, X[::-1])[::-1]
    assert_close(jnp.swapaxes(both, 0, 1), jnp.concatenate(ways, axis=-1))


def test_a_noisy_cell_draws_from_its_stream_until_it_is_deterministic():
    cell = nn.RNNCell(ZONEOUT, D, rngs=nnx.Rngs(0))
    rnn = nnx.RNN(cell, time_major=True)
    one, other = rnn(X), rnn(X)
    assert np.any(one != other)
    rnn.eval()
    assert_close(rnn(X), outputs(cell.layer))
    rnn.train()
    assert np.any(rnn(X) != outputs(cell.layer))


def test_a_layer_takes_a_key_of_a_stream():
    layer, rngs = layer_of(ZONEOUT), nnx.Rngs(0)
    one, other = (layer(X, key=rngs.dropout())[1] for _ in range(2))
    assert np.any(one != other)
    np.testing.assert_array_equal(one, layer(X, key=nnx.Rngs(0).dropout())[1])
