"""Weights in and out: exact round trips, and golden numbers of other libraries."""

import operator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import lstm_jax as lj
from lstm_jax import cells, interop
from lstm_jax.interop.checking import named
from lstm_jax.nn import SequenceSpec
from tests.interop.weights import (
    GRU,
    LSTM,
    RNN,
    ROOT,
    D,
    FakeTensor,
    H,
    assert_same,
    layers_of_two,
    p,
    params_of,
    part,
    random_params,
)
from tests.peers import GOLDEN, assert_equal, numbers, ours


@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_round_trips_are_exact(cell: lj.Cell) -> None:
    params, layers = params_of(cell), layers_of_two(cell)
    assert_same(interop.from_torch(cell, interop.to_torch(cell, layers)), layers)
    assert_same(interop.from_linen(cell, interop.to_linen(cell, params)), params)
    assert_same(interop.from_keras(cell, interop.to_keras(cell, params)), params)
    if cell == GRU:  # there the candidate's recurrent product has no bias
        params = params._replace(b=params.b.at[-H:].set(0))
    assert_same(interop.from_nnx(cell, interop.to_nnx(cell, params)), params)
    if cell == LSTM:
        apart = interop.to_nnx(cell, params, optimized=False)
        assert_same(interop.from_nnx(cell, apart), params)


def test_a_projected_round_trip_is_exact() -> None:
    layers = layers_of_two(LSTM, projected=True)
    tensors = interop.to_torch(LSTM, layers)
    assert tensors["weight_hr_l1_reverse"].shape == (p, H)
    assert tensors["weight_ih_l1"].shape == (4 * H, 2 * p)
    assert_same(interop.from_torch(LSTM, tensors), layers)


def test_other_libraries_tensors_come_back_as_they_were() -> None:
    """Except for torch's two biases, which come back as their sum and zero."""
    with np.load(ROOT / "tests/golden.npz") as golden, jax.enable_x64(True):
        for name, case in GOLDEN.items():
            tensors = part(golden, f"{name}/tensors/")
            back = interop.to_torch(case.cell, interop.from_torch(case.cell, tensors))
            assert back.keys() == tensors.keys()
            for key in (key for key in tensors if key.startswith("weight")):
                assert_same(back[key], tensors[key])
        for cell in (LSTM, GRU):
            tensors = part(golden, f"keras/{type(cell).__name__}/")
            del tensors["h"]
            back = interop.to_keras(cell, interop.from_keras(cell, tensors))
            assert list(back) == ["kernel", "recurrent_kernel", "bias"]
            assert_same(back["kernel"], tensors["kernel"])
            assert_same(back["recurrent_kernel"], tensors["recurrent_kernel"])


