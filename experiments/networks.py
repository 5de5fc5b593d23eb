"""The networks that experiments compare, by name: recurrent layers and a linear readout."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from lstm_jax import cells
from lstm_jax.nn import SequenceSpec, initializers
from lstm_jax.tasks import Task
from lstm_jax.types import CellParams

LABELS = {
    "rnn": "tanh RNN",
    "irnn": "IRNN",
    "gru": "GRU",
    "lstm": "LSTM (bias 1)",
    "lstm_chrono": "LSTM (chrono)",
}
# The other cells of the catalogue, with the biases they have by themselves.
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


def network(name: str, task: Task, hidden: int, engine: str, depth: int = 1) -> SequenceSpec:
    """Returns the network called `name` for a task.

    Input weights start Glorot-uniform, recurrent ones orthogonal, biases at zero, but for: the
    IRNN, whose recurrent weights start at the identity (Le, Jaitly & Hinton 2015); the LSTM's
    forget bias of 1; chrono biases for lags up to 3/2 of the task's length, as Tallec & Ollivier
    (2018) take them for copying.

    Args:
      name: one of `LABELS` or of `CATALOGUE`.
      task: says the sizes of input and output, where to read out, and the length.
      hidden: H.
      engine: runs the loop over time.
      depth: layers.
    """
    sizes = task.input_size, task.output_size, task.readout
    if name in CATALOGUE:
        return SequenceSpec(CATALOGUE[name](hidden), *sizes, depth=depth, engine=engine)
    cell, start = {
        "rnn": (cells.RNN(hidden), {}),
        "irnn": (cells.RNN(hidden, "relu"), {"w_h": initializers.identity()}),
        "gru": (cells.GRU(hidden), {}),
        "lstm": (cells.LSTM(hidden), {}),
        "lstm_chrono": (cells.LSTM(hidden), {"b": initializers.chrono(max(2, 1.5 * task.length))}),
    }[name]
    return SequenceSpec(cell, *sizes, depth=depth, engine=engine, **start)


def recurrent(spec: SequenceSpec, params: Any) -> CellParams:
    """Returns the parameters of the first layer as `lj.unroll` takes them; leaves as they come."""
    layer = params["stack"]["layers"][0]
    theta = spec.cell.Theta(layer.get("theta", {}))
    return CellParams(layer["w_x"], layer["w_h"], layer["b"], theta)
