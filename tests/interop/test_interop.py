"""Weights in and out: exact round trips, golden numbers of other libraries, files, errors."""

import operator
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import lstm_jax as lj
from lstm_jax import cells, interop
from lstm_jax.interop import keras, layouts
from lstm_jax.interop.checking import named
from lstm_jax.nn import SequenceSpec
from lstm_jax.types import CellParams
from tests.cells_under_test import CIFG, Peephole
from tests.peers import GOLDEN, assert_equal, numbers, ours

D, H, p = 2, 3, 2
LSTM, GRU, RNN = cells.LSTM(H), cells.GRU(H), cells.RNN(H, "relu")
ROOT = Path(__file__).parents[2]


def params_of(cell: lj.Cell, seed: int = 0, rows: int = D, projected: bool = False) -> CellParams:
    """Random parameters of one layer; NumPy draws, so that nothing is compiled."""
    x, h, b = (
        sum(cell.width(n) for n in names) for names in (cell.x_blocks, cell.h_blocks, cell.gates)
    )
    shapes = [(rows, x), (p if projected else H, h), (b,), (H, p)]
    w_x, w_h, b, P = (
        jnp.asarray(numbers(9 * seed + i, *shape), jnp.float32) for i, shape in enumerate(shapes)
    )
    return CellParams(w_x, (P, w_h) if projected else w_h, b, cell.Theta({}))


