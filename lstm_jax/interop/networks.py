"""Layers one on another as plain parameters, and their places in a whole model."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from lstm_jax.cells import Cell
from lstm_jax.engines import Engine, projected, unroll
from lstm_jax.interop.checking import check, named
from lstm_jax.types import Array, CellParams, Row

# Of each layer, the lowest first, its one direction or both, forward first.
Layers = tuple[tuple[CellParams, ...], ...]
States = tuple[tuple[Row, ...], ...]


def output_width(cell: Cell, params: CellParams) -> int:
    """Returns the width of what a layer puts out: H, or that of P where `w_h` is a pair (P, U)."""
    return params.w_h[0].shape[1] if isinstance(params.w_h, tuple) else cell.hidden


def check_layers(cell: Cell, layers: Layers) -> Layers:
    """Returns `layers` if they fit one on another.

    Raises:
      ValueError: there are none, they differ in their number of directions, or one does not take
        what the layer below puts out.
    """
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


def unroll_layers(
    cell: Cell,
    layers: Layers,
    x: Array,
    state: States | None = None,
    *,
    mask: Array | None = None,
    engine: str | Engine = "auto",
) -> tuple[States, Array]:
    """Runs layers one on another, each with its directions side by side.

    Where `w_h` is a pair (P, U), a layer puts out h @ P, as torch's does; its state keeps h.

    Args:
      cell: the cell of every layer.
      layers: their parameters.
      x: [T, B, D] inputs.
      state: where each layer and direction starts, each [B, width]; zeros by default.
      mask: [T, B] bool; where False states are held and the output is zero.
      engine: what runs the loops.

    Returns:
      The final state of each layer and direction, and the outputs [T, B, H] of the highest layer,
      H (or the width of P) from each direction.
    """
    finals, h = [], x
    for directions, starts in zip(layers, state or ((None, None),) * len(layers), strict=True):
        each = enumerate(zip(directions, starts, strict=state is not None))
        runs = [_run(cell, params, h, start, mask, engine, way) for way, (params, start) in each]
        finals.append(tuple(final for final, _ in runs))
        h = jnp.concatenate([h for _, h in runs], axis=-1)
    return tuple(finals), h


def layers_of(cell: Cell, params: Mapping[str, Any]) -> Layers:
    """Returns the recurrent layers within the parameters of a `SequenceSpec` of `cell`."""
    layers = params["stack"]["layers"]
    return tuple(
        tuple(
            CellParams(part["w_x"], _pair(part), part["b"], cell.Theta(part.get("theta", {})))
            for part in _directions(layer)
        )
        for layer in layers
    )


def with_layers(params: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    """Returns the parameters of a `SequenceSpec` with other recurrent layers.

    Front, head and learned initial states stay.

    Raises:
      ValueError: a tensor has no place there, or another shape or dtype: the first is named.
    """
    old = params["stack"]["layers"]
    beside: list[Mapping[str, Any]] = [*old, *({} for _ in layers)]
    new = [_replaced(layer, parts) for layer, parts in zip(beside, layers, strict=False)]
    check("layers", named(new), named(old))
    return {**params, "stack": {**params["stack"], "layers": new}}


def _run(cell, params, x, start, mask, engine, reverse):
    def turned(a):
        return jnp.flip(a, 0) if reverse else a

    mask = None if mask is None else turned(mask)
    final, h = unroll(cell, params, turned(x), start, mask=mask, engine=engine)
    return final, turned(projected(h, params.w_h))


def _pair(part: Mapping[str, Any]) -> Any:
    w_h = part.get("w_h")
    return tuple(w_h) if isinstance(w_h, list) else w_h


def _directions(layer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
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
