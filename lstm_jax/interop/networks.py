"""Parameters of stacked layers: as a stack of modules, and within those of a model."""

import itertools
from collections.abc import Mapping
from typing import Any

from flax import nnx

from lstm_jax.cells import Cell, check_is_cell
from lstm_jax.engines import Engine
from lstm_jax.interop.checking import check, named
from lstm_jax.nn import Bidirectional, Layer, Recurrent, Stack
from lstm_jax.nn.spec import as_lists, as_numbered
from lstm_jax.types import Array, CellParams

# Of each layer, the lowest first, its one direction or both, forward first.
Layers = tuple[tuple[CellParams, ...], ...]


def output_width(cell: Cell, params: CellParams) -> int:
    """Returns the width of a layer's output: H, or the width of P if `w_h` is a pair (P, U)."""
    return params.w_h[0].shape[1] if isinstance(params.w_h, tuple) else cell.hidden


def check_layers(cell: Cell, layers: Layers) -> Layers:
    """Returns `layers` if each takes the output of the layer below.

    Raises:
      ValueError: they do not, differ in their number of directions, or are none; TypeError: they
        are no layers.
    """
    check_are_layers(layers)
    counts = {len(directions) for directions in layers}
    if counts not in ({1}, {2}):
        raise ValueError(f"layers must all have one direction, or all two, got {sorted(counts)}")
    width = layers[0][0].w_x.shape[0]
    for depth, directions in enumerate(layers):
        for direction, params in enumerate(directions):
            if params.w_x.shape[0] != width:
                name, rows = f"layers[{depth}][{direction}].w_x", params.w_x.shape[0]
                raise ValueError(f"{name} must have D = {width} rows, got {rows}")
        width = sum(output_width(cell, params) for params in directions)
    return layers


def check_are_layers(layers: Any) -> None:
    """Raises TypeError unless `layers` are sequences of CellParams, one sequence a layer."""
    sequence = tuple | list
    nested = isinstance(layers, sequence) and all(isinstance(part, sequence) for part in layers)
    if not nested or not all(isinstance(p, CellParams) for p in itertools.chain(*layers)):
        right = "a tuple of layers, each a tuple of CellParams, such as ((params,),)"
        raise TypeError(f"layers must be {right}, got {type(layers).__name__}")


def as_stack(cell: Cell, layers: Layers, *, engine: str | Engine = "auto") -> Stack:
    """Returns the stack of modules with these parameters.

    Inputs, outputs and operands of matrix products have the dtype of the parameters.

    Args:
      cell: the cell of every layer.
      layers: their parameters.
      engine: name or instance of the engine that runs the loops.

    Raises:
      ValueError: the layers do not fit one another.
    """
    check_is_cell(cell)
    check_layers(cell, layers)
    graph, old = nnx.split(nnx.eval_shape(lambda: _drawn(cell, layers, engine)))
    template = {"stack": as_lists(nnx.to_pure_dict(old))}
    return nnx.merge(graph, as_numbered(with_layers(template, layers)["stack"]))


def _drawn(cell: Cell, layers: Layers, engine: str | Engine) -> Stack:
    """Returns a stack of the same structure, with initial parameters."""
    kind = Bidirectional if len(layers[0]) == 2 else Recurrent

    def layer(params: CellParams) -> Layer:
        projection = params.w_h[0].shape[1] if isinstance(params.w_h, tuple) else None
        return kind(
            cell, params.w_x.shape[0], rngs=nnx.Rngs(0), projection=projection, engine=engine,
            dtype=params.b.dtype, param_dtype=params.b.dtype,
        )  # fmt: skip

    return Stack([layer(directions[0]) for directions in layers])


def layers_of(cell: Cell, params: Mapping[str, Any]) -> Layers:
    """Returns the recurrent layers within the parameters of a `SequenceSpec` of `cell`."""
    check_is_cell(cell)
    layers = params["stack"]["layers"]
    return tuple(
        tuple(
            CellParams(part["w_x"], _pair(part), part["b"], cell.Theta(part.get("theta", {})))
            for part in directions_of(layer)
        )
        for layer in layers
    )


def with_layers(params: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    """Returns the parameters of a `SequenceSpec` with other recurrent layers.

    Front, head and learned initial states stay.

    Raises:
      ValueError: a tensor has no place there, or another shape or dtype: the first is named.
    """
    check_are_layers(layers)
    old = params["stack"]["layers"]
    beside: list[Mapping[str, Any]] = [*old, *({} for _ in layers)]
    new = [_replaced(layer, parts) for layer, parts in zip(beside, layers, strict=False)]
    check("layers", named(new), named(old))
    return {**params, "stack": {**params["stack"], "layers": new}}


def _pair(part: Mapping[str, Any]) -> Any:
    w_h = part.get("w_h")
    return tuple(w_h) if isinstance(w_h, list) else w_h


def directions_of(layer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the parameters of each direction of a layer of a `SequenceSpec`."""
    return [layer["forward"], layer["backward"]] if "forward" in layer else [layer]


def _replaced(layer: Mapping[str, Any], parts: tuple[CellParams, ...]) -> dict[str, Any]:
    if len(parts) == 2:
        each = zip(("forward", "backward"), parts, strict=True)
        return {way: _replaced(layer.get(way, {}), (part,)) for way, part in each}
    new = parts[0]._asdict() | {"theta": parts[0].theta._asdict()}
    if isinstance(new["w_h"], tuple):
        new["w_h"] = list(new["w_h"])
    for name in ("w_h", "theta"):  # as `SequenceSpec.init` leaves them out
        if not (isinstance(new[name], Array) or new[name]):
            del new[name]
    return {name: value for name, value in layer.items() if name not in CellParams._fields} | new