def layers_of_two(cell: lj.Cell, projected: bool = False) -> interop.Layers:
    width = 2 * (p if projected else H)
    return tuple(
        tuple(params_of(cell, 2 * depth + way, rows, projected) for way in range(2))
        for depth, rows in enumerate([D, width])
    )


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit, in structure, shape and dtype too."""

    def same(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, found, expected)


# Round trips. -------------------------------------------------------------------------------------


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


class FakeTensor:
    """A torch tensor on a device, with a gradient: NumPy takes it after `detach` and `cpu` only."""

    def __init__(self, array: np.ndarray, *ready: str):
        self.array, self.ready, self.dtype = array, ready, f"torch.{array.dtype}"

    def detach(self) -> "FakeTensor":
        return type(self)(self.array, *self.ready, "detach")

    def cpu(self) -> "FakeTensor":
        return FakeTensor(self.array, *self.ready, "cpu")

    def double(self) -> "FakeTensor":
        return FakeTensor(self.array.astype("float64"), *self.ready)

    def numpy(self) -> np.ndarray:
        if {*self.ready} != {"detach", "cpu"} or self.dtype == "torch.bfloat16":
            raise TypeError("not for NumPy")
        return self.array


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


# Golden numbers. ----------------------------------------------------------------------------------


def part(golden: Any, prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_equal_the_golden_numbers_of_torch(x64: None, name: str) -> None:
    with np.load(ROOT / "tests/golden.npz") as golden:
        tensors, expected = part(golden, f"{name}/tensors/"), part(golden, f"{name}/")
    found = slashed(ours(GOLDEN[name], tensors, "float64"))
    expected = {key: expected[key] for key in expected if not key.startswith("tensors/")}
    assert min(np.abs(array).max() for array in expected.values()) > 1e-3
    assert_equal(found, expected, 1e-12)


def slashed(results: Any) -> dict[str, Any]:
    return {key.replace(".", "/"): leaf for key, leaf in named(results).items()}


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


# Layers within a model. ---------------------------------------------------------------------------


def random_params(spec: SequenceSpec) -> Any:
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    drawn = [jnp.asarray(numbers(i, *s.shape), s.dtype) for i, s in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


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


def test_layers_that_do_not_belong_into_a_model_are_refused() -> None:
    spec = SequenceSpec(LSTM, D, 2, depth=2)
    params = jax.eval_shape(spec.init, jax.random.key(0))
    one = (params_of(LSTM),)
    with pytest.raises(ValueError, match=r"'1\.b' is missing"):
        interop.with_layers(params, (one,))
    with pytest.raises(ValueError, match=r"'1\.w_x' must be \(3, 12\), got \(2, 12\)"):
        interop.with_layers(params, (one, one))
    with pytest.raises(ValueError, match=r"'0\.w_h' is missing"):
        interop.with_layers(params, ((params_of(LSTM, projected=True),), one))
    with pytest.raises(ValueError, match=r"layers\[1\]\[0\]\.w_x must have D = 3 rows, got 2"):
        interop.as_stack(LSTM, (one, one))


# Errors. ------------------------------------------------------------------------------------------


def torch_tensors(cell: lj.Cell = LSTM, projected: bool = False) -> dict[str, np.ndarray]:
    return interop.to_torch(cell, layers_of_two(cell, projected))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("weight_hh_l1"), "'weight_hh_l1' is missing"),
        (lambda t: t.pop("bias_hh_l0_reverse"), "'bias_hh_l0_reverse' is missing"),
        (lambda t: t.pop("weight_hr_l1"), "'weight_hr_l1' is missing"),
        (lambda t: t.update(weight_ih_l3=t["weight_ih_l1"]), "'weight_ih_l2' is missing"),
        (lambda t: t.update(weight_ih_l99999999999=1.0), "'weight_ih_l2' is missing"),
        (lambda t: t.update(weight_ih=t["weight_ih_l1"]), "'weight_ih' is unexpected"),
        (lambda t: t.update(head=t["bias_ih_l0"]), "'head' is unexpected"),
        (
            lambda t: t.update(weight_hh_l0=t["weight_hh_l0"].T),
            r"'weight_hh_l0' must be \(12, 2\), got \(2, 12\)",
        ),
        (
            lambda t: t.update(weight_hr_l0_reverse=t["weight_hr_l0"][:1]),
            r"'weight_hr_l0_reverse' must be \(2, 3\), got \(1, 3\)",
        ),
        (
            lambda t: t.update(bias_ih_l0=t["bias_ih_l0"].astype("float16")),
            "'bias_ih_l0' must be float32, got float16",
        ),
        (
            lambda t: t.update(weight_ih_l1=t["weight_ih_l0"]),
            r"layers\[1\]\[0\].w_x must have D = 4 rows, got 2",
        ),
    ],
)
def test_the_first_tensor_that_is_wrong_is_named(change: Any, message: str) -> None:
    tensors = torch_tensors(projected=True)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        interop.from_torch(LSTM, tensors)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'weight_ih_l0' must be \(9, 2\), got \(12, 2\)"):
        interop.from_torch(GRU, torch_tensors())
    with pytest.raises(ValueError, match="'weight_hr_l0' is unexpected"):
        interop.from_torch(GRU, torch_tensors(projected=True))
    convert = r"cell must be one of those that convert, LSTM\(hidden=3\), .*, got CIFG"
    for read in (interop.from_torch, interop.from_keras, interop.from_linen, interop.from_nnx):
        with pytest.raises(TypeError, match=convert):
            read(CIFG(H), {})
    with pytest.raises(ValueError, match=r"'dense_i\.kernel' is missing"):
        interop.from_nnx(LSTM, interop.to_linen(GRU, params_of(GRU)))


def test_a_reset_gate_before_the_product_is_refused_by_name() -> None:
    tensors = interop.to_keras(GRU, params_of(GRU))
    with pytest.raises(ValueError, match=r"shape \(9,\) is that of reset_after=False"):
        interop.from_keras(GRU, tensors | {"bias": tensors["bias"][0]})
    with pytest.raises(ValueError, match="whether reset_after is True"):
        interop.from_keras(GRU, {k: tensors[k] for k in ("kernel", "recurrent_kernel")})


def test_what_other_libraries_do_not_have_is_refused() -> None:
    projected = params_of(LSTM, projected=True)
    for write in (interop.to_keras, interop.to_linen, interop.to_nnx):
        with pytest.raises(ValueError, match=r"w_h must be one matrix: .* no projection"):
            write(LSTM, projected)
    with pytest.raises(ValueError, match=r"b of block 'nh' must be zero: flax\.nnx GRU"):
        interop.to_nnx(GRU, params_of(GRU))
    wide = projected._replace(w_h=(jnp.ones((H, H)), jnp.ones((H, 4 * H))))
    with pytest.raises(ValueError, match="projection to 3: torch projects LSTMs only, to less"):
        interop.to_torch(LSTM, ((wide,),))
    above = params_of(LSTM, rows=p)
    with pytest.raises(ValueError, match=r"outputs of one width, got \[2, 3\]"):
        interop.to_torch(LSTM, ((projected,), (above,)))
    with pytest.raises(ValueError, match="one direction, or all two, got \\[1, 2\\]"):
        interop.to_torch(LSTM, ((params_of(LSTM),), (params_of(LSTM), params_of(LSTM))))


def test_parameters_of_another_width_are_refused() -> None:
    wide = params_of(cells.LSTM(H + 1))
    for write in (interop.to_keras, interop.to_linen, interop.to_nnx):
        with pytest.raises(
            ValueError, match=r"params: tensor 'w_x' must be \(2, 12\), got \(2, 16\)"
        ):
            write(LSTM, wide)
    pair = params_of(LSTM, projected=True)
    with pytest.raises(ValueError, match=r"tensor 'w_h\[0\]' must be \(3, 2\), got \(2, 2\)"):
        interop.to_torch(LSTM, ((pair._replace(w_h=(pair.w_h[0][:2], pair.w_h[1])),),))
    short = pair._replace(w_h=(pair.w_h[0][:, :1], pair.w_h[1]))
    with pytest.raises(ValueError, match=r"params: tensor 'w_h' must be \(1, 12\), got \(2, 12\)"):
        interop.to_torch(LSTM, ((short,),))


class Elsewhere(FakeTensor):
    def cpu(self) -> FakeTensor:
        raise NotImplementedError("a meta tensor has no data")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.ones((12, 3), int), "must hold floats, got int64"),
        (np.ones((12, 3), complex), "must hold floats, got complex128"),
        (None, "must hold floats, got object"),
        ([[1.0], []], "cannot be read: "),
        (Elsewhere(np.ones((12, 3), "float32")), "cannot be read: a meta tensor has no data"),
    ],
)
def test_a_tensor_that_is_no_weight_is_named(tensor: Any, message: str) -> None:
    tensors = torch_tensors() | {"weight_ih_l1": tensor}
    with pytest.raises(ValueError, match=f"tensor 'weight_ih_l1' .*{message}"):
        interop.from_torch(LSTM, tensors)


def test_nothing_is_rounded_in_silence() -> None:
    tensors = {name: tensor.astype("float64") for name, tensor in torch_tensors().items()}
    with pytest.raises(ValueError, match="weight_ih_l0 is float64: set jax_enable_x64"):
        interop.from_torch(LSTM, tensors)


# Files. -------------------------------------------------------------------------------------------


def tree() -> Any:
    theta = Peephole(H).Theta({"p_i": jnp.ones((), jnp.bfloat16), "p_f": jnp.zeros((0, 3))})
    return {"one": params_of(LSTM, projected=True)._replace(theta=theta), "two": [jnp.arange(3)]}


def test_a_tree_comes_back_from_a_file_as_it_was(tmp_path: Path) -> None:
    interop.save_tensors(tmp_path / "a", tree())
    assert_same(interop.load_tree(tmp_path / "a", jax.eval_shape(tree)), tree())
    found = interop.load_tensors(tmp_path / "a")
    names = {"one.w_x", "one.w_h.0", "one.w_h.1", "one.b", "one.theta.p_i", "one.theta.p_f"}
    assert found.keys() == names | {"two.0"}
    assert found["one.theta.p_i"].shape == () and found["one.theta.p_i"].dtype == jnp.bfloat16
    with pytest.raises(FileExistsError):
        interop.save_tensors(tmp_path / "a", tree())
    torch = torch_tensors()
    interop.save_tensors(tmp_path / "b", torch)
    assert_same(interop.load_tensors(tmp_path / "b"), torch)


def test_a_file_cut_anywhere_is_refused_with_the_tensor_that_is_lost(tmp_path: Path) -> None:
    interop.save_tensors(tmp_path / "whole", tree())
    content = (tmp_path / "whole").read_bytes()
    template = jax.eval_shape(tree)
    assert len(content) > 700
    for length in [*range(0, len(content), 37), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut: .*tensor '(one|two)\.\S+' "):
            interop.load_tree(tmp_path / "cut", template)
        with pytest.raises(ValueError, match="cut short"):
            interop.load_tensors(tmp_path / "cut")


def test_a_file_of_another_tree_is_refused(tmp_path: Path) -> None:
    path, template = tmp_path / "a", {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    interop.save_tensors(path, template)
    for other, message in [
        (template | {"c": jnp.ones(3)}, "'c' is missing"),
        ({"w": template["w"]}, "'b' is unexpected"),
        (template | {"w": jnp.ones((3, 2))}, r"'w' must be \(3, 2\), got \(2, 3\)"),
        (template | {"b": jnp.ones(3, jnp.float16)}, "'b' must be float16, got float32"),
    ]:
        with pytest.raises(ValueError, match=f"a: tensor {message}"):
            interop.load_tree(path, other)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="no safetensors file"):
        interop.load_tensors(tmp_path / "a")


def test_the_library_imports_none_of_the_others() -> None:
    code = "import sys, lstm_jax.interop; print({'torch', 'keras'} & {*sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


# The page in the documentation. -------------------------------------------------------------------

PAGE = (ROOT / "docs/interop.md").read_text(encoding="utf-8")
MODULES = {
    **{f"torch.nn.{name}": layout for name, layout in layouts.TORCH.items()},
    **{f"keras.layers.{keras.CLASSES[name]}": layout for name, layout in layouts.KERAS.items()},
    **{f"onnx {name}": layout for name, layout in layouts.ONNX.items()},
    "flax.linen.LSTMCell, .OptimizedLSTMCell": layouts.LINEN["LSTM"],
    "flax.linen.GRUCell": layouts.LINEN["GRU"],
    "flax.linen.SimpleCell": layouts.LINEN["RNN"],
    "flax.nnx.OptimizedLSTMCell": layouts.NNX["LSTM"],
    "flax.nnx.LSTMCell": layouts.NNX_LSTM_CELL,
    "flax.nnx.GRUCell": layouts.NNX["GRU"],
    "flax.nnx.SimpleCell": layouts.NNX["RNN"],
}


def row(module: str) -> str:
    """The module's row in the table of the page."""
    columns = [
        ", ".join(
            f"`{tensor.name}`{' rows' * tensor.rows} {' '.join(tensor.blocks)}"
            for tensor in MODULES[module]
            if tensor.part == part
        )
        for part in ("w_x", "w_h", "b")
    ]
    return f"| {module} | {' | '.join(columns)} |"