def test_what_torch_adds_without_biases_is_zero() -> None:
    tensors = interop.to_torch(LSTM, ((params_of(LSTM),),))
    (params,) = interop.from_torch(LSTM, {k: tensors[k] for k in tensors if "bias" not in k})[0]
    assert_same(params, params_of(LSTM)._replace(b=jnp.zeros(4 * H)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
def test_a_state_dict_goes_in_as_it_is(dtype: str, prefix: str) -> None:
    """Torch's own tensors, in their own dtype, and the prefix of the module that holds them."""
    layers = jax.tree.map(lambda a: a.astype(dtype), layers_of_two(LSTM, projected=True))
    given = {prefix + n: FakeTensor(a) for n, a in interop.to_torch(LSTM, layers).items()}
    assert_same(interop.from_torch(LSTM, given), layers)


@pytest.mark.parametrize("prefix", ["encoder.lstm.", "encoder.lstm"])
def test_a_module_within_a_model_is_chosen_by_its_prefix(prefix: str) -> None:
    layers = layers_of_two(LSTM)
    tensors = interop.to_torch(LSTM, layers)
    model = {f"encoder.lstm.{n}": a for n, a in tensors.items()} | {"head.weight": np.ones(3)}
    assert_same(interop.from_torch(LSTM, model, prefix), layers)
    with pytest.raises(ValueError, match=r"'head.weight' is unexpected; prefix='encoder\.lstm\.'"):
        interop.from_torch(LSTM, model)
    with pytest.raises(ValueError, match=r"no tensor has the prefix 'decoder\.'"):
        interop.from_torch(LSTM, model, "decoder")
    both = model | {f"decoder.{n}": a for n, a in tensors.items()}
    with pytest.raises(ValueError, match=r"prefix must choose one module of \['decoder\.', 'enc"):
        interop.from_torch(LSTM, both)
    del model["encoder.lstm.weight_hh_l1"]
    with pytest.raises(ValueError, match=r"tensor 'encoder\.lstm\.weight_hh_l1' is missing"):
        interop.from_torch(LSTM, model, prefix)


@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
@pytest.mark.parametrize("prefix", ["", "cells.0."])
def test_a_cell_of_torch_is_a_layer(cell: lj.Cell, prefix: str) -> None:
    layers = ((params_of(cell),),)
    tensors = interop.to_torch(cell, layers)
    given = {prefix + name.removesuffix("_l0"): array for name, array in tensors.items()}
    assert_same(interop.from_torch(cell, given), layers)
    with pytest.raises(ValueError, match=rf"'{prefix}bias_hh' is missing"):
        interop.from_torch(cell, {k: v for k, v in given.items() if "bias_hh" not in k})


@pytest.mark.parametrize("library", ["torch", "keras", "linen", "nnx"])
def test_the_byte_order_of_an_array_is_its_own(library: str) -> None:
    params = ((params_of(LSTM),),) if library == "torch" else params_of(LSTM)
    read, write = (getattr(interop, f"{way}_{library}") for way in ("from", "to"))
    turned = jax.tree.map(lambda a: a.astype(">f4"), write(LSTM, params))
    assert_same(read(LSTM, turned), params)


class Weight(NamedTuple):
    """A Keras variable."""

    path: str
    array: np.ndarray

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
def test_the_weights_of_a_keras_layer_go_in_as_they_are(cell: lj.Cell) -> None:
    params = params_of(cell)
    arrays = interop.to_keras(cell, params)
    weights = [Weight(f"a/forward/cell/{name}", array) for name, array in arrays.items()]
    for given in (weights, [*arrays.values()], {w.path: w for w in weights}):
        assert_same(interop.from_keras(cell, given), params)


@pytest.mark.parametrize("cell", [LSTM, GRU, RNN])
@pytest.mark.parametrize("biases", [True, False])
def test_both_directions_of_keras_are_not_taken_for_one(cell: lj.Cell, biases: bool) -> None:
    arrays = {
        k: v for k, v in interop.to_keras(cell, params_of(cell)).items() if k != "bias" or biases
    }
    both = [
        Weight(f"bidirectional/{way}_lstm/lstm_cell/{name}", array)
        for way in ("forward", "backward")
        for name, array in arrays.items()
    ]
    for given in (both, [w.array for w in both], {w.path: w.array for w in both}):
        with pytest.raises(ValueError, match=f"got {len(both)}; a Bidirectional has two layers"):
            interop.from_keras(cell, given)


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_equal_the_golden_numbers_of_torch(x64: None, name: str) -> None:
    with np.load(ROOT / "tests/golden.npz") as golden:
        tensors, expected = part(golden, f"{name}/tensors/"), part(golden, f"{name}/")
    found = slashed(ours(GOLDEN[name], tensors, "float64"))
    expected = {key: expected[key] for key in expected if not key.startswith("tensors/")}
    assert min(np.abs(array).max() for array in expected.values()) > 1e-3
    assert_equal(found, expected, 1e-12)


@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_a_layer_equals_the_golden_numbers_of_keras(cell: lj.Cell) -> None:
    with np.load(ROOT / "tests/golden.npz") as golden:
        tensors, x = part(golden, f"keras/{type(cell).__name__}/"), golden["keras/x"]
    expected = np.swapaxes(tensors.pop("h"), 0, 1)
    params = interop.from_keras(cell, tensors)
    _, h = lj.unroll(cell, params, jnp.asarray(x).swapaxes(0, 1), engine="reference")
    assert_equal(h, expected, 1e-5)


@pytest.mark.parametrize(
    ("cell", "theirs", "nnx_theirs"),
    [
        (LSTM, linen.OptimizedLSTMCell, nnx.LSTMCell),
        (LSTM, linen.LSTMCell, nnx.OptimizedLSTMCell),
        (GRU, linen.GRUCell, nnx.GRUCell),
        (cells.RNN(H), linen.SimpleCell, nnx.SimpleCell),
    ],
)
def test_an_instant_equals_that_of_flax(cell: lj.Cell, theirs: Any, nnx_theirs: Any) -> None:
    params = params_of(cell)
    params = params._replace(b=params.b.at[-H:].set(0)) if cell == GRU else params
    x, state = (jnp.asarray(numbers(i, 4, n), jnp.float32) for i, n in [(50, D), (51, H)])
    carry = (state, state + 1) if cell == LSTM else state
    ours = cell.State(*(carry[::-1] if cell == LSTM else [carry]))  # Flax carries (c, h)
    _, expected = lj.step(cell, params, ours, x)
    with jax.numpy_rank_promotion("allow"):
        tree: Any = {"params": interop.to_linen(cell, params)}
        assert_equal(theirs(H).apply(tree, carry, x)[1], expected, 1e-6)
        graph, old = nnx.split(nnx.eval_shape(lambda: nnx_theirs(D, H, rngs=nnx.Rngs(0))))
        new = interop.to_nnx(cell, params, optimized=nnx_theirs is not nnx.LSTMCell)
        shapes = (jax.tree.map(np.shape, tree) for tree in (new, nnx.to_pure_dict(old)))
        assert operator.eq(*shapes)
        assert_equal(nnx.merge(graph, new)(carry, x)[1], expected, 1e-6)


@pytest.mark.parametrize(("cell", "projection"), [(GRU, None), (LSTM, p)])
def test_layers_in_a_model_and_as_a_stack_are_the_same_modules(
    cell: lj.Cell, projection: int | None
) -> None:
    spec = SequenceSpec(
        cell, D, 2, readout="every", depth=2, bidirectional=True, engine="reference",
        projection=projection,
    )  # fmt: skip
    layers = layers_of_two(cell, projected=bool(projection))
    params = interop.with_layers(random_params(spec), layers)
    assert jax.tree.structure(params) == jax.tree.structure(random_params(spec))
    assert_same(interop.layers_of(cell, params), layers)
    found = nnx.split(interop.as_stack(cell, layers, engine="reference"))
    graph, state = nnx.split(spec.module(params).stack)
    assert found[0] == graph
    assert_same(nnx.to_pure_dict(found[1]), nnx.to_pure_dict(state))


def test_a_projected_torch_module_becomes_a_model_in_a_file(tmp_path: Path) -> None:
    """From tensors through a model file and back; and there a reset is a fresh start."""
    layers = layers_of_two(LSTM, projected=True)
    spec = SequenceSpec(
        LSTM, D, 2, readout="every", depth=2, bidirectional=True, projection=p, engine="reference"
    )
    read = interop.from_torch(LSTM, interop.to_torch(LSTM, layers))
    interop.save_model(tmp_path / "m", spec, interop.with_layers(random_params(spec), read))
    found, params = interop.load_model(tmp_path / "m")
    assert found == spec
    assert_same(interop.layers_of(LSTM, params), layers)
    x: Any = numbers(0, 5, 3, D).astype("float32")
    reset = jnp.zeros((5, 3), bool).at[2].set(True)

    @jax.jit
    def both(params):
        parts = [found.apply(params, x[:2]), found.apply(params, x[2:])]
        return found.apply(params, x, reset=reset), jnp.concatenate(parts)

    packed, apart = both(params)
    assert_equal(packed, apart, 1e-6)


def slashed(results: Any) -> dict[str, Any]:
    return {key.replace(".", "/"): leaf for key, leaf in named(results).items()}
