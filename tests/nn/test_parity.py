"""Layers equal those of torch, Flax and Keras with the same weights: outputs, states, gradients.

Sizes are drawn by hypothesis. Gradients are taken with respect to the other library's own tensors,
through the import.
"""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_jax as lj
from lstm_jax import cells, interop
from tests.peers import Case, assert_equal, numbers, ours, tensors_of, theirs, torch_module

pytestmark = pytest.mark.slow

# What remains is rounding: relative to the largest entry of an array.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def their_promotion() -> contextlib.ExitStack:
    """Other libraries rely on implicit promotion."""
    both = contextlib.ExitStack()
    both.enter_context(jax.numpy_rank_promotion("allow"))
    both.enter_context(jax.numpy_dtype_promotion("standard"))
    return both


# torch. -------------------------------------------------------------------------------------------


@st.composite
def torch_cases(draw: Callable, kind: str) -> Case:
    """Modules of one or two layers, with lengths from 1 to all of T where they have any."""
    T, B, D, H = (draw(st.integers(low, high)) for low, high in [(1, 7), (1, 4), (1, 4), (2, 5)])
    lengths = st.lists(st.integers(1, T), min_size=B, max_size=B).map(tuple)
    return Case(
        kind, T, B, D, H, draw(st.integers(1, 2)), draw(st.booleans()),
        projection=draw(st.integers(0, H - 1)) if kind == "LSTM" else 0,
        nonlinearity=draw(st.sampled_from(["tanh", "relu"])),
        bias=draw(st.booleans()),
        lengths=draw(st.none() | lengths),
    )  # fmt: skip


def compare_with_torch(case: Case, dtype: str, engine: str) -> None:
    torch = pytest.importorskip("torch")
    module = torch_module(torch, case, dtype)
    expected = theirs(torch, case, module, dtype)
    with jax.enable_x64(dtype == "float64"):
        found = ours(case, tensors_of(module), dtype, engine)
        assert_equal(found, expected, TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@settings(max_examples=3)
@given(data=st.data())
def test_layers_equal_torch(kind: str, dtype: str, data: st.DataObject) -> None:
    engine = data.draw(st.sampled_from(["scan", "reference"]))
    compare_with_torch(data.draw(torch_cases(kind)), dtype, engine)


@DTYPES
@pytest.mark.parametrize("projection", [0, 4])
def test_two_layers_both_ways_over_packed_lengths_equal_torch(projection: int, dtype: str) -> None:
    case = Case("LSTM", 23, 4, 3, 6, projection=projection, lengths=(23, 9, 1, 16))
    compare_with_torch(case, dtype, "scan")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_state_dict_goes_into_torch_and_out_of_it(kind: str, dtype: str) -> None:
    """As docs/interop.md has it: a module within a model, and a cell, in the module's own dtype."""
    torch = pytest.importorskip("torch")
    case = Case(kind)
    model = torch.nn.ModuleDict({"rnn": torch_module(torch, case, dtype)})
    layers = interop.from_torch(case.cell, model.state_dict())
    assert {leaf.dtype for leaf in jax.tree.leaves(layers)} == {jnp.dtype(dtype)}

    def tensors(layers: Any) -> dict[str, Any]:
        arrays = interop.to_torch(case.cell, layers)
        return {name: torch.from_numpy(array.astype("float32")) for name, array in arrays.items()}

    fresh = torch_module(torch, case, dtype)
    fresh.load_state_dict(tensors(layers))
    again = interop.from_torch(case.cell, fresh.state_dict())
    jax.tree.map(np.testing.assert_array_equal, again, layers)
    cell = getattr(torch.nn, f"{kind}Cell")(case.D, case.H, dtype=getattr(torch, dtype))
    lowest = ((layers[0][0],),)
    cell.load_state_dict({n.removesuffix("_l0"): t for n, t in tensors(lowest).items()})
    again = interop.from_torch(case.cell, cell.state_dict())
    jax.tree.map(np.testing.assert_array_equal, again, lowest)


# Flax. --------------------------------------------------------------------------------------------

sizes = st.tuples(*(st.integers(1, high) for high in (6, 4, 4, 5)))  # T, B, D, H


def drawn(shapes: Any, dtype: str) -> Any:
    leaves, structure = jax.tree.flatten(shapes)
    each = (numbers(i, *leaf.shape).astype(dtype) for i, leaf in enumerate(leaves))
    return jax.tree.unflatten(structure, map(jnp.asarray, each))


def compare(
    cell: lj.Cell, read: Callable, expected: Callable, shapes: Any, sizes: Any, dtype: str
) -> None:
    """Compares with `expected`, a function of (tree, x, state) to (final state, outputs)."""
    T, B, D, H = sizes
    rows = [np.empty((B, H))] * len(cell.states)
    tree, x, state = drawn((shapes, np.empty((T, B, D)), rows), dtype)
    weights = numbers(7, T, B, H).astype(dtype)

    def run(tree, x, state):
        return lj.unroll(cell, read(cell, tree), x, cell.State(*state))

    def gradients(function):
        def loss(*given):
            final, h = function(*given)
            total = jnp.vdot(h, weights) + sum(jnp.vdot(leaf, weights[0]) for leaf in final)
            return total, (h, tuple(final))

        return jax.grad(loss, (0, 1, 2), has_aux=True)

    with their_promotion():
        both = jax.jit(lambda *given: (gradients(run)(*given), gradients(expected)(*given)))
        found, wanted = both(tree, x, state)
    assert_equal(found, wanted, TOLERANCE[dtype])


def linen_step(module: Any, D: int, H: int, dtype: str) -> tuple[Callable, Any]:
    """Returns the cell's step (tree, carry, x) and the shapes of its tree."""
    cell, x = module(H, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype)), jnp.zeros((1, D))
    shapes = jax.eval_shape(
        lambda key: cell.init(key, cell.initialize_carry(key, x.shape), x), jax.random.key(0)
    )
    return lambda tree, carry, x: cell.apply({"params": tree}, carry, x), shapes["params"]


