"""The compared networks by name: recurrent layers and a linear readout."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lstm_jax import cells
from lstm_jax.nn import SequenceSpec, initializers
from lstm_jax.tasks import Task
from lstm_jax.training import parallel
from lstm_jax.types import CellParams

LABELS = {
    "rnn": "tanh RNN",
    "irnn": "IRNN",
    "gru": "GRU",
    "lstm": "LSTM (bias 1)",
    "lstm_chrono": "LSTM (chrono)",
}
# The other cells of the catalogue, with their default biases.
CATALOGUE: Mapping[str, Callable[[int], cells.Cell]] = {
    "janet": cells.JANET,
    "layer_norm": cells.LayerNormLSTM,
    "memory_blocks": cells.MemoryBlocks,
    "min_gru": cells.MinGRU,
    "min_lstm": cells.MinLSTM,
    "slstm": cells.SLSTM,
    "urlstm": cells.URLSTM,
    **{name: functools.partial(cells.odyssey, name) for name in cells.ODYSSEY},
}


def spec(cell: cells.Cell, task: Task, engine: str, **settings: Any) -> SequenceSpec:
    """Returns the network of one or more layers of a cell, with the sizes of a task."""
    sizes = task.input_size, task.output_size, task.readout
    return SequenceSpec(cell, *sizes, engine=engine, **settings)


def network(name: str, task: Task, hidden: int, engine: str, depth: int = 1) -> SequenceSpec:
    """Returns the network called `name` for a task.

    Input weights start Glorot-uniform, recurrent weights orthogonal, biases at zero. Exceptions are
    the identity of the IRNN (Le, Jaitly & Hinton 2015), the LSTM's forget bias of 1, and chrono
    biases for lags up to 3/2 of the task's length, as in Tallec & Ollivier (2018) for copying.

    Args:
      name: one of `LABELS` or of `CATALOGUE`.
      task: gives the input and output sizes, the readout, and the length.
      hidden: H.
      engine: runs the loop over time.
      depth: layers.
    """
    if name in CATALOGUE:
        return spec(CATALOGUE[name](hidden), task, engine, depth=depth)
    cell, start = {
        "rnn": (cells.RNN(hidden), {}),
        "irnn": (cells.RNN(hidden, "relu"), {"w_h": initializers.identity()}),
        "gru": (cells.GRU(hidden), {}),
        "lstm": (cells.LSTM(hidden), {}),
        "lstm_chrono": (cells.LSTM(hidden), {"b": initializers.chrono(max(2, 1.5 * task.length))}),
    }[name]
    return spec(cell, task, engine, depth=depth, **start)


def of_each(one: Callable[[Any], Any], trees: Any, batching: str = "auto") -> Any:
    """Returns `one` of every trial of trees [R, ...], leaves [R, ...], over all devices."""
    mesh = parallel.everywhere()
    batching = parallel.resolve(batching, mesh)
    layout = parallel.Layout(len(jax.tree.leaves(trees)[0]), batching, mesh)
    return layout.gather(parallel.over_trials(one, batching, mesh)(layout.spread(trees)))


def recurrent(model: SequenceSpec, params: Any) -> CellParams:
    """Returns the parameters of the first layer for `lj.unroll`."""
    layer = params["stack"]["layers"][0]
    theta = model.cell.Theta(layer.get("theta", {}))
    return CellParams(layer["w_x"], layer["w_h"], layer["b"], theta)
