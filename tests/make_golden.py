"""Makes golden.npz, what torch and Keras compute on small layers: python -m tests.make_golden.

It needs both libraries (`pip install 'lstm_jax[rivals]'`); the tests that read the file do not.
"""

import importlib
import os
from pathlib import Path

import jax
import numpy as np

from tests.peers import GOLDEN, numbers, tensors_of, theirs, torch_module

PATH = Path(__file__).with_name("golden.npz")


def torch_arrays() -> dict[str, np.ndarray]:
    """Tensors, results and gradients of every golden case, in float64."""
    torch, arrays = importlib.import_module("torch"), {}
    for name, case in GOLDEN.items():
        module = torch_module(torch, case, "float64")
        arrays |= {f"{name}/tensors/{key}": value for key, value in tensors_of(module).items()}
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            theirs(torch, case, module, "float64")
        ):
            arrays[f"{name}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = leaf
    return arrays


def keras_arrays() -> dict[str, np.ndarray]:
    """Weights and outputs [B, T, H] of Keras's LSTM and GRU on one input, in float32."""
    os.environ["KERAS_BACKEND"] = "jax"
    layers, x = importlib.import_module("keras").layers, numbers(0, 3, 5, 2).astype("float32")
    arrays = {"keras/x": x}
    for name, layer in {
        "LSTM": layers.LSTM(3, return_sequences=True),
        "GRU": layers.GRU(3, return_sequences=True),
    }.items():
        layer.build(x.shape)
        layer.set_weights([numbers(i, *w.shape) for i, w in enumerate(layer.weights)])
        arrays |= {f"keras/{name}/{w.name}": np.asarray(w.value) for w in layer.weights}
        arrays[f"keras/{name}/h"] = np.asarray(layer(x))
    return arrays


if __name__ == "__main__":
    np.savez_compressed(PATH, allow_pickle=False, **torch_arrays(), **keras_arrays())
    print(f"{PATH}: {PATH.stat().st_size} bytes")
