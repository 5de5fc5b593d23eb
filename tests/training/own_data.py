"""Small data of one's own, and the model that learns them."""

from typing import Any

import numpy as np

import lstm_jax as lj

T = 6
QUIET: dict[str, Any] = dict(progress=False, batching="map")
MODEL = lj.nn.SequenceSpec(lj.cells.LSTM(4))


def rows_of(seed: int, rows: int) -> tuple[list[np.ndarray], list[str]]:
    """Returns ragged rows, and of each whether its mean is above zero."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(rng.choice([-1.0, 1.0]), 1, (rng.integers(3, T + 1), 2)) for _ in range(rows)]
    return x, ["up" if row.mean() > 0 else "down" for row in x]


def sequences(seed: int, rows: int = 60) -> lj.data.Split:
    return lj.data.Sequences(*rows_of(seed, rows), lengths=None).split(0.2, 0.2)


TASK = lj.tasks.Classification(sequences(0))
