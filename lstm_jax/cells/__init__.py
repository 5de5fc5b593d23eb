"""Recurrent cells: their equations at one time step, for one row."""

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import (
    Cell,
    check_is_cell,
    feedback_parts,
    feedback_width,
    initial_state,
    mask_params,
    parameter_count,
)
from lstm_jax.cells.gru import GRU
from lstm_jax.cells.janet import JANET
from lstm_jax.cells.layer_norm import LayerNormLSTM
from lstm_jax.cells.linear import LinearCell
from lstm_jax.cells.lstm import LSTM
from lstm_jax.cells.memory_block import MemoryBlocks
from lstm_jax.cells.minimal import MinGRU, MinLSTM
from lstm_jax.cells.peephole import ODYSSEY, PeepholeLSTM, odyssey
from lstm_jax.cells.refine import URLSTM
from lstm_jax.cells.rnn import RNN
from lstm_jax.cells.slstm import SLSTM
from lstm_jax.cells.zoneout import Zoneout, zoneout_name

__all__ = [
    "GRU",
    "JANET",
    "LSTM",
    "ODYSSEY",
    "RNN",
    "SLSTM",
    "URLSTM",
    "Cell",
    "LayerNormLSTM",
    "LinearCell",
    "MemoryBlocks",
    "MinGRU",
    "MinLSTM",
    "PeepholeLSTM",
    "Zoneout",
    "check_is_cell",
    "feedback_parts",
    "feedback_width",
    "initial_state",
    "mask_params",
    "odyssey",
    "parameter_count",
    "sigmoid",
    "zoneout_name",
]
