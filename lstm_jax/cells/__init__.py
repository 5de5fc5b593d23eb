"""An instant: the equations of recurrent cells, row by row."""

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell, feedback_width, initial_state
from lstm_jax.cells.gru import GRU
from lstm_jax.cells.lstm import LSTM
from lstm_jax.cells.rnn import RNN

__all__ = ["GRU", "LSTM", "RNN", "Cell", "feedback_width", "initial_state", "sigmoid"]
