"""Models in files: descriptions as JSON, whole directories, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import lstm_jax as lj
from lstm_jax import cells, interop
from lstm_jax.interop.architecture import decode, encode, registry
from lstm_jax.nn import SequenceSpec
from lstm_jax.nn.initializers import chrono, gate_bias, identity, torch_uniform
from tests.cells_under_test import CIFG
from tests.interop.weights import LSTM, RNN, D, H, assert_same, random_params


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
    SequenceSpec(RNN, 7, 7, "every", front="embed", front_width=H, tied=True),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_description_comes_back_equal_from_json(spec: SequenceSpec) -> None:
    content = json.loads(json.dumps(encode(spec), allow_nan=False))
    found = decode(content, registry([Wrapped]))
    assert found == spec and repr(found) == repr(spec)


def test_a_field_that_an_older_description_lacks_has_its_default() -> None:
    content = encode(SPECS[0])
    del content["tied"]
    assert decode(content, registry([])) == SPECS[0]


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


def test_a_model_comes_back_from_its_directory(tmp_path: Path) -> None:
    params = random_params(SMALL)
    interop.save_model(tmp_path / "a" / "model", SMALL, params)
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["model"]  # no draft stays behind
    spec, found = interop.load_model(tmp_path / "a" / "model", classes=[CIFG])
    assert spec == SMALL
    assert_same(found, params)


def test_a_model_is_never_overwritten(tmp_path: Path) -> None:
    params = random_params(SMALL)
    interop.save_model(tmp_path / "model", SMALL, params)
    before = {f: f.read_bytes() for f in (tmp_path / "model").iterdir()}
    with pytest.raises(FileExistsError, match="never overwritten"):
        interop.save_model(tmp_path / "model", SMALL, jax.tree.map(jnp.zeros_like, params))
    assert {f: f.read_bytes() for f in (tmp_path / "model").iterdir()} == before
    with pytest.raises(FileNotFoundError, match=r"a network, which lj\.interop\.load_model loads"):
        lj.load(tmp_path / "model")


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
    words.write_text(text.replace("version 4", "version 2"))
    with pytest.raises(ValueError, match=r"must have the format 'lstm_jax model, version 4'"):
        interop.load_model(tmp_path / "model", classes=[CIFG])


def edited(**fields: Any) -> Any:
    return encode(SMALL) | fields


def zoned(depth: int) -> Any:
    cell = {"class": "LSTM", "hidden": 3}
    for _ in range(depth):
        cell = {"class": "Zoneout", "cell": cell, "rates": []}
    return cell


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "spec must be a SequenceSpec, got None"),
        (encode(LSTM), r"spec must be a SequenceSpec, got LSTM\(hidden=3\)"),
        (edited(cell=None), r"spec cannot be made: cell must be a cell"),
        (edited(engine="warp"), r"spec cannot be made: engine must be one of .* got 'warp'"),
        (edited(engine=None), r"spec cannot be made: engine must be one of .* got None"),
        (edited(cell=zoned(2)), r"spec\.cell cannot be made: cell must not be a Zoneout itself"),
        (edited(cell=zoned(100)), "spec must not be nested more than 32 deep"),
        (edited(cell={"class": ["LSTM"]}), r"spec\.cell is a \['LSTM'\], which is unknown here"),
        (edited(cell={"class": "LSTM", "hidden": "3"}), r"spec\.cell cannot be made: hidden must"),
        (edited(depth=300), "spec.depth must be 1, as in the parameters, got 300"),
        (edited(depth="1"), "spec cannot be made: depth must be an integer of at least 1, got '1'"),
        (edited(dtype={"dtype": "floaty"}), r"spec\.dtype cannot be made: data type 'floaty'"),
        (edited(b={"class": "gate_bias", "values": 3}), r"spec\.b cannot be made"),
        (edited(w_x=5), "w_x must be an initialiser"),
    ],
)
def test_a_description_of_no_model_is_refused_in_one_line(
    tmp_path: Path, spec: Any, message: str
) -> None:
    interop.save_model(tmp_path / "model", SMALL, random_params(SMALL))
    words = tmp_path / "model" / "architecture.json"
    words.write_text(json.dumps(json.loads(words.read_text()) | {"spec": spec}))
    with pytest.raises(ValueError, match=rf"^\S*architecture\.json cannot be used: .*{message}.*$"):
        interop.load_model(tmp_path / "model", classes=[CIFG])


def test_a_description_nested_without_end_is_refused(tmp_path: Path) -> None:
    interop.save_model(tmp_path / "model", SMALL, random_params(SMALL))
    (tmp_path / "model" / "architecture.json").write_text(10**5 * "[" + 10**5 * "]")
    with pytest.raises(ValueError, match=r"architecture\.json is nested too deeply"):
        interop.load_model(tmp_path / "model")


def test_a_model_of_doubles_asks_for_doubles(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPECS[0], dtype="float64")
    with jax.enable_x64(True):
        interop.save_model(tmp_path / "model", spec, random_params(spec))
    with pytest.raises(ValueError, match="float64: set jax_enable_x64"):
        interop.load_model(tmp_path / "model")
