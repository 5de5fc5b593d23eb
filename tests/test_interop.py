"""Weights in and out: exact round trips, golden numbers of other libraries, files, errors."""

import dataclasses
import json
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
from cells_under_test import CIFG, Peephole
from flax import linen, nnx
from peers import GOLDEN, assert_equal, numbers, ours

import lstm_jax as lj
from lstm_jax import cells, interop
from lstm_jax.initializers import chrono, gate_bias, identity, torch_uniform
from lstm_jax.interop import layouts
from lstm_jax.interop.architecture import decode, encode, registry
from lstm_jax.interop.checking import named
from lstm_jax.layers import SequenceSpec
from lstm_jax.types import CellParams

D, H, p = 2, 3, 2
LSTM, GRU, RNN = cells.LSTM(H), cells.GRU(H), cells.RNN(H, "relu")
ROOT = Path(__file__).parent.parent


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
    if cell != RNN:
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


@pytest.mark.parametrize(("cell", "projection"), [(GRU, None), (LSTM, p)])
def test_layers_within_a_model_equal_layers_apart(cell: lj.Cell, projection: int | None) -> None:
    spec = SequenceSpec(
        cell, D, 2, readout="every", depth=2, bidirectional=True, engine="reference",
        projection=projection,
    )  # fmt: skip
    layers = layers_of_two(cell, projected=bool(projection))
    params = interop.with_layers(random_params(spec), layers)
    assert jax.tree.structure(params) == jax.tree.structure(random_params(spec))
    assert_same(interop.layers_of(cell, params), layers)
    x: Any = numbers(0, 4, 3, D).astype("float32")
    mask: Any = np.arange(4)[:, None] < [4, 1, 2]

    @jax.jit
    def both(params, layers):
        zeros = lj.initial_state(cell, (3,))
        start = ((zeros._replace(h=zeros.h + 1), zeros), (zeros, zeros._replace(h=zeros.h - 1)))
        stack = spec.build(nnx.Rngs(0)).stack
        graph = nnx.graphdef(stack)
        return (
            nnx.merge(graph, params["stack"])(x, start, mask=mask),
            interop.unroll_layers(cell, layers, x, start, mask=mask, engine="reference"),
        )

    found, expected = both(params, layers)
    assert_equal(found, expected, 1e-6)


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
    with pytest.raises(TypeError, match=r"cell must be LSTM\(hidden=3\) or .*, got CIFG"):
        interop.from_torch(CIFG(H), torch_tensors())
    with pytest.raises(TypeError, match=r"cell must be LSTM\(hidden=3\) or GRU\(hidden=3\), got"):
        interop.to_keras(RNN, params_of(RNN))
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


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"lstm_jax\[interop\]"):
        interop.save_tensors(tmp_path / "a", tree())


def test_the_library_imports_none_of_the_others() -> None:
    code = "import sys, lstm_jax.interop; print({'torch', 'keras', 'safetensors'} & {*sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


# Models. ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Wrapped(lj.Cell):
    """A cell of a user's that is made of another, with fields of every kind."""

    inner: lj.Cell = LSTM
    clip: float = float("inf")
    words: tuple[str, ...] = ("a", "b")
    function: Any = None


SPECS = [
    SequenceSpec(LSTM, D, 2),
    SequenceSpec(
        RNN, 7, 2, "every", 2, True, "embed", 4, torch_uniform(H), identity(0.5),
        gate_bias(h=-1.0), True, lj.engines.Scan(product="hoisted", chunk=4), "bfloat16", 2,
    ),
    SequenceSpec(Wrapped(H), D, 2, b=chrono(30), engine=lj.engines.Reference()),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_description_comes_back_equal_from_json(spec: SequenceSpec) -> None:
    content = json.loads(json.dumps(encode(spec), allow_nan=False))
    found = decode(content, registry([Wrapped]))
    assert found == spec and repr(found) == repr(spec)


def test_every_cell_of_the_library_comes_back_from_json() -> None:
    named = (getattr(cells, name) for name in cells.__all__)
    for cell in (c for c in named if isinstance(c, type) and issubclass(c, lj.Cell)):
        required = [f.name for f in dataclasses.fields(cell) if f.default is dataclasses.MISSING]
        if required == ["hidden"]:
            assert decode(encode(cell(4)), registry([])) == cell(4)


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match=r"spec.cell.function must be .* got <built-in function"):
        encode(SequenceSpec(Wrapped(H, function=len), D, 2))
    double = dataclasses.make_dataclass("GRU", [], bases=(CIFG,), frozen=True)
    with pytest.raises(ValueError, match="a second GRU"):
        encode(double(H))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["cell"].update({"class": "Strange"}), r"spec.cell is a Strange.*`classes`"),
        (lambda c: c["cell"].pop("hidden"), "spec.cell, a LSTM, lacks field 'hidden'"),
        (lambda c: c.update(width=3), "spec, a SequenceSpec, has an unknown field 'width'"),
    ],
)
def test_a_description_that_is_not_understood_is_refused(change: Any, message: str) -> None:
    content = encode(SPECS[0])
    change(content)
    with pytest.raises(ValueError, match=message):
        decode(content, registry([]))


SMALL = SequenceSpec(CIFG(H), D, 2, b=gate_bias(f=2.0), learn_initial=True, engine="reference")

