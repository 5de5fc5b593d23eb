"""ONNX: one file of a model's own recurrent operators, for whole sequences or for one time step.

onnx        inputs x, lengths; output y
onnx_step   inputs x, mask, reset, state.0.h, ...; outputs y, next.0.h, ...
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.interop.export import missing
from lstm_jax.interop.export.builder import NONE, Graph
from lstm_jax.interop.export.models import Exported, exported
from lstm_jax.interop.export.operators import check_cell, operator, weights
from lstm_jax.interop.networks import directions_of, layers_of
from lstm_jax.nn.recurrent import NOT_STREAMED
from lstm_jax.types import CellParams


def onnx(model: Any, file: str | os.PathLike) -> None:
    """Writes a model of whole sequences as an ONNX file.

    Input `x` is [T, B, D] float32, or [T, B] int32 for front="embed"; T and B are free. Input
    `lengths` [B] int32 has the number of valid time steps of each row, which are the first ones.
    Output `y` is [B, V], or [T, B, V] for readout="every".

    Args:
      model: a pair `(spec, params)`, or a trained network, such as `result.best()`, which takes
        inputs in the units of its data, NaN where one is missing.
      file: the new file.

    Raises:
      FileExistsError: the file exists; it is left as it is.
      ImportError: onnx is not installed.
      TypeError: `model` is no model; ValueError: ONNX has no operator for the cell, or the dtype is
        not float32.
    """
    parts = _exportable(model)
    graph, (spec, params, *_) = Graph(), parts
    x, some = _input(graph, parts, "T", "B")
    lengths = graph.input("lengths", np.int32, ["B"])
    valid = missing.valid_steps(graph, some, lengths) if some else NONE
    if valid:
        x, lengths = missing.first(graph, x, valid), missing.count(graph, valid)
    h, final = _front(graph, params.get("front"), x), NONE
    for layer in _layers(spec.cell, params):
        starts = _initial(graph, layer, lengths)
        h, (final, *_) = _recurrent(graph, spec.cell, layer, h, lengths, starts)
    axes = ["T", "B"]
    if spec.readout == "last":
        h, axes = _side_by_side(graph, layer, final, [1, 0, 2]), ["B"]
    elif valid:
        h = missing.back(graph, h, valid)
    graph.output("y", _head(graph, params, h), [*axes, spec.output_size])
    graph.write(file, "sequence")


def onnx_step(model: Any, file: str | os.PathLike) -> None:
    """Writes one time step of a stream as an ONNX file, with states as inputs and outputs.

    Input `x` is [B, D] float32, or [B] int32 for front="embed". `mask` [B] is False for rows that
    hold their state, whose output has no meaning. `reset` [B] is True for rows that start a
    sequence, whatever their state. The states [B, H] are `state.0.h`, ... before the time step and
    `next.0.h`, ... after it. The last output, `y`, is [B, V].

    Arguments and errors are those of `onnx`; a bidirectional model raises a ValueError, too.
    """
    parts = _exportable(model)
    spec, params = parts.spec, parts.params
    if spec.bidirectional:
        raise ValueError(f"a bidirectional model {NOT_STREAMED}: use export.onnx")
    graph = Graph()
    x, some = _input(graph, parts, "B")
    x = graph.node("Unsqueeze", x, graph.constant([0]))
    mask, reset = (graph.input(name, np.bool_, ["B"]) for name in ("mask", "reset"))
    mask = graph.node("And", mask, some) if some else mask
    flags = [graph.node("Unsqueeze", flag, graph.constant([1])) for flag in (mask, reset)]
    h = _front(graph, params.get("front"), x)
    for depth, layer in enumerate(_layers(spec.cell, params)):
        h = _streamed(graph, spec.cell, layer, depth, h, *flags)
    _output_now(graph, "y", _head(graph, params, h), spec.output_size)
    graph.write(file, "step")


class Layer(NamedTuple):
    """One layer.

    Attributes:
      directions: the parameters of its one direction, or of both.
      initial: its initial states, learned or zero, in the cell's order, each [directions, 1, H].
    """

    directions: tuple[CellParams, ...]
    initial: list[np.ndarray]


def _exportable(model: Any) -> Exported:
    parts = exported(model)
    check_cell(parts.spec.cell)
    if parts.spec.dtype != np.float32:
        raise ValueError(f"dtype must be float32 for ONNX, got {parts.spec.dtype}")
    return parts


def _layers(cell: Cell, params: Mapping[str, Any]) -> Iterator[Layer]:
    parts = params["stack"]["layers"]
    for directions, part in zip(layers_of(cell, params), parts, strict=True):
        learned = [one["initial"] for one in directions_of(part) if "initial" in one]
        zeros = {state: np.zeros(cell.hidden) for state in cell.states}
        rows = learned or [zeros] * len(directions)
        initial = [np.stack([row[state] for row in rows])[:, None] for state in cell.states]
        yield Layer(directions, initial)


def _input(graph: Graph, model: Exported, *axes: str) -> tuple[str, str]:
    """Returns the new input x, scaled, and where it has a number; NONE if that does not matter."""
    spec, _, scale, held = model
    if spec.front == "embed":
        return graph.input("x", np.int32, axes), NONE
    x = graph.input("x", np.float32, [*axes, spec.input_size])
    if scale is None:
        return x, NONE
    mean, deviation = map(graph.constant, scale)
    x = graph.node("Div", graph.node("Sub", x, mean), deviation)
    gone = graph.node("IsNaN", x)
    x = graph.node("Where", gone, graph.constant(np.zeros(1)), x)
    if not held:
        return x, NONE
    numbers = graph.cast(graph.node("Not", gone), np.float32)
    count = graph.node("ReduceSum", numbers, graph.constant([-1]), keepdims=0)
    return x, graph.node("Greater", count, graph.constant(np.zeros(1)))


def _front(graph: Graph, front: Mapping[str, Any] | None, x: str) -> str:
    if front is None:
        return x
    if "embedding" in front:
        return graph.node("Gather", graph.constant(front["embedding"]), x)
    return _linear(graph, front, x)


def _head(graph: Graph, params: Mapping[str, Any], h: str) -> str:
    head = params["head"]
    if "kernel" not in head:  # tied to the embedding
        head = {"kernel": np.asarray(params["front"]["embedding"]).T, **head}
    return _linear(graph, head, h)


def _linear(graph: Graph, params: Mapping[str, Any], x: str) -> str:
    product = graph.node("MatMul", x, graph.constant(params["kernel"]))
    return graph.node("Add", product, graph.constant(params["bias"]))


def _initial(graph: Graph, layer: Layer, lengths: str) -> list[str]:
    """Returns the initial states of every row, each [directions, B, H]."""
    directions, _, H = layer.initial[0].shape
    sizes = graph.constant([directions]), graph.node("Shape", lengths), graph.constant([H])
    shape = graph.node("Concat", *sizes, axis=0)
    return [graph.node("Expand", graph.constant(start), shape) for start in layer.initial]


def _streamed(
    graph: Graph, cell: Cell, layer: Layer, depth: int, x: str, mask: str, reset: str
) -> str:
    """Returns the output [1, B, H] of one time step, whose states are inputs and outputs."""
    names = [f"{depth}.{state}" for state in cell.states]
    starts = [
        _start(graph, f"state.{name}", initial, reset)
        for name, initial in zip(names, layer.initial, strict=True)
    ]
    h, finals = _recurrent(graph, cell, layer, x, NONE, starts)
    for name, final, start in zip(names, finals, starts, strict=True):
        _output_now(graph, f"next.{name}", graph.node("Where", mask, final, start), cell.hidden)
    return h


def _start(graph: Graph, name: str, initial: np.ndarray, reset: str) -> str:
    """Returns the state [1, B, H] before a time step: a new input, or the initial state."""
    given = graph.input(name, np.float32, ["B", initial.shape[-1]])
    given = graph.node("Unsqueeze", given, graph.constant([0]))
    return graph.node("Where", reset, graph.constant(initial), given)


def _output_now(graph: Graph, name: str, value: str, width: int) -> None:
    """Makes a value [1, B, width] an output [B, width]."""
    graph.output(name, graph.node("Squeeze", value, graph.constant([0])), ["B", width])


def _recurrent(
    graph: Graph, cell: Cell, layer: Layer, x: str, lengths: str, starts: Sequence[str]
) -> tuple[str, list[str]]:
    """Returns the outputs [T, B, directions * H], and the final states [directions, B, H]."""
    name, attributes = operator(cell, len(layer.directions))
    own = {key: graph.constant(array) for key, array in weights(cell, layer.directions).items()}
    inputs = [x, own.pop("W"), own.pop("R"), own.pop("B"), lengths, *starts, *own.values()]
    h, *finals = graph.nodes(name, inputs, 1 + len(cell.states), **attributes)
    return _side_by_side(graph, layer, h, [0, 2, 1, 3]), finals


def _side_by_side(graph: Graph, layer: Layer, h: str, order: list[int]) -> str:
    """Returns projected outputs whose last two axes are those of `order`, as one axis."""
    if isinstance(layer.directions[0].w_h, tuple):
        each = [np.asarray(params.w_h[0]) for params in layer.directions]
        h = graph.node("MatMul", h, graph.constant(np.stack(each)))
    turned = graph.node("Transpose", h, perm=order)
    shape = graph.constant([*[0] * (len(order) - 2), -1])  # 0 keeps an axis
    return graph.node("Reshape", turned, shape)
