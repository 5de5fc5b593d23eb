"""torch: `nn.LSTM`, `nn.GRU` and `nn.RNN`, all layers and directions of a state dictionary.

torch keeps two biases, which are added here. Its GRU applies the reset gate after the product, as
ours does.

With `proj_size` torch's h is projected already: h = (o * tanh(c)) P, p wide. Ours stays H wide, and
P stands in `w_h`, the pair (P, U). Their outputs and final h are our h @ P, and so is what a layer
above reads, as in `nn.Recurrent`. A projected h to start from cannot be represented: no one h of
ours belongs to it. Zeros can, and so can states of our own, carried on.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.checks import check_is
from lstm_jax.interop.checking import arrays, check, exact
from lstm_jax.interop.layouts import TORCH, Layout, kind, present, read, write
from lstm_jax.interop.networks import Layers, check_are_layers, check_layers, output_width
from lstm_jax.types import Array, CellParams

Tensors = Mapping[str, Array | np.ndarray]


def from_torch(cell: Cell, tensors: Mapping[str, Any], prefix: str = "") -> Layers:
    """Returns the parameters of every layer and direction of a torch module.

    Args:
      cell: `LSTM(H)`, `GRU(H)` or `RNN(H, nonlinearity)`, by the module's own settings.
      tensors: the `state_dict()` of the module, or of an `LSTMCell`, `GRUCell` or `RNNCell`; torch
        tensors on any device, or arrays. `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`
        and, for an LSTM with `proj_size`, `weight_hr_l0`; with the suffix `_reverse` for the second
        direction. A module without biases has biases of zero here.
      prefix: which tensors of a larger model are the module's, such as "encoder.lstm."; a prefix
        that all tensors share may be left out.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    name = kind(cell)
    check_is("tensors", tensors, Mapping, "the state_dict(), a dictionary")
    matches = _matches(name, tensors, prefix)
    own = arrays(f"torch.nn.{name}", {key: tensors[key] for key in matches})
    shared = next((match[1] for match in matches.values()), "")
    p = _projection(cell, own, shared)
    layers = [
        tuple(_one(name, cell, own, shared, end, p) for end in ends)
        for ends in _ends(matches.values())
    ]
    return check_layers(cell, tuple(layers))


def to_torch(cell: Cell, layers: Layers) -> dict[str, np.ndarray]:
    """Returns the state dictionary, as NumPy arrays, of a torch module with these parameters.

    The module has `hidden_size` H, `num_layers`, `bidirectional` and, for pairs (P, U), `proj_size`
    to match. `bias_ih` holds the biases, `bias_hh` zeros, except that the GRU's candidate has both.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: layers do not fit one another, or a projection is not one that torch has.
    """
    name, tensors = kind(cell), {}
    check_are_layers(layers)
    if len(widths := {output_width(cell, params) for params in itertools.chain(*layers)}) > 1:
        raise ValueError(f"torch's layers have outputs of one width, got {sorted(widths)}")
    for layer, directions in enumerate(check_layers(cell, layers)):
        for end, params in zip((f"_l{layer}", f"_l{layer}_reverse"), directions, strict=False):
            tensors |= _tensors(name, cell, params, end)
    return tensors


def _matches(name: str, tensors: Mapping[str, Any], prefix: str) -> dict[str, re.Match]:
    """Returns the names of one module's tensors, in parts: prefix, layer and direction."""
    kinds = "weight_(?:ih|hh|hr)" if name == "LSTM" else "weight_(?:ih|hh)"
    pattern = re.compile(rf"(.*\.|)(?:{kinds}|bias_(?:ih|hh))(?:_l(0|[1-9]\d*)(_reverse)?)?")
    start, source = prefix and prefix.rstrip(".") + ".", f"torch.nn.{name}"
    found = {key: pattern.fullmatch(key) for key in tensors if key.startswith(start)}
    modules = sorted({match[1] for match in found.values() if match})
    if start and not found:
        raise ValueError(f"{source}: no tensor has the prefix {start!r}")
    if len(modules) > 1:
        raise ValueError(f"{source}: prefix must choose one module of {modules}, got {prefix!r}")
    layered = any(match[2] for match in found.values() if match)
    for key, match in found.items():
        if match is None or (layered and not match[2]):
            hint = f"; prefix={modules[0]!r} leaves it out" if any(modules) else ""
            raise ValueError(f"{source}: tensor {key!r} is unexpected{hint}")
    return {key: match for key, match in found.items() if match}


def _ends(matches: Collection[re.Match]) -> Iterator[list[str]]:
    """Yields the suffixes of the names of each layer, one for each of its directions.

    An `LSTMCell` has none.
    """
    depth = 1 + max((int(match[2] or 0) for match in matches), default=0)
    ways = ["", "_reverse"] if any(match[3] for match in matches) else [""]
    flat = bool(matches) and not any(match[2] for match in matches)
    for layer in range(depth):
        yield [""] if flat else [f"_l{layer}{way}" for way in ways]


def _projection(cell: Cell, tensors: Tensors, prefix: str) -> int | None:
    """Returns p, the width of the projected h; None without projections."""
    if not any(key.startswith(f"{prefix}weight_hr") for key in tensors):
        return None
    first = tensors.get(f"{prefix}weight_hr_l0", np.zeros((0, 0)))
    return first.shape[0] if first.ndim == 2 else cell.hidden


def _one(
    name: str, cell: Cell, tensors: Tensors, prefix: str, end: str, p: int | None
) -> CellParams:
    source, own = f"torch.nn.{name}", {k: v for k, v in tensors.items() if k.endswith(end)}
    layout = _layout(name, prefix, end)
    P = own.pop(at := f"{prefix}weight_hr{end}", None)
    params = read(source, present(layout, own), cell, own, feedback=p)
    if p is None:
        return params
    wanted = {at: jax.ShapeDtypeStruct((p, cell.hidden), params.b.dtype)}
    check(source, {} if P is None else {at: P}, wanted)
    return params._replace(w_h=(exact(at, P).T, params.w_h))


def _layout(name: str, prefix: str, end: str) -> Layout:
    return tuple(tensor._replace(name=f"{prefix}{tensor.name}{end}") for tensor in TORCH[name])


def _tensors(name: str, cell: Cell, params: CellParams, end: str) -> dict[str, np.ndarray]:
    projection, p = {}, None
    if isinstance(params.w_h, tuple):
        P, U = params.w_h
        if name != "LSTM" or P.shape[1] >= cell.hidden:
            raise ValueError(
                f"w_h has a projection to {P.shape[1]}: torch projects LSTMs only, to less than "
                f"H = {cell.hidden}"
            )
        shape = jax.ShapeDtypeStruct((cell.hidden, P.shape[1]), params.b.dtype)
        check("params", {"w_h[0]": P}, {"w_h[0]": shape})
        params, p = params._replace(w_h=U), P.shape[1]
        projection = {f"weight_hr{end}": np.ascontiguousarray(np.asarray(P).T)}
    layout = _layout(name, "", end)
    return write(f"torch.nn.{name}", layout, cell, params, feedback=p) | projection
