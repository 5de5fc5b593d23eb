"""Flax NNX layers and models of recurrent cells, and hashable model specifications."""

from lstm_jax.nn import initializers
from lstm_jax.nn.dropout import add_noise, drop, drop_weights
from lstm_jax.nn.model import SequenceModel
from lstm_jax.nn.recurrent import Recurrent
from lstm_jax.nn.rnn_cell import RNNCell
from lstm_jax.nn.spec import SequenceSpec
from lstm_jax.nn.stack import Bidirectional, Layer, Stack
from lstm_jax.types import Rates

__all__ = [
    "Bidirectional",
    "Layer",
    "RNNCell",
    "Rates",
    "Recurrent",
    "SequenceModel",
    "SequenceSpec",
    "Stack",
    "add_noise",
    "drop",
    "drop_weights",
    "initializers",
]