def nnx_step(module: Any, D: int, H: int, dtype: str) -> tuple[Callable, Any]:
    """Returns the cell's step (tree, carry, x) and the shapes of its tree."""
    options = dict(dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
    graph, old = nnx.split(nnx.eval_shape(lambda: module(D, H, rngs=nnx.Rngs(0), **options)))
    return lambda tree, carry, x: nnx.merge(graph, tree)(carry, x), nnx.to_pure_dict(old)


LIBRARIES = {linen: (interop.from_linen, linen_step), nnx: (interop.from_nnx, nnx_step)}
FLAX = {
    "OptimizedLSTMCell": cells.LSTM,
    "LSTMCell": cells.LSTM,
    "GRUCell": cells.GRU,
    "SimpleCell": cells.RNN,
}


@DTYPES
@pytest.mark.parametrize("name", FLAX)
@pytest.mark.parametrize("library", [linen, nnx])
@settings(max_examples=2)
@given(sizes=sizes)
def test_a_layer_equals_flax(library: Any, name: str, dtype: str, sizes: tuple[int, ...]) -> None:
    cell = FLAX[name](sizes[-1])
    read, step_of = LIBRARIES[library]

    def expected(tree, x, state):
        carry = tuple(state[::-1]) if len(state) > 1 else state[0]  # Flax carries (c, h)
        carry, h = jax.lax.scan(lambda carry, x: step(tree, carry, x), carry, x)
        return carry[::-1] if len(state) > 1 else [carry], h

    with jax.enable_x64(dtype == "float64"):
        step, shapes = step_of(getattr(library, name), sizes[2], sizes[3], dtype)
        compare(cell, read, expected, shapes, sizes, dtype)


# Keras. -------------------------------------------------------------------------------------------


def keras_layers() -> Any:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("KERAS_BACKEND", "jax")
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras").layers


KERAS = {"LSTM": cells.LSTM, "GRU": cells.GRU, "SimpleRNN": cells.RNN}


@pytest.mark.parametrize("name", KERAS)
@settings(max_examples=2)
@given(sizes=sizes)
def test_a_layer_equals_keras(name: str, sizes: tuple[int, ...]) -> None:
    """In float32: in float64 Keras itself keeps float32's precision only."""
    T, B, D, H = sizes
    cell = KERAS[name](H)
    with their_promotion():
        layer = getattr(keras_layers(), name)(H, return_sequences=True, return_state=True)
        layer.build((B, T, D))
    constant = [variable.value for variable in layer.non_trainable_variables]
    shapes = {weight.name: np.empty(weight.shape) for weight in layer.trainable_variables}

    def expected(tree, x, state):
        weights = [tree[variable.name] for variable in layer.trainable_variables]
        x = jnp.swapaxes(x, 0, 1)  # Keras puts the batch first
        (h, *final), _ = layer.stateless_call(weights, constant, x, initial_state=list(state))
        return final, jnp.swapaxes(h, 0, 1)

    compare(cell, interop.from_keras, expected, shapes, sizes, "float32")


@pytest.mark.parametrize("name", KERAS)
def test_both_halves_of_a_keras_layer_equal_it(name: str) -> None:
    """As docs/interop.md has it; and the weights of both are not taken for those of one."""
    T, B, D, H = 5, 3, 2, 4
    cell, layers, x = KERAS[name](H), keras_layers(), numbers(0, B, T, D).astype("float32")
    with their_promotion():
        both = layers.Bidirectional(getattr(layers, name)(H, return_sequences=True))
        expected = np.asarray(both(x))
    halves = both.forward_layer, both.backward_layer
    params = (tuple(interop.from_keras(cell, half.weights) for half in halves),)
    _, h = interop.as_stack(cell, params)(jnp.asarray(x).swapaxes(0, 1))
    assert_equal(h.swapaxes(0, 1), expected, TOLERANCE["float32"])
    for weights in (both.weights, {w.path: w for w in both.weights}):
        with pytest.raises(ValueError, match="got 6; a Bidirectional has two layers"):
            interop.from_keras(cell, weights)
