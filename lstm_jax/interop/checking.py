"""Checks of other libraries' tensors; messages name the first fault."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.types import Array


def arrays(source: str, tensors: Mapping[str, Any]) -> dict[str, Array | np.ndarray]:
    """Returns another library's tensors as arrays: JAX's as they are, all others as NumPy's.

    Raises:
      ValueError: naming the first tensor that cannot be read or does not hold floats.
    """
    return {name: _array(f"{source}: tensor {name!r}", tensors[name]) for name in tensors}


def _array(at: str, tensor: Any) -> Array | np.ndarray:
    try:
        array = tensor if isinstance(tensor, jax.Array) else _numpy(tensor)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{at} cannot be read: {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{at} must hold floats, got {array.dtype}")
    return array


def _numpy(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):  # torch's: numpy() lacks bfloat16, a double holds any float
        dtype = jnp.dtype(str(tensor.dtype).removeprefix("torch."))
        return tensor.detach().cpu().double().numpy().astype(dtype)
    array = np.asarray(tensor)
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # JAX takes no other byte order


def check(source: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Asserts that `found` has the tensors of `wanted`, by name, shape and dtype, and no others.

    Raises:
      ValueError: naming the first tensor that is missing, misshaped, of another dtype, or, where
        none is, unexpected.
    """
    for name, want in wanted.items():
        if name not in found:
            raise ValueError(f"{source}: tensor {name!r} is missing")
        got = found[name]
        if got.shape != want.shape:
            raise ValueError(f"{source}: tensor {name!r} must be {want.shape}, got {got.shape}")
        if got.dtype != want.dtype:
            raise ValueError(f"{source}: tensor {name!r} must be {want.dtype}, got {got.dtype}")
    for name in found:
        if name not in wanted:
            raise ValueError(f"{source}: tensor {name!r} is unexpected")


def exact(name: str, value: Any) -> Array:
    """Returns `value` as a JAX array of its own dtype.

    Raises:
      ValueError: JAX would round it, as it does float64 by default.
    """
    if jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype:
        raise ValueError(f"{name} is {value.dtype}: set jax_enable_x64, or JAX rounds it")
    return jnp.asarray(value)


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths in it, such as "stack.layers.0.w_x"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
