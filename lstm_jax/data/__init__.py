"""Data of your own: sequences, how they are divided, and packing."""

from lstm_jax.data import packing
from lstm_jax.data.sequences import Sequences
from lstm_jax.data.splits import Split

__all__ = ["Sequences", "Split", "packing"]
