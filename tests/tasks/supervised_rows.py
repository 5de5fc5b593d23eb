"""Rows with gaps, ragged or whole, and their labels, numbers and tags."""

import numpy as np

RNG = np.random.default_rng(0)
N, T, D = 24, 6, 3
X = 5 + 2 * RNG.normal(size=(N, T, D)).astype(np.float32)
LENGTHS = RNG.integers(2, T + 1, N)
LABELS = np.array(["cat", "dog", "eel"])[np.arange(N) % 3]
NUMBERS = 100 + 10 * RNG.normal(size=N)
MASK = (np.arange(T) < LENGTHS[:, None]) & ((RNG.uniform(size=(N, T)) > 0.2) | (np.arange(T) == 0))
TAGS = [np.where(X[n, : LENGTHS[n], 0] > 5, "hi", "lo") for n in range(N)]
RAGGED = [X[n, : LENGTHS[n]] for n in range(N)]
