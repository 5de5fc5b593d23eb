"""The networks that experiments compare, by name: one recurrent layer and a linear readout."""

from lstm_jax import cells, initializers
from lstm_jax.layers import SequenceSpec
from lstm_jax.tasks import Task

LABELS = {
    "rnn": "tanh RNN",
    "irnn": "IRNN",
    "gru": "GRU",
    "lstm": "LSTM (bias 1)",
    "lstm_chrono": "LSTM (chrono)",
}


def network(name: str, task: Task, hidden: int, engine: str) -> SequenceSpec:
    """Returns the network called `name` for a task.

    Input weights start Glorot-uniform, recurrent ones orthogonal, biases at zero, but for: the
    IRNN, whose recurrent weights start at the identity (Le, Jaitly & Hinton 2015); the LSTM's
    forget bias of 1; chrono biases for lags up to 3/2 of the task's length, as Tallec & Ollivier
    (2018) take them for copying.

    Args:
      name: one of `LABELS`.
      task: says the sizes of input and output, where to read out, and the length.
      hidden: H.
      engine: runs the loop over time.
    """
    cell, start = {
        "rnn": (cells.RNN(hidden), {}),
        "irnn": (cells.RNN(hidden, "relu"), {"w_h": initializers.identity()}),
        "gru": (cells.GRU(hidden), {}),
        "lstm": (cells.LSTM(hidden), {}),
        "lstm_chrono": (cells.LSTM(hidden), {"b": initializers.chrono(max(2, 1.5 * task.length))}),
    }[name]
    sizes = task.input_size, task.output_size, task.readout
    return SequenceSpec(cell, *sizes, engine=engine, **start)
