"""torch: `nn.LSTM`, `nn.GRU` and `nn.RNN`, all layers and directions of a state dictionary.

torch keeps two biases, which are added here. Its GRU applies the reset gate after the product, as
ours does.

With `proj_size` torch's h is projected already: h = (o * tanh(c)) P, p wide. Ours stays H wide, and
P stands in `w_h`, the pair (P, U). Their outputs and final h are our h @ P, and so is what a layer
above reads, as in `unroll_layers`. A projected h to start from cannot be represented: no one h of
ours belongs to it. Zeros can, and so can states of our own, carried on.
"""

import itertools
import re
from collections.abc import Mapping

import jax
import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.interop.checking import check, exact
from lstm_jax.interop.layouts import TORCH, kind, present, read, write
from lstm_jax.interop.networks import Layers, check_layers, output_width
from lstm_jax.types import Array, CellParams

Tensors = Mapping[str, Array | np.ndarray]


def from_torch(cell: Cell, tensors: Tensors) -> Layers:
    """Returns the parameters of every layer and direction of a torch module.

    Args:
      cell: `LSTM(H)`, `GRU(H)` or `RNN(H, nonlinearity)`, by the module's own settings.
      tensors: the module's `state_dict()` as arrays: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`,
        `bias_hh_l0` and, for an LSTM with `proj_size`, `weight_hr_l0`; `_reverse` behind for the
        second direction. A module without biases has biases of zero here.

    Raises:
      TypeError: torch has no such cell.
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    name = kind(cell, TORCH)
    layers, directions = _extent(name, tensors)
    p, layers_params = _projection(cell, tensors), []
    for layer in range(layers):
        ends = [f"_l{layer}", f"_l{layer}_reverse"][:directions]
        layers_params.append(tuple(_one(name, cell, tensors, end, p) for end in ends))
    return check_layers(cell, tuple(layers_params))


def to_torch(cell: Cell, layers: Layers) -> dict[str, np.ndarray]:
    """Returns the state dictionary, as NumPy arrays, of a torch module with these parameters.

    The module has `hidden_size` H, `num_layers`, `bidirectional` and, for pairs (P, U), `proj_size`
    to match. `bias_ih` holds the biases, `bias_hh` zeros, except that the GRU's candidate has both.

    Raises:
      TypeError: torch has no such cell.
      ValueError: layers do not fit one another, or a projection is not one that torch has.
    """
    name, tensors = kind(cell, TORCH), {}
    if len(widths := {output_width(cell, params) for params in itertools.chain(*layers)}) > 1:
        raise ValueError(f"torch's layers have outputs of one width, got {sorted(widths)}")
    for layer, directions in enumerate(check_layers(cell, layers)):
        for end, params in zip((f"_l{layer}", f"_l{layer}_reverse"), directions, strict=False):
            tensors |= _tensors(name, cell, params, end)
    return tensors


def _extent(name: str, tensors: Tensors) -> tuple[int, int]:
    """Returns the numbers of layers and directions that the names speak of."""
    kinds = "weight_(?:ih|hh|hr)" if name == "LSTM" else "weight_(?:ih|hh)"
    pattern = re.compile(rf"(?:{kinds}|bias_(?:ih|hh))_l(0|[1-9]\d*)(_reverse)?")
    matches = [(key, pattern.fullmatch(key)) for key in tensors]
    for key, match in matches:
        if match is None:
            raise ValueError(f"torch.nn.{name}: tensor {key!r} is unexpected")
    depth = 1 + max((int(match[1]) for _, match in matches if match), default=0)
    return depth, 2 if any(match[2] for _, match in matches if match) else 1


def _projection(cell: Cell, tensors: Tensors) -> int | None:
    """Returns p, the width of the projected h; None without projections."""
    if not any(key.startswith("weight_hr") for key in tensors):
        return None
    first = tensors.get("weight_hr_l0", np.zeros((0, 0)))
    return first.shape[0] if first.ndim == 2 else cell.hidden


def _one(name: str, cell: Cell, tensors: Tensors, end: str, p: int | None) -> CellParams:
    source, own = f"torch.nn.{name}", {k: v for k, v in tensors.items() if k.endswith(end)}
    layout = tuple(tensor._replace(name=tensor.name + end) for tensor in TORCH[name])
    P = own.pop(f"weight_hr{end}", None)
    params = read(source, present(layout, own), cell, own, feedback=p)
    if p is None:
        return params
    wanted = {f"weight_hr{end}": jax.ShapeDtypeStruct((p, cell.hidden), params.b.dtype)}
    check(source, {} if P is None else {f"weight_hr{end}": P}, wanted)
    return params._replace(w_h=(exact("weight_hr", P).T, params.w_h))


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
    layout = tuple(tensor._replace(name=tensor.name + end) for tensor in TORCH[name])
    return write(f"torch.nn.{name}", layout, cell, params, feedback=p) | projection
