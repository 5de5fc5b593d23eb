"""Levels of quantiles, and the quantiles of a distribution whose cdf is known."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.types import Array


def as_column(levels: Sequence[float], like: Array) -> Array:
    """Returns levels [N] with the rank of parameters [..., 1]."""
    return jnp.asarray(checked(levels), like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


def checked(levels: Any) -> tuple[float, ...]:
    """Returns levels of quantiles.

    Raises:
      ValueError: they are no list of numbers between 0 and 1.
    """
    given = np.asarray(levels)
    numbers = given.ndim == 1 and given.size > 0 and given.dtype.kind == "f"
    if not numbers or not ((given > 0) & (given < 1)).all():
        right = "a list of numbers between 0 and 1, such as [0.1, 0.9]"
        raise ValueError(f"levels must be {right}, got {levels!r:.60}")
    return tuple(given.tolist())


def bisect(cdf: Callable[[Array], Array], levels: Array, high: Array) -> Array:
    """Returns the least argument in [0, high] at which the cdf reaches each level."""

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        reached = cdf(middle) >= levels
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    return jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(high), high))[1]
