"""Trees of arrays as safetensors files: a header of names, shapes and dtypes, then bytes, no code.

A leaf is named by its path in the tree, joined by dots. `CellParams` have `w_x`, `w_h` (a pair has
`w_h.0` and `w_h.1`), `b` and `theta.p_i`. In a list of layers, `0.1.w_x` belongs to the second
direction of the lowest layer; in a model, the name is `stack.layers.0.w_x`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

from lstm_jax.interop.checking import check, exact, named

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64",
}  # fmt: skip


def save_tensors(path: str | os.PathLike, tree: Any) -> None:
    """Writes a tree of arrays as a safetensors file.

    Raises:
      FileExistsError: the file exists.
    """
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named(tree).items()}
    with open(path, "xb") as file:
        file.write(save(arrays))
        file.flush()
        os.fsync(file.fileno())


def load_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a safetensors file: its arrays by name.

    Raises:
      ValueError: the file is cut short or is no safetensors file; the first tensor that is not
        whole is named.
    """
    return _read(Path(path), {})


def load_tree(path: str | os.PathLike, template: Any) -> Any:
    """Reads a tree of JAX arrays that `save_tensors` wrote.

    Args:
      path: the file.
      template: a tree of the same structure, its leaves arrays, or what has their shapes and
        dtypes.

    Raises:
      ValueError: the file is cut short or is no safetensors file, or a tensor is missing,
        unexpected or of another shape or dtype: the first is named.
    """
    return fill(str(path), template, _read(Path(path), named(template)))


def fill(source: str, template: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    """Returns a tree like `template`, its leaves the tensors of their names.

    Raises:
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    wanted = named(template)
    check(source, tensors, wanted)
    leaves = [exact(name, tensors[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _read(path: Path, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    try:
        tensors = dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: {_fault(content, wanted, str(error))}") from None
    return {name: _array(path, name, tensor) for name, tensor in tensors.items()}


def _array(path: Path, name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    if tensor["dtype"] not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r} has dtype {tensor['dtype']}, which JAX has not")
    dtype = jnp.dtype(DTYPES[tensor["dtype"]])
    return np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])


def _fault(content: bytes, wanted: Mapping[str, Any], error: str) -> str:
    """Returns the fault of a file, such as the first tensor that is cut off."""
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        lost = f", tensor {next(iter(wanted))!r} and all others" if wanted else ""
        return f"cut short within its header, or no safetensors file{lost}: {error}"
    try:
        header = json.loads(content[8:start])
        ends = {n: t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"}
    except (ValueError, TypeError, AttributeError, LookupError):
        return f"no safetensors file: {error}"
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        if start + end > len(content):
            return f"tensor {name!r} is missing or not whole, the file is cut short"
    return f"no safetensors file: {error}"
