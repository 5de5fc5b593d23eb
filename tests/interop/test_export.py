"""Exported models equal ours: ONNX in onnxruntime, StableHLO in a process without lstm_jax."""

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.interop.checking import named
from lstm_jax.nn import SequenceSpec
from lstm_jax.training.predictor import Predictor
from tests.interop.weights import random_params
from tests.processes import run
from tests.products import mostly_slow

T, B, D, H, V = 6, 4, 3, 5, 2
LENGTHS = np.array([6, 2, 0, 4], np.int32)
VALID = np.arange(T)[:, None] < LENGTHS
# A stream in which rows hold their state and start anew, each at time steps of its own.
HELD = np.random.default_rng(0).random((T, B)) < 0.7
RESET = np.random.default_rng(1).random((T, B)) < 0.3
RESET[0] = True


def spec_of(cell: lj.Cell, **options: Any) -> SequenceSpec:
    sizes = {"output_size": V} | ({"front_width": 4} if "front" in options else {})
    return SequenceSpec(cell, D, engine="reference", **{**sizes, **options})


ODYSSEY = {
    f"odyssey {name}": spec_of(cells.odyssey(name, H), readout="every")
    for name in ("vanilla", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP")
}
SPECS = {
    "lstm, stack": spec_of(cells.LSTM(H), depth=2),
    "gru, every": spec_of(cells.GRU(H), readout="every"),
    "tanh, dense": spec_of(cells.RNN(H), front="dense"),
    "relu, embed": spec_of(cells.RNN(H, "relu"), front="embed", readout="every"),
    "tied": spec_of(cells.RNN(H), front="embed", front_width=H, output_size=D, tied=True),
    "projection": spec_of(cells.LSTM(H), projection=2, learn_initial=True, depth=2),
    "peephole, learned": spec_of(cells.PeepholeLSTM(H), learn_initial=True, front="embed"),
}
BOTH_WAYS = {
    "lstm, both ways": spec_of(cells.LSTM(H), bidirectional=True, learn_initial=True, depth=2),
    "gru, both ways": spec_of(cells.GRU(H), bidirectional=True, front="embed"),
    "relu, both ways": spec_of(cells.RNN(H, "relu"), bidirectional=True, readout="every"),
    "peephole, both ways": spec_of(cells.odyssey("CIFG", H), bidirectional=True, front="dense"),
    "projection, both ways": spec_of(
        cells.LSTM(H), bidirectional=True, projection=2, depth=2, readout="every"
    ),
}

QUICK = [{*SPECS, *list(ODYSSEY)[n::2]} for n in range(2)]  # each variant as sequence or as step


def inputs(spec: SequenceSpec, valid: np.ndarray) -> np.ndarray:
    """Returns an input that is NaN where masked."""
    rng = np.random.default_rng(2)
    if spec.front == "embed":
        return rng.integers(0, D, (T, B)).astype("int32")
    x = rng.normal(size=(T, B, D))
    return np.where(valid[..., None], x, np.nan).astype(spec.dtype)


def assert_close(found: Any, expected: Any) -> None:
    def close(a, b):
        a, b = (np.asarray(array, np.float32) for array in (a, b))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.abs(b).max()))

    jax.tree.map(close, found, expected)


def stream(spec: SequenceSpec, params: Any) -> tuple[dict[str, Any], Any]:
    """Returns the final states by name and the outputs of a stream, zero where masked."""
    every = dataclasses.replace(spec, readout="every")
    x = inputs(spec, HELD)
    final, y = jax.jit(lambda: every.unroll(params, x, mask=HELD, reset=RESET))()
    return named(final), np.where(HELD[..., None], y, 0)


# ONNX. --------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """Returns a function that exports a model and loads it in onnxruntime."""
    runtime = pytest.importorskip("onnxruntime")

    def load(export, model: Any, file: str = "model.onnx") -> Any:
        export(model, tmp_path / file)
        return runtime.InferenceSession(tmp_path / file)

    return load


@pytest.mark.parametrize("name", mostly_slow(SPECS | ODYSSEY | BOTH_WAYS, {*QUICK[0], *BOTH_WAYS}))
def test_onnx_of_ragged_sequences_equals_ours(name: str, session: Any) -> None:
    spec = (SPECS | ODYSSEY | BOTH_WAYS)[name]
    params, x = random_params(spec), inputs(spec, VALID)
    answer = session(lj.export.onnx, (spec, params)).run
    expected = jax.jit(lambda: spec.apply(params, x, mask=VALID))()
    (y,) = answer(["y"], {"x": x, "lengths": LENGTHS})
    assert_close(y, expected)
    # T and B are free: rows alone, with less padding.
    (part,) = answer(["y"], {"x": x[:4, 1:], "lengths": LENGTHS[1:]})
    assert_close(part, y[1:] if spec.readout == "last" else y[:4, 1:])


