"""Time steps that hold the state, in ONNX, whose operators know the lengths of sequences alone.

The time steps that count come first in a row, in their order, and the length is their number. Each
output goes back to its own time step.
"""

import numpy as np

from lstm_jax.interop.export.builder import Graph


def valid_steps(graph: Graph, some: str, lengths: str) -> str:
    """Returns [T, B] bool, the time steps within the lengths at which `some` [T, B] holds."""
    ends = graph.cast(lengths, np.int64)
    return graph.node("And", some, graph.node("Less", _steps(graph, some), ends))


def count(graph: Graph, valid: str) -> str:
    """Returns [B] int32, how many time steps are valid."""
    ones = graph.cast(valid, np.int32)
    return graph.node("ReduceSum", ones, graph.constant([0]), keepdims=0)


def first(graph: Graph, x: str, valid: str) -> str:
    """Returns x [T, B, D] with the valid time steps first, in their order."""
    steps, length = _steps(graph, valid), _length(graph, valid)
    place = graph.node("Where", valid, steps, graph.node("Add", steps, length))
    _, order = graph.nodes("TopK", [place, length], 2, axis=0, largest=0)
    return _gathered(graph, x, order)


def back(graph: Graph, h: str, valid: str) -> str:
    """Returns outputs [T, B, H] of the valid time steps at their own places, zeros elsewhere."""
    ones = graph.cast(valid, np.int64)
    place = graph.node("CumSum", ones, graph.constant(np.array(0)))
    place = graph.node("Max", graph.node("Sub", place, graph.constant([1])), graph.constant([0]))
    where = graph.node("Unsqueeze", valid, graph.constant([-1]))
    return graph.node("Where", where, _gathered(graph, h, place), graph.constant(np.zeros(1)))


def _steps(graph: Graph, values: str) -> str:
    """Returns [T, 1] int64, the numbers of the time steps of [T, ...]."""
    zero, one = graph.constant(np.array(0)), graph.constant(np.array(1))
    length = graph.node("Squeeze", _length(graph, values))
    return graph.node("Unsqueeze", graph.node("Range", zero, length, one), graph.constant([1]))


def _length(graph: Graph, values: str) -> str:
    """Returns [1] int64, the time steps of [T, ...]."""
    return graph.node("Shape", values, start=0, end=1)


def _gathered(graph: Graph, values: str, steps: str) -> str:
    """Returns values [T, B, D] of the time steps [T, B]."""
    steps = graph.node("Unsqueeze", steps, graph.constant([-1]))
    index = graph.node("Expand", steps, graph.node("Shape", values))
    return graph.node("GatherElements", values, index, axis=0)
