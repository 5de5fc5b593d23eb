"""Three short series with covariates, and tasks over them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.data import Series
from lstm_jax.tasks import heads
from lstm_jax.tasks.forecast import Forecast

H, C = 3, 4
POINT, THREE = heads.Absolute(), heads.Quantiles((0.2, 0.5, 0.8))
RNG = np.random.default_rng(0)
SIZES = (30, 18, 7)
VALUES = [np.exp(RNG.normal(size=n)).round(2) + 1 for n in SIZES]
KNOWN = [RNG.normal(size=(n + H, 2)) for n in SIZES]
PAST = [RNG.normal(size=(n, 1)) for n in SIZES]
STATIC = RNG.normal(size=(3, 1))


def series_of(values=VALUES, known=KNOWN, past=PAST):
    return Series(values, known=known, past=past, static=STATIC, season=2)


def gappy():
    values = [part.copy() for part in VALUES]
    values[0][[3, 10, 11, 12, 13, 20]] = np.nan
    return values


def task_of(series=None, head=None, scale=None, seasonal=False, patch=1):
    series = series_of() if series is None else series
    options: dict[str, Any] = dict(head=head, scale=scale, seasonal=seasonal, patch=patch)
    return Forecast(series.split(H), context=C, **options)


def batch_of(task, split="train", arrays=None):
    arrays = task.arrays() if arrays is None else arrays
    index = arrays["splits"][split] if "splits" in arrays else np.arange(len(arrays["windows"]))
    index = jnp.asarray(index, jnp.int32)
    return jax.jit(task.static.batch)(arrays, index, jnp.ones(len(index)))


def counts(rates=(0.02, 3.0, 500.0), steps=30):
    """Series of counts, of which the first has windows of zeros alone."""
    rng = np.random.default_rng(1)
    return Series([rng.poisson(rate * rng.gamma(4, 1 / 4, steps)) for rate in rates], season=2)


COUNTS = heads.NegativeBinomial()