@pytest.mark.parametrize("module", MODULES)
def test_the_page_tabulates_the_layouts(module: str) -> None:
    assert row(module) in PAGE.splitlines()


def program(block: int) -> Any:
    source = PAGE.split("```python\n")[1 + block].split("```")[0].replace("LSTM(64)", "LSTM(3)")
    return compile(source, "docs/interop.md", "exec")


def test_the_page_s_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layers = ((params_of(LSTM),),)
    tensors, loaded = interop.to_torch(LSTM, layers), {}
    module = types.SimpleNamespace(
        state_dict=lambda: {n: FakeTensor(a) for n, a in tensors.items()},
        load_state_dict=loaded.update,
    )
    names: dict[str, Any] = {
        "torch": types.SimpleNamespace(from_numpy=lambda array: array),
        "torch_lstm": module,
        "spec": SequenceSpec(LSTM, D, 2),
        "key": jax.random.key(0),
        "x": jnp.zeros((4, 3, D)),
        "mask": jnp.ones((4, 3), bool),
    }
    exec(program(0), names)
    assert_same(loaded, tensors)
    assert_same(interop.layers_of(LSTM, names["params"]), layers)


def test_the_page_s_program_takes_both_halves_of_a_keras_layer() -> None:
    ways = tuple(params_of(LSTM, seed) for seed in range(2))
    weights = [[*interop.to_keras(LSTM, params).values()] for params in ways]
    filled: list[Any] = []
    forward, backward = (
        types.SimpleNamespace(weights=one, set_weights=filled.append) for one in weights
    )
    names: dict[str, Any] = {
        "bidirectional": types.SimpleNamespace(forward_layer=forward, backward_layer=backward),
        "interop": interop, "cell": LSTM, "x": jnp.zeros((4, 3, D)),
    }  # fmt: skip
    exec(program(1), names)
    assert_same(names["layers"], (ways,))
    assert_same(filled, weights)
