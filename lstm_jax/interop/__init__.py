"""Weights of other libraries' layers, safetensors files, and whole models as directories.

The converters take other libraries' tensors and return dictionaries of arrays, and import none of
these libraries.
"""

from lstm_jax.interop import export as export
from lstm_jax.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from lstm_jax.interop.keras import from_keras, to_keras
from lstm_jax.interop.model_files import load_model, save_model
from lstm_jax.interop.networks import Layers, as_stack, layers_of, with_layers
from lstm_jax.interop.tensors import load_tensors, load_tree, save_tensors
from lstm_jax.interop.torch import from_torch, to_torch

__all__ = [
    "Layers",
    "as_stack",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "layers_of",
    "load_model",
    "load_tensors",
    "load_tree",
    "save_model",
    "save_tensors",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
    "with_layers",
]
