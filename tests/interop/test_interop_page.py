"""The page on other libraries: its table is that of the layouts, and its programs run."""

import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lstm_jax import interop
from lstm_jax.interop import keras, layouts
from lstm_jax.nn import SequenceSpec
from tests.interop.weights import (
    LSTM,
    ROOT,
    D,
    FakeTensor,
    assert_same,
    params_of,
)

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
