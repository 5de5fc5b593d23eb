"""Scales equal float64 NumPy, also far from zero and over parts that differ."""

import numpy as np
import pytest

from lstm_jax.data import convert, scaling

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_the_scale_is_that_of_numpy_in_float64(offset, monkeypatch) -> None:
    monkeypatch.setattr(convert, "CHUNK", 40)  # two rows at a time
    drift = np.linspace(0, 50, 30)[:, None, None]
    x = (RNG.normal(size=(30, 5, 3)) + drift + offset).astype(np.float32)
    x[RNG.uniform(size=x.shape) < 0.2] = np.nan
    valid, rows = RNG.uniform(size=(30, 5)) < 0.8, np.arange(0, 30, 2)
    found = scaling.fit(x, valid, rows, ("a", "b", "c"))
    wanted = x[rows][valid[rows]].astype(np.float64)
    np.testing.assert_allclose(found.mean, np.nanmean(wanted, 0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.nanstd(wanted, 0), rtol=1e-6)


def test_a_feature_that_is_constant_is_not_divided() -> None:
    x = np.full((4, 3, 2), np.float32(0.1))
    x[..., 1] = 0
    found = scaling.fit(x, np.ones((4, 3), bool), np.arange(4), ("a", "b"))
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_allclose(found.mean, [0.1, 0], rtol=1e-6)
