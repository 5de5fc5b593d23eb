"""Layers equal those of torch, Flax and Keras with the same weights: outputs, states, gradients."""

import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.layers import Bidirectional, Recurrent, Stack
from lstm_jax.types import CellParams

pytestmark = pytest.mark.slow

T, B, D, H = 23, 4, 3, 6
LENGTHS = [T, 9, 1, 16]
ENGINES = ["reference", "scan"]
# What remains is rounding: relative to the largest entry of an array.
TOLERANCE = {"float32": 5e-6, "float64": 1e-13}


class Results(NamedTuple):
    """What is compared.

    Attributes:
      h: [T, B, outputs] outputs.
      final: the final states, each [B, H], from layer to layer and direction to direction.
      d_params: gradients, CellParams for every layer and direction.
      d_x: the gradient of the input.
      d_state: the gradients of the states at the start, in the order of `final`.
    """

    h: Any
    final: Any
    d_params: Any
    d_x: Any
    d_state: Any


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def assert_equal(found: Results, expected: Results, tolerance: float) -> None:
    def same(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
        assert np.abs(b).max() > 1e-3  # a gradient of zero would prove nothing

    for name in Results._fields:
        jax.tree.map(same, getattr(found, name), getattr(expected, name))


def weights_of_loss(outputs: int, states: int, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The loss is the sum of outputs and final states, each times its weight: arrays like them."""
    return draw(1, T, B, outputs).astype(dtype), [
        draw(2 + i, B, H).astype(dtype) for i in range(states)
    ]


def ours(stack: Stack, params: list[CellParams], x, states, mask=None) -> Results:
    """Runs a stack with the given parameters, one for each layer and direction, and states."""
    layers = [part for layer in stack.layers for part in parts_of(layer)]
    for layer, one in zip(layers, params, strict=True):
        layer.w_x, layer.w_h, layer.b = (nnx.Param(jnp.asarray(p)) for p in one[:3])
    graph, variables = nnx.split(stack)
    width = 2 * H if len(layers) > len(stack.layers) else H
    flat = jax.tree.leaves(states)
    weight, state_weights = weights_of_loss(width, len(flat), x.dtype.name)

    @jax.jit
    def run(variables, x, states):
        def loss(variables, x, states):
            final, h = nnx.merge(graph, variables)(x, states, mask=mask)
            total = jnp.vdot(h, weight)
            for leaf, w in zip(jax.tree.leaves(final), state_weights, strict=True):
                total += jnp.vdot(leaf, w)
            return total, (h, final)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(variables, x, states)

    (d_variables, d_x, d_states), (h, final) = run(variables, jnp.asarray(x), states)
    gradients = [part for layer in nnx.merge(graph, d_variables).layers for part in parts_of(layer)]
    leaves = jax.tree.leaves
    return Results(h, leaves(final), [g.params for g in gradients], d_x, leaves(d_states))


def parts_of(layer: Any) -> list[Any]:
    return [layer.forward, layer.backward] if isinstance(layer, Bidirectional) else [layer]


def stack_of(cell: lj.Cell, depth: int, bidirectional: bool, engine: str, dtype: str) -> Stack:
    make, width, layers = Bidirectional if bidirectional else Recurrent, D, []
    for _ in range(depth):
        given: Any = dict(rngs=nnx.Rngs(0), engine=engine, dtype=jnp.dtype(dtype))
        layers.append(make(cell, width, **given))
        width = layers[-1].output_size
    return Stack(layers)


def grouped(cell: lj.Cell, rows: list, bidirectional: bool) -> tuple:
    """State rows, one for each layer and direction, as a stack takes them."""
    rows = [cell.State(*(jnp.asarray(leaf) for leaf in row)) for row in rows]
    return tuple(zip(rows[::2], rows[1::2], strict=True)) if bidirectional else tuple(rows)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def their_promotion() -> Iterator[None]:
    """Other libraries rely on implicit promotion."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


# torch. -------------------------------------------------------------------------------------------


def from_torch(cell: lj.Cell, w_ih, w_hh, b_ih, b_hh) -> CellParams:
    """Parameters of ours: torch packs our gates in our order, row by row, with two biases."""
    if isinstance(cell, cells.GRU):  # only the candidate keeps them apart
        b = np.concatenate([(b_ih + b_hh)[: 2 * H], b_ih[2 * H :], b_hh[2 * H :]])
    else:
        b = b_ih + b_hh
    w_x, w_h, b = map(jnp.asarray, (w_ih.T, w_hh.T, b))
    return CellParams(w_x, w_h, b, cell.Theta({}))


def from_torch_gradient(cell: lj.Cell, w_ih, w_hh, b_ih, b_hh) -> CellParams:
    """Gradients of ours: each bias of a sum has the gradient of the sum."""
    shared = 2 * H if isinstance(cell, cells.GRU) else len(b_ih)
    np.testing.assert_allclose(b_ih[:shared], b_hh[:shared], rtol=1e-5)
    return from_torch(cell, w_ih, w_hh, b_ih, np.where(np.arange(len(b_hh)) < shared, 0, b_hh))


def theirs_in_torch(torch, module, x, states, lengths):
    """Runs a torch module; `states` are arrays [layers and directions, B, H]."""
    x = torch.tensor(x, requires_grad=True)
    states = [torch.tensor(s, requires_grad=True) for s in states]
    start = tuple(states) if len(states) > 1 else states[0]
    utils = torch.nn.utils.rnn
    packed = utils.pack_padded_sequence(x, lengths, enforce_sorted=False) if lengths else x
    h, final = module(packed, start)
    h = utils.pad_packed_sequence(h, total_length=T)[0] if lengths else h
    final = final if isinstance(final, tuple) else (final,)
    # From [layers and directions] of h and then of c to (h, c) of each layer and direction.
    rows = [leaf for row in zip(*final, strict=True) for leaf in row]
    weight, state_weights = weights_of_loss(h.shape[-1], len(rows), str(h.dtype).split(".")[1])
    loss = (h * torch.tensor(weight)).sum()
    for leaf, w in zip(rows, state_weights, strict=True):
        loss = loss + (leaf * torch.tensor(w)).sum()
    loss.backward()
    d_rows = [leaf for row in zip(*(s.grad for s in states), strict=True) for leaf in row]
    return h.detach().numpy(), [r.detach().numpy() for r in rows], x.grad.numpy(), d_rows


@pytest.mark.parametrize(("bidirectional", "padded"), [(False, False), (True, True)])
@pytest.mark.parametrize(
    ("cell", "name", "options"),
    [
        (cells.LSTM(H), "LSTM", {}),
        (cells.GRU(H), "GRU", {}),
        (cells.RNN(H), "RNN", {}),
        (cells.RNN(H, "relu"), "RNN", {"nonlinearity": "relu"}),
    ],
)
def test_two_layers_equal_torch(dtype, cell, name, options, bidirectional, padded) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, name)(
        D, H, num_layers=2, bidirectional=bidirectional, dtype=getattr(torch, dtype), **options
    )
    ends = ["", "_reverse"] if bidirectional else [""]
    suffixes = [f"l{layer}{end}" for layer in range(2) for end in ends]
    kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    tensors = [[getattr(module, f"{kind}_{s}") for kind in kinds] for s in suffixes]
    x = draw(0, T, B, D).astype(dtype)
    states = [draw(50 + i, len(suffixes), B, H).astype(dtype) for i in range(len(cell.states))]
    lengths = LENGTHS if padded else None

    h, final, d_x, d_state = theirs_in_torch(torch, module, x, states, lengths)
    d_params = [from_torch_gradient(cell, *(w.grad.numpy() for w in layer)) for layer in tensors]
    expected = Results(h, final, d_params, d_x, [d.numpy() for d in d_state])

    params = [from_torch(cell, *(w.detach().numpy() for w in layer)) for layer in tensors]
    mask = jnp.asarray(np.arange(T)[:, None] < np.array(LENGTHS)) if padded else None
    given = grouped(cell, list(zip(*states, strict=True)), bidirectional)
    for engine in ENGINES:
        stack = stack_of(cell, 2, bidirectional, engine, dtype)
        assert_equal(ours(stack, params, x, given, mask), expected, TOLERANCE[dtype])


# Flax. --------------------------------------------------------------------------------------------


def one_layer(cell: lj.Cell, dtype: str) -> tuple[CellParams, Any, Any]:
    """Parameters of one layer, an input and a state."""
    params = jax.tree.map(
        lambda p: draw(3, *p.shape).astype(dtype) * H**-0.5,
        lj.init(cell, jax.random.key(0), D, dtype=jnp.dtype(dtype)),
    )
    state = cell.State(*(jnp.asarray(draw(60 + i, B, H), dtype) for i in range(len(cell.states))))
    x = jnp.asarray(draw(0, T, B, D), dtype)
    return params, x, state


def theirs_in_jax(run, params, x, state) -> Results:
    """Differentiates run(params, x, state) -> (final, h), which speaks our types."""
    weight, state_weights = weights_of_loss(H, len(state), x.dtype.name)

    def loss(params, x, state):
        final, h = run(params, x, state)
        total = jnp.vdot(h, weight)
        for leaf, w in zip(final, state_weights, strict=True):
            total += jnp.vdot(leaf, w)
        return total, (h, list(final))

    grads, (h, final) = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(params, x, state)
    return Results(h, final, [grads[0]], grads[1], list(grads[2]))


def four(packed):
    return jnp.split(packed, 4, axis=-1)


def linen_lstm(params: CellParams, x, state):
    """Runs Flax linen's RNN(OptimizedLSTMCell): a dense layer for each product of each gate."""
    w_x, w_h = (four(w) for w in (params.w_x, params.w_h))
    tree = {f"i{g}": {"kernel": w} for g, w in zip("ifgo", w_x, strict=True)}
    biases = four(params.b)
    tree |= {f"h{g}": {"kernel": w, "bias": b} for g, w, b in zip("ifgo", w_h, biases, strict=True)}
    cell = linen.OptimizedLSTMCell(H, dtype=x.dtype, param_dtype=x.dtype)
    layer = linen.RNN(cell, time_major=True, return_carry=True)
    given: Any = {"params": {"cell": tree}}
    (c, h), outputs = layer.apply(given, x, initial_carry=(state.c, state.h))
    return lj.LSTMState(h, c), outputs


def nnx_lstm(params: CellParams, x, state):
    """Runs Flax NNX's OptimizedLSTMCell instant by instant: two dense layers for all gates."""
    cell = nnx.OptimizedLSTMCell(D, H, rngs=nnx.Rngs(0), dtype=x.dtype, param_dtype=x.dtype)
    cell.dense_i.kernel[...] = params.w_x
    cell.dense_h.kernel[...] = params.w_h
    cell.dense_h.bias = nnx.Param(params.b)
    carry, outputs = (state.c, state.h), []
    for x_t in x:
        carry, h = cell(carry, x_t)
        outputs.append(h)
    return lj.LSTMState(carry[1], carry[0]), jnp.stack(outputs)


@pytest.mark.parametrize("theirs", [linen_lstm, nnx_lstm])
def test_the_lstm_equals_flax(dtype: str, their_promotion: None, theirs) -> None:
    params, x, state = one_layer(cells.LSTM(H), dtype)
    expected = theirs_in_jax(theirs, params, x, state)
    for engine in ENGINES:
        stack = stack_of(cells.LSTM(H), 1, False, engine, dtype)
        assert_equal(ours(stack, [params], x, (state,)), expected, TOLERANCE[dtype])


# Keras. -------------------------------------------------------------------------------------------


@pytest.fixture
def keras(their_promotion: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras")


def keras_lstm(keras, params: CellParams, x, state):
    """Runs Keras's LSTM: our gates in our order."""
    layer = keras.layers.LSTM(H, return_sequences=True, return_state=True, dtype=x.dtype.name)
    h, *final = run_keras(layer, [params.w_x, params.w_h, params.b], x, list(state))
    return lj.LSTMState(*final), h


def keras_gru(keras, params: CellParams, x, state):
    """Runs Keras's GRU: z before r, and a bias for each product, of which one is enough."""
    layer = keras.layers.GRU(
        H, return_sequences=True, return_state=True, reset_after=True, dtype=x.dtype.name
    )
    r, z, nx, nh = four(params.b)
    b = jnp.stack([jnp.concatenate([z, r, nx]), jnp.concatenate([0 * z, 0 * r, nh])])
    weights: Any = params[:2]
    w_x, w_h = (
        jnp.concatenate([z, r, n], axis=1) for r, z, n in (jnp.split(w, 3, axis=1) for w in weights)
    )
    h, final = run_keras(layer, [w_x, w_h, b], x, list(state))
    return type(state)(final), h


def run_keras(layer, weights, x, state):
    """Returns outputs [T, B, H] and the final states; Keras puts the batch first."""
    layer.build((B, T, D))
    constant = [variable.value for variable in layer.non_trainable_variables]
    (h, *final), _ = layer.stateless_call(
        weights, constant, jnp.swapaxes(x, 0, 1), initial_state=state
    )
    return jnp.swapaxes(h, 0, 1), *final


@pytest.mark.parametrize(
    ("cell", "theirs"), [(cells.LSTM(H), keras_lstm), (cells.GRU(H), keras_gru)]
)
def test_a_layer_equals_keras(keras: Any, cell, theirs) -> None:
    dtype = "float32"  # in float64 Keras itself keeps float32's precision only
    params, x, state = one_layer(cell, dtype)
    expected = theirs_in_jax(lambda *given: theirs(keras, *given), params, x, state)
    for engine in ENGINES:
        stack = stack_of(cell, 1, False, engine, dtype)
        assert_equal(ours(stack, [params], x, (state,)), expected, TOLERANCE[dtype])