@pytest.mark.parametrize("name", mostly_slow(SPECS | ODYSSEY, QUICK[1]))
def test_onnx_of_one_time_step_equals_ours(name: str, session: Any) -> None:
    spec = (SPECS | ODYSSEY)[name]
    params, x = random_params(spec), inputs(spec, HELD)
    step = session(lj.export.onnx_step, (spec, params))
    *names, last = (output.name.removeprefix("next.") for output in step.get_outputs())
    assert last == "y"
    # What a state is before a reset has no effect.
    found, y = dict.fromkeys(names, np.full((B, H), np.inf, "float32")), []
    for t in range(T):
        given = {"x": x[t], "mask": HELD[t], "reset": RESET[t]}
        given |= {f"state.{name}": state for name, state in found.items()}
        *after, y_t = step.run(None, given)
        found = dict(zip(names, after, strict=True))
        y.append(np.where(HELD[t][:, None], y_t, 0))
    assert_close((found, np.stack(y)), stream(spec, params))


@dataclasses.dataclass(frozen=True)
class Own(cells.LSTM):
    """A subclass may have equations of its own."""


REFUSED = {
    "LayerNormLSTM": (cells.LayerNormLSTM(H), {}),
    "Zoneout": (cells.Zoneout(cells.LSTM(H), {"h": 0.1}), {}),
    "Own": (Own(H), {}),
    "clip=3.0": (cells.PeepholeLSTM(H, clip=3.0), {}),
    "gate_recurrence=True": (cells.odyssey("FGR", H), {}),
    "dtype must be float32 for ONNX, got bfloat16": (cells.LSTM(H), {"dtype": "bfloat16"}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_onnx_cannot_say_is_refused_by_name(words: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    cell, options = REFUSED[words]
    spec = spec_of(cell, **options)
    for export in (lj.export.onnx, lj.export.onnx_step):
        with pytest.raises(ValueError, match=words):
            export((spec, random_params(spec)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_bidirectional_step_and_what_is_no_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    spec, file = BOTH_WAYS["gru, both ways"], tmp_path / "model.onnx"
    params = random_params(spec)
    with pytest.raises(ValueError, match=r"bidirectional model .* cannot stream"):
        lj.export.onnx_step((spec, params), file)
    for export in (lj.export.onnx, lj.export.stablehlo):
        with pytest.raises(TypeError, match=r"model must be a pair \(spec, params\)"):
            export(spec, file)
        with pytest.raises(ValueError, match=r"'head\.bias' is missing"):
            export((spec, {**params, "head": {}}), file)
    lj.export.onnx((spec, params), file)
    with pytest.raises(FileExistsError, match="exists, and a model is never overwritten"):
        lj.export.onnx((spec, params), file)


def trained(missing: Any = "mask", networks: int = 1) -> Predictor:
    """Returns networks for a task over data in units of their own, some of them missing."""
    x = 5 + 3 * np.random.default_rng(3).normal(size=(B, T, D))
    x[0, 0, 2] = np.nan
    data = lj.data.Sequences(x, ["cat", "dog"] * 2, missing=missing)
    task = lj.tasks.Classification(lj.data.Split(data))
    spec = SequenceSpec(cells.LSTM(H), task.input_size, task.output_size, engine="reference")
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * networks), random_params(spec))
    return Predictor(task, spec, params, lj.make_trials())


def test_a_trained_network_takes_inputs_in_the_units_of_its_data(
    session: Any, tmp_path: Path
) -> None:
    best: Any = trained()
    arrays, params = best.task.arrays(), jax.tree.map(lambda leaf: leaf[0], best.params)
    x = np.swapaxes(arrays["x"], 0, 1)
    scaled = best.task.batch(arrays, jnp.arange(B), jnp.ones(B)).x
    first, y = (best.model.apply(params, scaled[:end]) for end in (1, T))

    lengths = np.full(B, T, np.int32)
    (found,) = session(lj.export.onnx, best).run(["y"], {"x": x, "lengths": lengths})
    assert_close(found, y)
    always, zeros = np.ones(B, bool), {name: np.zeros((B, H), "float32") for name in ("0.h", "0.c")}
    start = {f"state.{name}": state for name, state in zeros.items()}
    step = session(lj.export.onnx_step, best, "step.onnx")
    (found,) = step.run(["y"], {"x": x[0], "mask": always, "reset": always, **start})
    assert_close(found, first)

    lj.export.stablehlo(best, tmp_path / "programs")
    sequence, step = (
        jax.export.deserialize(bytearray((tmp_path / "programs" / name).read_bytes()))
        for name in ("sequence.jax", "step.jax")
    )
    assert_close(sequence.call(x=x, mask=np.ones((T, B), bool))["y"], y)
    found = step.call(x=x[0], mask=always, reset=always, state=zeros)["y"]
    assert_close(found, first)


def with_gaps(readout: Any, bidirectional: bool) -> tuple[Predictor, np.ndarray]:
    """Returns a network of numbers, and rows [B, T, D] with missing numbers and time steps."""
    x = 5 + 3 * np.random.default_rng(4).normal(size=(B, T, D)).astype("float32")
    x[np.random.default_rng(5).random((B, T)) < 0.4] = np.nan
    x[:, 3, 0], x[0, 1, 2] = 1, np.nan  # each row has a number
    kind, y = lj.tasks.Regression, np.arange(B)
    if readout == "every":
        kind, y = lj.tasks.Labelling, np.random.default_rng(6).random((B, T))
    task = kind(lj.data.Split(lj.data.Sequences(x, y)))
    spec = SequenceSpec(
        cells.GRU(H), D, 1, readout, engine="reference", bidirectional=bidirectional, depth=2
    )
    params = jax.tree.map(lambda leaf: leaf[None], random_params(spec))
    return Predictor(task, spec, params, lj.make_trials()), x


@pytest.mark.parametrize(
    ("readout", "bidirectional"),
    mostly_slow(
        itertools.product(["last", "every"], [False, True]), [("last", False), ("every", True)]
    ),
)
def test_sequences_with_gaps_have_the_answers_of_predict(
    readout: Any, bidirectional: bool, session: Any, tmp_path: Path
) -> None:
    best, x = with_gaps(readout, bidirectional)
    lengths, first = np.array([6, 4, 5, 6], np.int32), np.swapaxes(x, 0, 1)
    wanted = best.predict(x, lengths=lengths)
    lj.export.stablehlo(best, tmp_path / "programs")
    program = (tmp_path / "programs" / "sequence.jax").read_bytes()
    sequence = jax.export.deserialize(bytearray(program))
    (found,) = session(lj.export.onnx, best).run(["y"], {"x": first, "lengths": lengths})
    for y in (found, sequence.call(x=first, mask=np.arange(T)[:, None] < lengths)["y"]):
        answers = best.task.decode(np.asarray(y))
        for row, expected in zip(answers, wanted, strict=True):
            row = row if readout == "last" else row[: len(expected)]
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_steps_with_gaps_have_the_answers_of_a_stream(session: Any, tmp_path: Path) -> None:
    best, x = with_gaps("last", False)
    lj.export.stablehlo(best, tmp_path / "programs")
    program = jax.export.deserialize(bytearray((tmp_path / "programs/step.jax").read_bytes()))
    step, stream = session(lj.export.onnx_step, best, "step.onnx"), best.stream(batch=B)
    names = [f"{depth}.h" for depth in (0, 1)]
    ours = theirs = {name: np.zeros((B, H), "float32") for name in names}
    for t in range(T):
        given = {"x": x[:, t], "mask": np.ones(B, bool), "reset": np.full(B, t == 0)}
        result = program.call(**given, state=ours)
        before = {f"state.{name}": theirs[name] for name in names}
        y, *after = step.run(["y", *(f"next.{name}" for name in names)], given | before)
        ours, theirs = result["state"], dict(zip(names, after, strict=True))
        assert_close(theirs, ours)
        wanted, some = stream(x[:, t]), ~np.isnan(x[:, t]).all(-1)
        for outputs in (y, result["y"]):
            answers = best.task.decode(np.asarray(outputs))
            np.testing.assert_allclose(answers[some], wanted[some], rtol=1e-5, atol=1e-5)


def test_several_networks_and_inputs_beside_those_of_the_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one network, such as `result.best\(\)`, got 2"):
        lj.export.stablehlo(trained(networks=2), tmp_path / "new")
    with pytest.raises(ValueError, match="inputs of the 3 features of its data alone, got 6"):
        lj.export.stablehlo(trained("indicator"), tmp_path / "new")
    series = lj.data.Series([np.arange(20.0)])
    forecast = lj.tasks.Forecast(series.split(2), context=3)
    network = trained()
    network.task = forecast
    with pytest.raises(ValueError, match="a Forecast scales each window by itself"):
        lj.export.stablehlo(network, tmp_path / "new")


def test_without_onnx_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    spec = SPECS["lstm, stack"]
    with pytest.raises(ImportError, match=r"lstm_jax\[export\]"):
        lj.export.onnx((spec, random_params(spec)), tmp_path / "model.onnx")


# StableHLO. ---------------------------------------------------------------------------------------

PROGRAMS = {
    "zoneout": spec_of(
        cells.Zoneout(cells.LSTM(H), {"h": 0.1, "c": 0.5}), depth=2, learn_initial=True
    ),
    "bfloat16": spec_of(cells.GRU(H), front="embed", readout="every", dtype="bfloat16"),
    "projection": BOTH_WAYS["projection, both ways"],
    "checked": spec_of(cells.LayerNormLSTM(H), front="dense", checked=True),
}
# Runs the README of each directory as it is written.
READER = """
import os, re, sys
import numpy as np

sys.modules["lstm_jax"] = None
for directory in sys.argv[1:]:
    os.chdir(directory)
    given = np.load("given.npz")
    sequence, *step = re.findall(r"```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    names = {"x": given["x"], "mask": given["valid"], "B": given["x"].shape[1]}
    exec(sequence, names)
    found = {"y": names["y"]}
    if step:
        start, call = step[0].split("result = ")
        exec(start, names)
        y = []
        for x_t, mask_t, reset in zip(given["x_t"], given["held"], given["reset"]):
            names |= {"x_t": x_t, "mask_t": mask_t, "reset": reset}
            exec("result = " + call, names)
            y.append(np.where(mask_t[:, None], names["y_t"], 0))
        found |= {"stream": np.stack(y), **names["state"]}
    np.savez("found.npz", **{name: np.asarray(a, np.float32) for name, a in found.items()})
"""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports every model of `PROGRAMS` and runs it in a process without lstm_jax."""
    root = tmp_path_factory.mktemp("programs")
    for name, spec in PROGRAMS.items():
        lj.export.stablehlo((spec, random_params(spec)), root / name)
        given = {"x": inputs(spec, VALID), "valid": VALID}
        given |= {"x_t": inputs(spec, HELD), "held": HELD, "reset": RESET}
        np.savez(root / name / "given.npz", **given)
    command = [sys.executable, "-c", READER, *(str(root / name) for name in PROGRAMS)]
    done = run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_without_lstm_jax_equal_ours(name: str, directories: Path) -> None:
    spec = dataclasses.replace(PROGRAMS[name], checked=False)
    params, found = random_params(spec), dict(np.load(directories / name / "found.npz"))
    x = inputs(spec, VALID)
    assert_close(found.pop("y"), jax.jit(lambda: spec.apply(params, x, mask=VALID))())
    if not spec.bidirectional:
        states, y = stream(spec, params)
        assert_close((found.pop("stream"), found), (y, states))
    assert (directories / name / "step.jax").exists() == (not spec.bidirectional)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_manifest_describes_the_programs(name: str, directories: Path) -> None:
    manifest = json.loads((directories / name / "manifest.json").read_text())
    for described in manifest["programs"].values():
        content = (directories / name / described["file"]).read_bytes()
        program = jax.export.deserialize(bytearray(content))
        assert list(program.platforms) == manifest["platforms"] == ["cpu", "cuda", "tpu"]
        arrays = jax.tree.leaves(described["inputs"], is_leaf=lambda tree: "dtype" in tree)
        found = [(list(map(str, a.shape)), str(a.dtype)) for a in program.in_avals]
        assert [(list(map(str, a["shape"])), a["dtype"]) for a in arrays] == found


def test_a_directory_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = PROGRAMS["bfloat16"], random_params(PROGRAMS["bfloat16"])
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        lj.export.stablehlo(model, tmp_path / "there")
    monkeypatch.setattr(json, "dumps", None)
    with pytest.raises(TypeError):
        lj.export.stablehlo(model, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