FRESH = """
import sys; sys.path.insert(0, "tests")
import jax, jax.numpy as jnp, numpy as np
from cells_under_test import CIFG
from lstm_jax.interop import load_model
spec, params = load_model(sys.argv[1], classes=[CIFG])
x = jnp.linspace(-1, 1, 24).reshape(4, 3, 2)
print(repr(spec)); print(np.asarray(spec.apply(params, x)).tobytes().hex())
"""


def random_params(spec: SequenceSpec) -> Any:
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    drawn = [jnp.asarray(numbers(i, *s.shape), s.dtype) for i, s in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def test_a_fresh_process_loads_a_model(tmp_path: Path) -> None:
    params = random_params(SMALL)
    interop.save_model(tmp_path / "a" / "model", SMALL, params)
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["model"]  # no draft stays behind
    spec, found = interop.load_model(tmp_path / "a" / "model", classes=[CIFG])
    assert spec == SMALL
    assert_same(found, params)
    run = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "a" / "model")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    description, outputs = run.stdout.splitlines()
    x = jnp.linspace(-1, 1, 24).reshape(4, 3, 2)
    assert description == repr(SMALL)
    assert outputs == np.asarray(SMALL.apply(params, x)).tobytes().hex()


def test_a_model_is_never_overwritten(tmp_path: Path) -> None:
    params = random_params(SMALL)
    interop.save_model(tmp_path / "model", SMALL, params)
    before = {f: f.read_bytes() for f in (tmp_path / "model").iterdir()}
    with pytest.raises(FileExistsError, match="never overwritten"):
        interop.save_model(tmp_path / "model", SMALL, jax.tree.map(jnp.zeros_like, params))
    assert {f: f.read_bytes() for f in (tmp_path / "model").iterdir()} == before


def test_parameters_that_are_not_the_models_are_not_saved(tmp_path: Path) -> None:
    params = random_params(SMALL)
    many = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    with pytest.raises(
        ValueError, match=r"params: tensor 'head.bias' must be \(2,\), got \(2, 2\)"
    ):
        interop.save_model(tmp_path / "model", SMALL, many)
    with pytest.raises(ValueError, match=r"params: tensor 'head\.bias' is missing"):
        interop.save_model(tmp_path / "model", SMALL, {"stack": params["stack"]})
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="disk is full"):
        interop.save_model(tmp_path / "model", SMALL, random_params(SMALL))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    interop.save_model(tmp_path / "model", SMALL, random_params(SMALL))
    weights, words = (
        tmp_path / "model" / f for f in ("parameters.safetensors", "architecture.json")
    )
    whole, text = weights.read_bytes(), words.read_text()
    with pytest.raises(ValueError, match=r"spec.cell is a CIFG, which is unknown here"):
        interop.load_model(tmp_path / "model")
    weights.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"tensor 'stack.layers.0.w_x' is missing or not whole"):
        interop.load_model(tmp_path / "model", classes=[CIFG])
    weights.write_bytes(whole)
    words.write_text(text.replace('"hidden": 3', '"hidden": 4'))
    with pytest.raises(ValueError, match=r"'head.kernel' must be \(4, 2\), got \(3, 2\)"):
        interop.load_model(tmp_path / "model", classes=[CIFG])
    words.write_text(text[:-9])
    with pytest.raises(ValueError, match=r"architecture.json is not whole"):
        interop.load_model(tmp_path / "model", classes=[CIFG])
    words.write_text(text.replace("version 3", "version 2"))
    with pytest.raises(ValueError, match=r"must have the format 'lstm_jax model, version 3'"):
        interop.load_model(tmp_path / "model", classes=[CIFG])


def test_a_model_of_doubles_asks_for_doubles(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPECS[0], dtype="float64")
    with jax.enable_x64(True):
        interop.save_model(tmp_path / "model", spec, random_params(spec))
    with pytest.raises(ValueError, match="float64: set jax_enable_x64"):
        interop.load_model(tmp_path / "model")


# The page in the documentation. -------------------------------------------------------------------

PAGE = (ROOT / "docs/interop.md").read_text(encoding="utf-8")
MODULES = {
    **{f"torch.nn.{name}": layout for name, layout in layouts.TORCH.items()},
    **{f"keras.layers.{name}": layout for name, layout in layouts.KERAS.items()},
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


class FakeTensor(NamedTuple):
    array: np.ndarray

    def numpy(self) -> np.ndarray:
        return self.array


def test_the_page_s_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = PAGE.split("```python\n")[1].split("```")[0].replace("LSTM(64)", "LSTM(3)")
    layers = ((params_of(LSTM),),)
    tensors = {n: FakeTensor(a) for n, a in interop.to_torch(LSTM, layers).items()}
    names: dict[str, Any] = {
        "torch_lstm": types.SimpleNamespace(state_dict=lambda: tensors),
        "spec": SequenceSpec(LSTM, D, 2),
        "key": jax.random.key(0),
        "x": jnp.zeros((4, 3, D)),
        "mask": jnp.ones((4, 3), bool),
    }
    exec(compile(source, "docs/interop.md", "exec"), names)
    assert_same(names["state"], {name: tensor.array for name, tensor in tensors.items()})
    assert_same(interop.layers_of(LSTM, names["params"]), layers)
