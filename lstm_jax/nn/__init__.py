"""Depth: Flax NNX modules round a cell over time, and models of them in words."""

from lstm_jax.nn import initializers
from lstm_jax.nn.dropout import Rates, add_noise, drop, drop_weights
from lstm_jax.nn.model import SequenceModel
from lstm_jax.nn.recurrent import Recurrent
from lstm_jax.nn.spec import SequenceSpec
from lstm_jax.nn.stack import Bidirectional, Layer, Stack

__all__ = [
    "Bidirectional",
    "Layer",
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
