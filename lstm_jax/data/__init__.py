"""Data of your own: sequences, series over time, how they are divided, and packing."""

from lstm_jax.data import convert as convert
from lstm_jax.data import packing
from lstm_jax.data.files import column_names, read, read_series, read_text
from lstm_jax.data.idx import read_idx
from lstm_jax.data.sequences import Sequences
from lstm_jax.data.series import Series
from lstm_jax.data.splits import Split
from lstm_jax.data.text import Text, Vocabulary
from lstm_jax.data.windows import Windows

__all__ = [
    "Sequences",
    "Series",
    "Split",
    "Text",
    "Vocabulary",
    "Windows",
    "column_names",
    "packing",
    "read",
    "read_idx",
    "read_series",
    "read_text",
]
